"""Model → ONNX graph: states as inputs and outputs, T and N dynamic, nothing of this machine."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from edgernn.card import State
from edgernn.errors import EdgernnError
from edgernn.nets.layers import Stateful
from edgernn.nets.model import Exportable
from edgernn_export.ops import EXPORTED, TRANSLATIONS
from edgernn_export.trim import shorten, strip

OPSET = 21


def build_graph(model: Exportable, *, inputs: int | None = None) -> onnx.ModelProto:
    """The float32 graph of a trained model of any task.

    `inputs`: columns of `x`, where they are not the channels. A state with `ANY` in its shape has
    as many there as `x` has channels, and then any number of them may come.
    Inputs `x` (T, N, C) and `state.*` (N, …); outputs the model's own (T, N, …), such as score,
    and `state.*.next` (N, …). Raises EdgernnError if an axis came out frozen.
    """
    return _traced(_Flat(model), inputs or model.channels, model.states, model.outputs)


def build_layer_graph(layer: Stateful, inputs: int) -> onnx.ModelProto:
    """The float32 graph of one stateful layer, or of a network of them.

    Inputs `x` (T, N, inputs) and `state.*` (N, …); outputs `features` (T, N, width) and
    `state.*.next` (N, …). Raises EdgernnError if an axis came out frozen.
    """
    states = [State(f"state.{name}", row, 0.0) for name, row in layer.state_shapes.items()]
    return _traced(_FlatLayer(layer), inputs, states, ("features",))


def _traced(
    module: nn.Module, inputs: int, states: Sequence[State], outputs: Sequence[str]
) -> onnx.ModelProto:
    """`module` takes x (T, N, inputs) and a tuple of states, and gives outputs, then states."""
    names = [state.name for state in states]
    arguments: list[object] = [torch.zeros(5, 3, inputs)]
    is_open = any(0 in state.shape for state in states)
    free: list[object] = [{0: Dim("T"), 1: Dim("N")} | ({2: Dim("C")} if is_open else {})]
    if states:  # the exporter stumbles over an empty tuple
        rows = [[size or inputs for size in state.shape] for state in states]
        arguments.append(tuple(torch.zeros(3, *row) for row in rows))
        free.append(
            tuple(
                {0: Dim("N")} | {i: Dim("C") for i, size in enumerate(state.shape, 1) if not size}
                for state in states
            )
        )
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _for_export(module),
            tuple(arguments),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple(free),
            input_names=["x", *names],
            output_names=[*outputs, *(f"{name}.next" for name in names)],
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    strip(model)
    shorten(model)
    _check_axes(model, states)
    onnx.checker.check_model(model)
    return model


class _Flat(nn.Module):
    """The model with its states as one tuple, which is what dynamic shapes can be given for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.model(x, *state)
        return outputs


class _FlatLayer(nn.Module):
    """A layer with features and next states in one tuple."""

    def __init__(self, layer: Stateful) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, state: tuple[Tensor, ...] = ()) -> tuple[Tensor, ...]:
        features, following = self.layer(x, *state)
        return features, *following


def _for_export(module: nn.Module) -> nn.Module:
    """A copy whose stateful layers are single opaque ops."""
    twin = copy.deepcopy(module).eval().requires_grad_(False)
    _replace_layers(twin)
    return twin


def _replace_layers(module: nn.Module) -> None:
    """What stands in for a layer stands in for all that is inside it."""
    for name, child in list(module.named_children()):
        if type(child) in EXPORTED:
            module.set_submodule(name, EXPORTED[type(child)](child))
        else:
            _replace_layers(child)


def _check_axes(model: onnx.ModelProto, states: Sequence[State]) -> None:
    """T and N must be free on every input and output, and C where any number of channels may come:
    a frozen axis is silent until it hurts."""
    rows = {state.name: ["" if size else "C" for size in state.shape] for state in states}
    rows |= {f"{name}.next": row for name, row in rows.items()}
    is_open = any("C" in row for row in rows.values())
    for value in (*model.graph.input, *model.graph.output):
        free = [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        behind = ["C" if is_open else ""] * (len(free) - 2)
        expected = ["N", *rows[value.name]] if value.name in rows else ["T", "N", *behind]
        if free != expected:
            raise EdgernnError(f"export: axes {free} of {value.name} came out frozen")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes (no torchvision, its own deprecations) are not the user's concern."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
