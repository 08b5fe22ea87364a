"""Which tensors of a graph are weights, and which of them must be stored with more care.

A weight is the second factor of a product: an input of a recurrent node, or of a MatMul, also
inside a Scan. No other node of a detector has one.
"""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import onnx

SMALLEST = 64
"""Elements; below that the scales and the node weigh more than is saved."""
WEIGHT_INPUTS = {"GRU": (1, 2), "LSTM": (1, 2), "RNN": (1, 2), "MatMul": (1,)}
"""Op → which of its inputs are weights."""
RECURRENT, BIAS = 2, 3
"""Which input of a recurrent node is multiplied by the state, and which is added."""
FORECAST = "forecast"
"""The output of a forecaster."""
EXACT = re.compile(r"calibration\.|levels\.|adapters\.[^.]+\.learner\.")
"""What the names of matrices begin with that are no weights, and stay as they are: probabilities
far out in the tail, and what is learnt over months, hang on their last digits."""
AXIS = 1
"""Along which the output channels of a weight lie, in all of them."""


class Place(StrEnum):
    """Where a weight stands, which says how much its rounding matters."""

    BETWEEN = "between"
    """Recurrent, or from one layer to the next."""
    EDGE = "edge"
    """Sensors enter by it, or it is the read-out: its rounding goes into what is said, unsquashed
    and alike in every sample."""
    LINEAR = "linear"
    """Of a minGRU, whose gates never see what became of its state."""
    UNBOUNDED = "unbounded"
    """Of a ReLU network, where nothing bounds what rounding adds up to."""
    FORECAST = "forecast"
    """Of a forecaster, whose numbers no calibration makes up for."""


class Weight(NamedTuple):
    """One float32 tensor of the graph that is worth storing in fewer bits."""

    name: str
    place: Place
    is_recurrent: bool


def find_weights(graph: onnx.GraphProto) -> list[Weight]:
    """Every float32 weight of `SMALLEST` elements or more, in the order of their nodes."""
    sizes = {
        tensor.name: int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and not EXACT.match(tensor.name)
    }
    parts = {node.output[0]: node.input for node in graph.node if node.op_type == "Concat"}
    found = [
        [
            (name, is_recurrent)
            for stacked, is_recurrent in _weight_inputs(node)
            for name in parts.get(stacked, [stacked])
            if sizes.get(name, 0) >= SMALLEST
        ]
        for node in graph.node
    ]
    edges = _edges(graph, [bool(one) for one in found])
    places = {
        name: Weight(name, _place(node, found[i], i in edges, is_recurrent), is_recurrent)
        for i, node in enumerate(graph.node)
        for name, is_recurrent in found[i]
    }
    if any(value.name == FORECAST for value in graph.output):
        return [_of_forecaster(weight) for weight in places.values()]
    return list(places.values())


def find_biases(graph: onnx.GraphProto) -> list[str]:
    """Float32 biases of recurrent nodes with `SMALLEST` elements or more."""
    added = {
        node.input[BIAS]
        for node in graph.node
        if node.op_type in ("GRU", "LSTM", "RNN") and len(node.input) > BIAS
    }
    return [
        tensor.name
        for tensor in graph.initializer
        if tensor.name in added
        and tensor.data_type == onnx.TensorProto.FLOAT
        and int(np.prod(tensor.dims)) >= SMALLEST
    ]


def _place(
    node: onnx.NodeProto, weights: Sequence[tuple[str, bool]], is_edge: bool, is_recurrent: bool
) -> Place:
    if _is_relu(node):
        return Place.UNBOUNDED
    is_recurrent_node = RECURRENT in WEIGHT_INPUTS.get(node.op_type, ())
    if is_recurrent_node and not any(recurrent for _, recurrent in weights):
        return Place.LINEAR
    return Place.EDGE if is_edge and not is_recurrent else Place.BETWEEN


def _of_forecaster(weight: Weight) -> Weight:
    return weight if weight.place is Place.UNBOUNDED else weight._replace(place=Place.FORECAST)


def _weight_inputs(node: onnx.NodeProto) -> Iterator[tuple[str, bool]]:
    """Each input that may be a weight, and whether it is a recurrent one: whatever the body of a
    Scan multiplies by is."""
    for i in WEIGHT_INPUTS.get(node.op_type, ()):
        yield node.input[i], i == RECURRENT
    if node.op_type == "Scan":
        (body,) = [attribute.g for attribute in node.attribute if attribute.name == "body"]
        yield from ((name, True) for inner in body.node for name, _ in _weight_inputs(inner))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node is given, and what the graphs inside it take from the one around it."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


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


def _edges(graph: onnx.GraphProto, has_weights: Sequence[bool]) -> set[int]:
    """Nodes whose weights are the first that a sample meets, or the last before something is said:
    no other weight lies between."""
    steps = [
        _Step(i, list(_reads(node)), node.output, stops=has_weights[i])
        for i, node in enumerate(graph.node)
        if node.op_type != "Shape"  # tells sizes, no values
    ]
    said = {value.name for value in graph.output if not value.name.startswith("state.")}
    backwards = [step._replace(start=step.end, end=step.start) for step in reversed(steps)]
    return _first_stops(steps, {"x"}) | _first_stops(backwards, said)


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
