"""Training on for a few epochs with weights rounded as they will be stored.

Forward, every weight is what the device will have; backward, it is as if there were no rounding
(straight-through: Bengio et al. 2013, arXiv:1308.3432). The model that comes out holds rounded
weights, which the exporter stores without a further loss.

What is learnt is to say what the trained model says: its features, sample by sample (distillation:
Hinton et al. 2015, arXiv:1503.02531). Trained for its own loss it became another detector, with
alarms of its own, however few the epochs. The best epoch is kept, or the rounded weights that it
began with where none is better. Heads, biases and calibration stay as they are.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

import msgspec
import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgernn.errors import EdgernnError
from edgernn.nets.model import Model
from edgernn.recording import Recording
from edgernn.run import Run
from edgernn.spill import Spill
from edgernn.training.fit import best_of, fit, mean_loss
from edgernn.training.stretches import read_recordings, side_by_side, split
from edgernn.training.train import hash_lessons, make_lessons
from edgernn_export.artefact import Source
from edgernn_export.dynamic import compute_in_integers
from edgernn_export.quantize import plan
from edgernn_export.rounding import rounded_weight
from edgernn_export.storage import LEAST_SCALE, Floats, largest_of
from edgernn_export.weights import find_weights

EPOCHS = 8
STREAMS = 8
"""Side by side: fewer than in training make more steps of an epoch."""
RATE_SHARES: Mapping[str, float] = MappingProxyType(
    {"int4": 0.01, "int8": 0.002, "int8-dynamic": 0.002}
)
"""Of the run's learning rate, by mode: a step between two int8 is an 18th of one between int4. On
the simulated pump's GRU, int4, the mean difference of scores fell from 0.060 to 0.028 with 0.01, to
0.033 with 0.03 and 0.055 with 0.1; rounding with feedback leaves little to gain."""


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


def train_on(source: Source, folder: Path, mode: str) -> Run:
    """The source's run after `EPOCHS` more epochs on its own recordings, for weights stored by
    `mode`.

    `folder` is the run's: the recordings' paths lead from there. Raises EdgernnError if the
    recordings are gone, or not what the run was trained on.
    """
    run = source.run
    training = run.config.training
    limit_bytes = training.memory_gb * 1e9
    with Spill(folder / "samples.qat", limit_bytes=limit_bytes) as spill:
        stretches = split(_own_recordings(run, folder, spill), run.config, spill)
        model = copy.deepcopy(run.trained)
        lessons = make_lessons(model, stretches, run.card.classes, spill)
        if hash_lessons(run.config, lessons.fit, spill) != run.card.provenance.data_hash:
            raise EdgernnError(
                "--qat: the run's recordings have changed since it was trained (another data hash)"
            )
        rounded = _round_weights(model, source, mode)
        pupil = cast("Model", _Pupil(model, copy.deepcopy(run.trained)))
        further = msgspec.structs.replace(
            training,
            epochs=EPOCHS,
            patience=EPOCHS,
            streams=STREAMS,
            learning_rate=training.learning_rate * RATE_SHARES[mode],
            schedule="cosine",
        )
        held_out = side_by_side(lessons.validation, STREAMS, at_least=further.chunk, spill=spill)
        first, loss = copy.deepcopy(model.state_dict()), mean_loss(pupil, held_out, spill=spill)
        losses = fit(pupil, lessons, further, spill=spill)
        if best_of(losses).validation >= loss:  # nothing was gained
            model.load_state_dict(first)
        for module, name in rounded:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return replace(run, model=model.eval())


class _Pupil(nn.Module):
    """A model as `fit` trains it: to have the features of its teacher."""

    def __init__(self, model: Model, teacher: Model) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher.requires_grad_(False)

    @property
    def centre(self) -> Tensor:
        return self.model.centre

    def fresh_state(self, streams: int) -> tuple[Tensor, ...]:
        """What both see by: the model's states, then the teacher's."""
        return 2 * self.model.fresh_state(streams)[: len(self.model.seeing)]

    def set_clock(self, state: tuple[Tensor, ...], times_s: Sequence[float]) -> tuple[Tensor, ...]:
        """Of both."""
        half = len(state) // 2
        ours, theirs = (self.model.set_clock(one, times_s) for one in (state[:half], state[half:]))
        return (*ours, *theirs)

    def loss(
        self, x: Tensor, hidden: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """x, hidden (T, N, C or more) → the sum of squared differences, their number, next states.
        No dropout: the device has none."""
        self.eval()
        channels, half = self.model.channels, len(state) // 2
        z, observed = self.model.scaled(x[..., :channels])
        shown = 1 - hidden[..., :channels]
        seen = z * shown, observed * shown
        _, ours, after = self.model.features(*seen, state[:half])  # (T, N, width)
        _, theirs, teachers = self.teacher.features(*seen, state[half:])
        count = torch.tensor(float(ours.numel()), device=ours.device)
        return (ours - theirs).square().sum(), count, (*after, *teachers)


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


def _round_weights(model: nn.Module, source: Source, mode: str) -> list[tuple[nn.Module, str]]:
    """Round each weight that `mode` stores as integers while the model trains, beginning with what
    the exporter makes of it."""
    kinds = plan(source.graph.graph, mode, is_tight=False)
    if mode == "int8-dynamic":
        twin = copy.deepcopy(source.graph)
        computed = compute_in_integers(twin, find_weights(twin.graph), source.moments)
        kinds |= dict.fromkeys(computed, "int8")  # also at the edge
    before = {t.name: numpy_helper.to_array(t) for t in source.graph.graph.initializer}
    weights = [(before[name], kind, source.moments, name) for name, kind in kinds.items()]
    model.requires_grad_(False)  # biases carry the calibrated spread: they stay
    found: list[tuple[nn.Module, str]] = []
    for path, parameter in list(model.named_parameters()):
        mine = [one for one in weights if parameter.ndim > 1 and _holds(parameter, one[0])]
        if not mine:
            continue
        (kind,) = {kind for _, kind, _, _ in mine}
        rounded = [rounded_weight(name, w, kind, moments) for w, kind, moments, name in mine]
        with torch.no_grad():
            parameter.copy_(_replaced(parameter, [w for w, *_ in mine], rounded))
        parameter.requires_grad_(True)
        parent, _, name = path.rpartition(".")
        module = model.get_submodule(parent)
        parametrize.register_parametrization(module, name, Rounded(kind))
        found.append((module, name))
    return found


def _holds(parameter: Tensor, weight: Floats) -> bool:
    """Graph and model name and order weights differently, and a minGRU's gate has them with the
    other sign: the parameter of a weight is the one that holds all its numbers."""
    values = parameter.detach().numpy()
    return weight.size <= values.size and any(np.isin(w, values).all() for w in (weight, -weight))


def _replaced(parameter: Tensor, before: Sequence[Floats], after: Sequence[Floats]) -> Tensor:
    """The parameter with each number of `before` replaced by the one in its place in `after`, with
    either sign; all others as they are."""
    old, new = (
        np.concatenate([w.ravel() for w in (*ws, *(-w for w in ws))]) for ws in (before, after)
    )
    order = np.argsort(old)
    values = parameter.detach().numpy()
    places = order[np.searchsorted(old, values, sorter=order).clip(max=len(old) - 1)]
    return torch.from_numpy(np.where(old[places] == values, new[places], values))
