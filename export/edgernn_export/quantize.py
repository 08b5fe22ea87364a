"""float32 weights → int8, stored per output channel; the arithmetic stays float32.

Each big weight becomes int8 behind a DequantizeLinear. With `session.disable_quant_qdq` ONNX
Runtime folds it once at load: float32 speed at a quarter of the size. `quantize_dynamic` would
leave GRU and RNN at float32 without a word (onnxruntime#9796).
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgernn.errors import EdgernnError

SMALLEST = 64
"""Elements; below that the scales and the node weigh more than is saved."""
WEIGHT_INPUTS = {"GRU": {1: 1, 2: 1}, "LSTM": {1: 1, 2: 1}, "RNN": {1: 1, 2: 1}, "MatMul": {1: 1}}
"""Op → which of its inputs are weights → along which axis their output channels lie."""


def quantize_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 model with int8 weights. Raises EdgernnError if a weight stayed float."""
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    dequantize = []
    for name, axis in _weights(graph).items():
        values = numpy_helper.to_array(weights[name]).astype(np.float32)
        stored, scale = to_int8(values, axis=axis)
        weights[name].CopyFrom(numpy_helper.from_array(stored, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        dequantize.append(
            helper.make_node(
                "DequantizeLinear",
                [f"{name}.int8", f"{name}.scale"],
                [name],
                f"{name}.float",
                axis=axis,
            )
        )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*dequantize, *nodes])
    onnx.checker.check_model(quantized)
    if left := _weights(graph):
        raise EdgernnError(f"quantisation: weight {', '.join(left)} is still float32")
    return quantized


def to_int8(
    weight: NDArray[np.float32], *, axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 values of the weight's shape, and one scale per index of `axis`."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others), 1e-12) / 127.0
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    stored = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
    return stored, scale.astype(np.float32)


def _weights(graph: onnx.GraphProto) -> dict[str, int]:
    """Every float32 initializer that is a weight worth storing in int8 → its channel axis."""
    floats = {
        tensor.name: int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    return {
        node.input[i]: axis
        for node in graph.node
        for i, axis in WEIGHT_INPUTS.get(node.op_type, {}).items()
        if floats.get(node.input[i], 0) >= SMALLEST
    }
