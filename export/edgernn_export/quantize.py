"""float32 weights → fewer bits, by one of five modes, and the audit that none was passed over.

* "float16", "int8", "int4": the weights are *stored* so, and turned back into float32 once, when
  the graph is loaded (`storage`): float32 speed at a half, a quarter, an eighth of the size.
* "int8-dynamic": LSTMs, and products between layers, are *computed* in integers (`dynamic`). ONNX
  Runtime has no such GRU or RNN, so all else is stored as by "int8".

Weights that sensors enter by and the read-out keep one step more than those between layers and the
recurrent ones, int16 beside int8 and int8 beside int4: they are few, and their rounding moved
scores most (on the simulated pump, at worst: recurrent 0.23, input 0.54, read-out 0.91), for a slow
channel's forecast must be right to a fraction of its spread. Which is which shows in the graph
(`weights`). So do all of a minGRU: int8 in a second layer moved scores by 0.63, int16 by 0.004. So
do all of a forecaster: on a house, 96 steps ahead, int8 moved forecasts by 0.41 standard
deviations, int16 by 0.0004. And all of a ReLU network is int16, whatever the mode: int8 moved
scores by 1.91, int16 by 0.011. With `is_tight` weights at the edge keep no step more: smaller, and
for whoever measures what it does.

`onnxruntime.quantization.quantize_dynamic` would leave GRU and RNN at float32 without a word
(onnxruntime#9796), and computes the read-out in 8 bits.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgernn.errors import EdgernnError
from edgernn_export.dynamic import INTEGER_NODES, compute_in_integers
from edgernn_export.rounding import Moments, round_weight
from edgernn_export.storage import store_float16, store_integers
from edgernn_export.trim import shorten_names
from edgernn_export.weights import EXACT, SMALLEST, Place, Weight, find_biases, find_weights

KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"int8": ("int8", "int16"), "int8-dynamic": ("int8", "int16"), "int4": ("int4", "int8")}
)
"""Mode → integers of most weights, and of those that keep one step more."""

NAMES: Mapping[int, str] = MappingProxyType(
    {
        onnx.TensorProto.FLOAT: "float32",
        onnx.TensorProto.FLOAT16: "float16",
        onnx.TensorProto.INT16: "int16",
        onnx.TensorProto.INT8: "int8",
        onnx.TensorProto.INT4: "int4",
    }
)


def quantize(
    model: onnx.ModelProto,
    mode: str,
    *,
    is_tight: bool = False,
    moments: Moments = MappingProxyType({}),
) -> onnx.ModelProto:
    """A copy of a float32 model with its weights as `mode` of `QUANTIZATIONS` says.

    `moments` of their inputs, from `rounding.measure_moments`, say which way to round; without
    them each number goes to the nearest. Raises EdgernnError if a weight stayed float32.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    if mode == "none":
        return quantized
    graph = quantized.graph
    kinds = plan(graph, mode, is_tight=is_tight)
    if mode == "int8-dynamic":
        for name in compute_in_integers(quantized, find_weights(graph), moments):
            kinds.pop(name, None)
    _store(graph, kinds | dict.fromkeys(find_biases(graph), "float16"), moments)
    shorten_names(graph)
    onnx.checker.check_model(quantized)
    _audit(graph)
    return quantized


def plan(graph: onnx.GraphProto, mode: str, *, is_tight: bool) -> dict[str, str]:
    """Each weight's name → how it is stored."""
    return {weight.name: _kind(weight, mode, is_tight) for weight in find_weights(graph)}


def stored_as(model: onnx.ModelProto) -> dict[str, int]:
    """How a model's weights are stored → how many numbers."""
    counts: dict[str, int] = {}
    for tensor in model.graph.initializer:
        if _is_matrix(tensor):
            kind = NAMES[tensor.data_type]
            counts[kind] = counts.get(kind, 0) + int(np.prod(tensor.dims))
    return counts


def computes_in_integers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Operators of the graph that compute in integers, sorted."""
    return tuple(sorted({node.op_type for node in model.graph.node} & INTEGER_NODES))


def _kind(weight: Weight, mode: str, is_tight: bool) -> str:
    if mode == "float16":
        return mode
    most, more = KINDS[mode]
    match weight.place:
        case Place.UNBOUNDED:
            return "int16"
        case Place.LINEAR | Place.FORECAST:
            return more
        case Place.EDGE:
            return most if is_tight else more
    return most


def _store(graph: onnx.GraphProto, kinds: Mapping[str, str], moments: Moments) -> None:
    """Put each tensor's stored form in its place, and what turns it back before all other nodes."""
    tensors, before = list(graph.initializer), []
    del graph.initializer[:]
    for tensor in tensors:
        kind = kinds.get(tensor.name)
        if kind is None:
            graph.initializer.append(tensor)
            continue
        if kind == "float16":
            stored, nodes = store_float16(tensor)
        else:
            weight = numpy_helper.to_array(tensor)
            integers = round_weight(tensor.name, weight, kind, moments)
            stored, nodes = store_integers(tensor.name, *integers, kind)
        graph.initializer.extend(stored)
        before += nodes
    _prepend(graph, before)


def _prepend(graph: onnx.GraphProto, before: Sequence[Any]) -> None:
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *nodes])


def _audit(graph: onnx.GraphProto) -> None:
    """Raises EdgernnError if anything that looks like a weight matrix is float32, whatever node it
    belongs to: what was not found above must not pass for quantised."""
    left = [
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and _is_matrix(tensor)
    ]
    if left:
        raise EdgernnError(f"quantisation: weight {', '.join(left)} is still float32")


def _is_matrix(tensor: onnx.TensorProto) -> bool:
    """Whether it looks like a weight."""
    return (
        not EXACT.match(tensor.name)
        and sum(size > 1 for size in tensor.dims) > 1
        and int(np.prod(tensor.dims)) >= SMALLEST
    )
