"""float32 weights → small integers, stored per output channel; the arithmetic stays float32.

Recurrent weights and those between layers become int8. Those that sensors enter by and the read-out
become int16: they are few, and their rounding moved scores most (on the simulated pump, at worst:
recurrent 0.23, input 0.54, read-out 0.91), because a slow channel's forecast must be right to a
fraction of its spread. Which is which shows in the graph: no other weight lies between. So do all
of a minGRU, whose gates never see what became of its state: int8 in a second layer moved scores by
0.63, int16 by 0.004. And all of a ReLU network, where nothing bounds what rounding adds up to: int8
moved scores by 1.91, int16 by 0.011. And all of a forecaster, which no calibration makes up for: on
a house, 96 steps ahead, int8 moved forecasts by 0.41 standard deviations, int16 by 0.0004.

Each weight stands behind a DequantizeLinear. With `session.disable_quant_qdq` ONNX
Runtime folds it once at load: float32 speed at a quarter of the size. `quantize_dynamic` would
leave GRU and RNN at float32 without a word (onnxruntime#9796).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgernn.errors import EdgernnError

SMALLEST = 64
"""Elements; below that the scales and the node weigh more than is saved."""
WEIGHT_INPUTS = {"GRU": (1, 2), "LSTM": (1, 2), "RNN": (1, 2), "MatMul": (1,)}
"""Op → which of its inputs are weights."""
FORECAST = "forecast"
"""The output of a forecaster."""
RECURRENT = 2
"""Which of them is multiplied by the state."""
CALIBRATION = "model.calibration."
"""What the names of the calibration's matrices begin with: they are no weights, and stay as they
are, as probabilities far out in the tail hang on their last digits."""
AXIS = 1
"""Along which their output channels lie, in all of them."""


def quantize_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 model with integer weights. Raises EdgernnError if one stayed float."""
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    dequantize = []
    for name, kind in _weights(graph).items():
        stored, scale = to_integers(numpy_helper.to_array(tensors[name]), axis=AXIS, kind=kind)
        tensors[name].CopyFrom(numpy_helper.from_array(stored, f"{name}.stored"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        inputs = [f"{name}.stored", f"{name}.scale"]
        dequantize.append(helper.make_node("DequantizeLinear", inputs, [name], name, axis=AXIS))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*dequantize, *nodes])
    onnx.checker.check_model(quantized)
    _audit(graph)
    return quantized


def _audit(graph: onnx.GraphProto) -> None:
    """Raises EdgernnError if anything that looks like a weight matrix is float32, whatever node it
    belongs to: what was not found above must not pass for quantised."""
    left = [
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and not tensor.name.startswith(CALIBRATION)
        and sum(size > 1 for size in tensor.dims) > 1
        and int(np.prod(tensor.dims)) >= SMALLEST
    ]
    if left:
        raise EdgernnError(f"quantisation: weight {', '.join(left)} is still float32")


def to_integers(
    weight: NDArray[np.float32], *, axis: int, kind: type[np.signedinteger[Any]]
) -> tuple[NDArray[np.signedinteger[Any]], NDArray[np.float32]]:
    """Symmetric integers of the weight's shape, and one scale per index of `axis`."""
    largest = np.iinfo(kind).max
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = (np.maximum(np.abs(weight).max(axis=others), 1e-12) / largest).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    stored = np.clip(np.rint(weight / scale.reshape(shape)), -largest, largest).astype(kind)
    return stored, scale


def _weights(graph: onnx.GraphProto) -> dict[str, type[np.signedinteger[Any]]]:
    """Every float32 initializer that is a weight worth storing as integers → which integers."""
    sizes = {
        tensor.name: int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.name.startswith(CALIBRATION)
    }
    parts = {node.output[0]: node.input for node in graph.node if node.op_type == "Concat"}
    weights = [
        [
            (name, is_recurrent)
            for stacked, is_recurrent in _weight_inputs(node)
            for name in parts.get(stacked, [stacked])
            if sizes.get(name, 0) >= SMALLEST
        ]
        for node in graph.node
    ]
    steps = [
        _Step(i, list(_reads(node)), node.output, stops=bool(weights[i]))
        for i, node in enumerate(graph.node)
        if node.op_type != "Shape"  # tells sizes, no values
    ]
    said = {value.name for value in graph.output if not value.name.startswith("state.")}
    backwards = [step._replace(start=step.end, end=step.start) for step in reversed(steps)]
    exact = _first_stops(steps, {"x"}) | _first_stops(backwards, said)
    exact |= {i for i, node in enumerate(graph.node) if _has_no_recurrence(node, weights[i])}
    unbounded = {i for i, node in enumerate(graph.node) if _is_relu(node)}
    is_forecast = any(value.name == FORECAST for value in graph.output)
    return {
        name: (
            np.int16
            if (i in exact and not is_recurrent) or i in unbounded or is_forecast
            else np.int8
        )
        for i, found in enumerate(weights)
        for name, is_recurrent in found
    }


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node is given, and what its branches or its body take from the graph around it."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


def _weight_inputs(node: onnx.NodeProto) -> Iterator[tuple[str, bool]]:
    """Each input that may be a weight, and whether it is a recurrent one: whatever the body of a
    Scan multiplies by is."""
    for i in WEIGHT_INPUTS.get(node.op_type, ()):
        yield node.input[i], i == RECURRENT
    if node.op_type == "Scan":
        (body,) = [attribute.g for attribute in node.attribute if attribute.name == "body"]
        yield from ((name, True) for inner in body.node for name, _ in _weight_inputs(inner))


def _has_no_recurrence(node: onnx.NodeProto, weights: Sequence[tuple[str, bool]]) -> bool:
    """A recurrent node without recurrent weights: minGRU."""
    is_recurrent_node = RECURRENT in WEIGHT_INPUTS.get(node.op_type, ())
    return is_recurrent_node and not any(is_recurrent for _, is_recurrent in weights)


def _is_relu(node: onnx.NodeProto) -> bool:
    """An Elman node whose state nothing bounds."""
    kinds = [a.strings for a in node.attribute if a.name == "activations"]
    return node.op_type == "RNN" and any(b"Relu" in names for names in kinds)


class _Step(NamedTuple):
    """A node on the way from the sensors to what is said of them, or back."""

    i: int
    start: Sequence[str]
    end: Sequence[str]
    stops: bool


def _first_stops(steps: Sequence[_Step], start: set[str]) -> set[int]:
    """The steps that a walk from `start` stops at, each the first on its way."""
    known, found = set(start), set()
    for step in steps:
        if known.isdisjoint(step.start):
            continue
        if step.stops:
            found.add(step.i)
        else:
            known.update(step.end)
    return found
