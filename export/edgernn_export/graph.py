"""Detector → ONNX graph: states as inputs and outputs, T and N dynamic, nothing of this machine."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from edgernn.errors import EdgernnError
from edgernn.nets.detector import Detector
from edgernn_export.ops import EXPORTED, TRANSLATIONS

OPSET = 21
OUTPUTS = ("score", "contribution", "expected")
PRODUCER = "edgernn"


def build_graph(detector: Detector) -> onnx.ModelProto:
    """The float32 graph of a trained detector.

    Inputs `x` (T, N, C) and `state.*` (N, …); outputs score (T, N), contribution (T, N, C),
    expected (T, N, C) and `state.*.next` (N, …). Raises EdgernnError if an axis came out frozen.
    """
    names = [state.name for state in detector.states]
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _Flat(_for_export(detector)),
            (torch.zeros(5, 3, detector.channels), detector.fresh_state(3)),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: Dim("T"), 1: Dim("N")}, tuple({0: Dim("N")} for _ in names)),
            input_names=["x", *names],
            output_names=[*OUTPUTS, *(f"{name}.next" for name in names)],
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    strip(model)
    _check_axes(model)
    onnx.checker.check_model(model)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of this machine: stack traces, source paths, shapes of its
    intermediate values. They make up most of a small model, and are nobody's business."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.functions[:]
    model.producer_name, model.producer_version = PRODUCER, ""
    model.graph.name, model.doc_string, model.graph.doc_string = PRODUCER, "", ""
    graph = model.graph
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}.{i}"


class _Flat(nn.Module):
    """The detector with its states as one tuple, which is what dynamic shapes can be given for."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.detector(x, *state)
        return outputs


def _for_export(detector: Detector) -> Detector:
    """A copy whose stateful layers are single opaque ops."""
    twin = copy.deepcopy(detector).eval().requires_grad_(False)
    for name, module in list(twin.named_modules()):
        if type(module) in EXPORTED:
            twin.set_submodule(name, EXPORTED[type(module)](module))
    return twin


def _check_axes(model: onnx.ModelProto) -> None:
    """T and N must be free on every input and output: a frozen one is silent until it hurts."""
    for value in (*model.graph.input, *model.graph.output):
        free = [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        expected = ["N"] if value.name.startswith("state.") else ["T", "N"]
        if free[: len(expected)] != expected:
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
