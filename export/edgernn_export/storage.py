"""How one tensor is stored in fewer bits, and the nodes that turn it back into float32.

All of them are folded once when ONNX Runtime loads the graph (the engine's session option
`session.disable_quant_qdq` is for that; onnxruntime 1.20 and later): no copy is left for a step.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgernn.errors import EdgernnError
from edgernn_export.trim import SCALE, STORED
from edgernn_export.weights import SMALLEST

Floats = NDArray[np.float32]
Integers = NDArray[np.signedinteger[Any]]

BITS: Mapping[str, int] = MappingProxyType({"int4": 4, "int8": 8, "int16": 16})
"""Kinds of integers; "float16" is the other way to store."""
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
LEAST_SCALE = float(np.finfo(np.float16).tiny)
"""A scale below it would lose digits as float16."""


def to_integers(weight: Floats, *, axis: int, kind: str) -> tuple[Integers, Floats]:
    """Symmetric integers of the weight's shape, and one scale per index of `axis`.

    Scales of int4 and int8 are numbers that float16 holds exactly, where they are large enough.
    Doing it again to what comes back changes nothing: the largest of a channel stays the largest.
    """
    largest = largest_of(kind)
    scale = channel_scale(np.abs(weight).max(axis=_others(weight, axis)), kind)
    rounded = np.rint(weight / _along(scale, weight, axis))
    dtype = np.int16 if kind == "int16" else np.int8
    return np.clip(rounded, -largest, largest).astype(dtype), scale


def channel_scale(peak: Floats, kind: str) -> Floats:
    """Largest magnitude of each channel → the step between two integers."""
    scale: Floats = (np.maximum(peak, 1e-12) / largest_of(kind)).astype(np.float32)
    if kind != "int16" and (scale >= LEAST_SCALE).all():
        scale = scale.astype(np.float16).astype(np.float32)
    return scale


def largest_of(kind: str) -> int:
    """The largest integer of a symmetric range: of int8, 127."""
    return (1 << (BITS[kind] - 1)) - 1


def store_integers(
    name: str, stored: Integers, scale: Floats, kind: str
) -> tuple[list[TensorProto], list[Any]]:
    """Tensors and nodes in place of a float32 weight; the last node gives it back by its name.

    Before a MatMul, int8 stands behind Cast and Mul: ONNX Runtimes that are not told otherwise
    turn DequantizeLinear and MatMul into a product that rounds activations too.
    """
    scales, nodes = _store_scale(f"{name}{SCALE}", scale, kind)
    inputs = [f"{name}{STORED}", f"{name}{SCALE}"]
    if kind == "int8" and stored.ndim == 2:  # the scale lies along the last axis
        real = f"{name}.real"
        nodes.append(helper.make_node("Cast", inputs[:1], [real], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [real, inputs[1]], [name]))
    else:
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name]))  # along axis 1
    return [integer_tensor(f"{name}{STORED}", stored, kind), *scales], nodes


def store_float16(tensor: TensorProto) -> tuple[list[TensorProto], list[Any]]:
    """Half the bytes, and a Cast that gives the float32 tensor back by its name. Raises
    EdgernnError for a number that float16 does not reach."""
    values = numpy_helper.to_array(tensor)
    if (largest := float(np.abs(values).max(initial=0.0))) > LARGEST_FLOAT16:
        raise EdgernnError(
            f"quantisation: {tensor.name} holds {largest:.3g}, float16 ends at {LARGEST_FLOAT16:g}"
        )
    stored = values.astype(np.float16)
    node = helper.make_node("Cast", [f"{tensor.name}{STORED}"], [tensor.name], to=TensorProto.FLOAT)
    return [numpy_helper.from_array(stored, f"{tensor.name}{STORED}")], [node]


def integer_tensor(name: str, stored: Integers, kind: str) -> TensorProto:
    """Two int4 share a byte, the first in its lower half."""
    if kind != "int4":
        return numpy_helper.from_array(stored, name)
    halves = np.append(stored.ravel(), np.zeros(stored.size % 2, stored.dtype)).astype(np.uint8)
    halves &= 0xF
    packed = (halves[0::2] | (halves[1::2] << 4)).tobytes()
    return TensorProto(name=name, data_type=TensorProto.INT4, dims=stored.shape, raw_data=packed)


def _store_scale(name: str, scale: Floats, kind: str) -> tuple[list[TensorProto], list[Any]]:
    """As float16 where that is exact and there are enough of them to pay for a node."""
    tensor = numpy_helper.from_array(scale, name)
    if len(scale) < SMALLEST or (scale.astype(np.float16).astype(np.float32) != scale).any():
        return [tensor], []
    return store_float16(tensor)


def _others(weight: Floats, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(weight.ndim) if i != axis)


def _along(scale: Floats, weight: Floats, axis: int) -> Floats:
    """A scale per index of `axis` in a shape that goes with the weight's."""
    return scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
