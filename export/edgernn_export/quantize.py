"""float32 weights → small integers, stored per output channel; the arithmetic stays float32.

Recurrent weights become int8. Those that sensors enter by and the read-out become int16: they are
few, and their rounding moved scores most (on the simulated pump, at worst: recurrent 0.23, input
0.54, read-out 0.91), because a slow channel's forecast must be right to a fraction of its spread.

Each weight stands behind a DequantizeLinear. With `session.disable_quant_qdq` ONNX
Runtime folds it once at load: float32 speed at a quarter of the size. `quantize_dynamic` would
leave GRU and RNN at float32 without a word (onnxruntime#9796).
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgernn.errors import EdgernnError

SMALLEST = 64
"""Elements; below that the scales and the node weigh more than is saved."""
WEIGHT_INPUTS = {"GRU": (1, 2), "LSTM": (1, 2), "RNN": (1, 2), "MatMul": (1,)}
"""Op → which of its inputs are weights. """
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
    if left := _weights(graph):
        raise EdgernnError(f"quantisation: weight {', '.join(left)} is still float32")
    return quantized


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
    floats = {
        tensor.name: list(tensor.dims)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    return {
        node.input[i]: _integers(node, i, floats)
        for node in graph.node
        for i in WEIGHT_INPUTS.get(node.op_type, ())
        if np.prod(floats.get(node.input[i], [0])) >= SMALLEST
    }


def _integers(
    node: onnx.NodeProto, i: int, shapes: dict[str, list[int]]
) -> type[np.signedinteger[Any]]:
    """int16 for the read-out, and for input weights narrower than the recurrent ones."""
    if node.op_type == "MatMul":
        return np.int16
    is_narrow = shapes[node.input[i]][-1] < shapes.get(node.input[2], [0])[-1]
    return np.int16 if is_narrow else np.int8
