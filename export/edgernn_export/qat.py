"""Training on for a few epochs with weights rounded as they will be stored.

Forward, every weight is what the device will have; backward, it is as if there were no rounding
(straight-through: Bengio et al. 2013, arXiv:1308.3432). The model that comes out holds rounded
weights, which the exporter stores without a further loss, and is calibrated anew.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgernn.errors import EdgernnError
from edgernn.recording import Recording
from edgernn.run import Run
from edgernn.spill import Spill
from edgernn.training.fit import fit
from edgernn.training.stretches import read_recordings, split
from edgernn.training.train import make_honest, make_lessons
from edgernn_export.quantize import plan
from edgernn_export.storage import LEAST_SCALE, largest_of

EPOCHS = 8
RATE_SHARE = 0.2
"""Of the run's learning rate: the weights are nearly right already."""


class Rounded(nn.Module):
    """A weight (O, …) rounded row by row to symmetric integers, as `storage.to_integers` does."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.largest = kind, largest_of(kind)

    def forward(self, weight: Tensor) -> Tensor:
        """The same shape; its gradient goes straight through."""
        peak = weight.detach().abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        scale = peak / self.largest
        if self.kind != "int16" and bool((scale >= LEAST_SCALE).all()):
            scale = scale.half().float()
        rounded = (weight.detach() / scale).round().clamp(-self.largest, self.largest) * scale
        return weight + (rounded - weight).detach()


def train_on(run: Run, folder: Path, graph: onnx.ModelProto, mode: str) -> Run:
    """The run after `EPOCHS` more epochs on its own recordings, for weights stored by `mode`.

    `folder` is the run's: the recordings' paths lead from there; `graph` is its float32 graph.
    Raises EdgernnError if the recordings are gone.
    """
    training = run.config.training
    limit_bytes = training.memory_gb * 1e9
    with Spill(folder / "samples.qat", limit_bytes=limit_bytes) as spill:
        stretches = split(_own_recordings(run, folder, spill), run.config, spill)
        model = copy.deepcopy(run.model)
        rounded = _round_weights(model, graph, plan(graph.graph, mode, is_tight=False))
        fit(
            model,
            make_lessons(model, stretches, run.card.classes, spill),
            msgspec.structs.replace(
                training,
                epochs=EPOCHS,
                patience=EPOCHS,
                learning_rate=training.learning_rate * RATE_SHARE,
                schedule="cosine",
            ),
            spill=spill,
        )
        for module, name in rounded:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        tails = make_honest(model, stretches, run.config, run.card.classes)
    card = msgspec.structs.replace(run.card, tails=tails)
    return replace(run, model=model.eval(), card=card)


def _own_recordings(run: Run, folder: Path, spill: Spill) -> Recording:
    try:
        recording = read_recordings(run.config, folder, spill)
    except EdgernnError as exc:
        raise EdgernnError(f"--qat trains on the run's own recordings: {exc}") from exc
    if recording.channels != run.card.channel_names:
        raise EdgernnError(
            f"--qat: the run's recordings now have channels {', '.join(recording.channels)}, it "
            f"was trained on {', '.join(run.card.channel_names)}"
        )
    return recording


def _round_weights(
    model: nn.Module, graph: onnx.ModelProto, kinds: Mapping[str, str]
) -> list[tuple[nn.Module, str]]:
    """Round each weight that the graph stores as integers while the model trains. Graph and model
    name and order them differently: the parameter is the one that holds all a weight's numbers."""
    stored = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer if t.name in kinds}
    found: list[tuple[nn.Module, str]] = []
    for path, parameter in list(model.named_parameters()):
        values = parameter.detach().numpy()
        mine = {
            kinds[name]
            for name, weight in stored.items()
            if weight.size <= values.size and np.isin(weight, values).all()
        }
        if mine and values.ndim > 1:
            parent, _, name = path.rpartition(".")
            module = model.get_submodule(parent)
            (kind,) = mine
            parametrize.register_parametrization(module, name, Rounded(kind))
            found.append((module, name))
    return found
