"""Products that ONNX Runtime computes in integers: of an LSTM, and MatMul between layers.

The nodes are written here and not by `onnxruntime.quantization.quantize_dynamic`: that takes
the read-out too, whose 8 bits move scores, and knows no weight behind a Concat. The kernels are the
same. Activations become 8 bits by the range of the whole call, so that what is said of a stream
depends, a little, on what else is in the call: a batch is not quite its streams one by one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgernn_export.rounding import Moments, round_weight
from edgernn_export.trim import SCALE, STORED
from edgernn_export.weights import Place, Weight

INTEGER_NODES = frozenset({"DynamicQuantizeLSTM", "MatMulInteger"})
DOMAIN = "com.microsoft"
"""Operators of ONNX Runtime itself."""


def compute_in_integers(
    model: onnx.ModelProto, weights: Sequence[Weight], moments: Moments
) -> set[str]:
    """Replace, in place, every LSTM and every MatMul by a weight between layers. Returns the names
    of the weights that are integers now."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    between = {w.name for w in weights if w.place is Place.BETWEEN}
    known = {w.name for w in weights}
    nodes: list[Any] = []
    done: set[str] = set()
    for node in graph.node:
        names = [name for name in node.input[1:3] if name in tensors]
        if node.op_type == "LSTM" and known.issuperset(node.input[1:3]):
            nodes.append(_lstm(node, [_as_rows(graph, tensors[name], moments) for name in names]))
        elif node.op_type == "MatMul" and between.issuperset(node.input[1:]):
            nodes += _matmul(node, graph, tensors[node.input[1]], moments)
        else:
            nodes.append(node)
            continue
        done.update(names)
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [tensor for tensor in graph.initializer if tensor.name not in done]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if any(node.domain == DOMAIN for node in graph.node):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return done


def _lstm(node: onnx.NodeProto, stored: list[list[str]]) -> Any:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md"""
    (w, w_scale, w_zero), (r, r_scale, r_zero) = stored
    others = [*node.input[3:], *[""] * (8 - len(node.input))]
    integer = helper.make_node(
        "DynamicQuantizeLSTM",
        [node.input[0], w, r, *others, w_scale, w_zero, r_scale, r_zero],
        list(node.output),
        domain=DOMAIN,
    )
    integer.attribute.extend(a for a in node.attribute if a.name != "layout")
    return integer


def _as_rows(graph: onnx.GraphProto, tensor: TensorProto, moments: Moments) -> list[str]:
    """(1, 4H, I) → int8 (1, I, 4H) with scales and zero points (1, 4H): their names."""
    stored, scale = round_weight(
        tensor.name, numpy_helper.to_array(tensor), kind="int8", moments=moments
    )
    names = [f"{tensor.name}{part}" for part in (STORED, SCALE, ".zero")]
    turned = np.ascontiguousarray(stored.transpose(0, 2, 1))
    zero = np.zeros((1, len(scale)), np.int8)
    arrays: tuple[NDArray[Any], ...] = (turned, scale[None], zero)
    for name, array in zip(names, arrays, strict=True):
        graph.initializer.append(numpy_helper.from_array(array, name))
    return names


def _matmul(
    node: onnx.NodeProto, graph: onnx.GraphProto, tensor: TensorProto, moments: Moments
) -> list[Any]:
    """x (…, I) by int8 (I, O): x to 8 bits, the product in integers, and back by both scales."""
    stored, scale = round_weight(
        tensor.name, numpy_helper.to_array(tensor), kind="int8", moments=moments
    )
    weight, scales = f"{tensor.name}{STORED}", f"{tensor.name}{SCALE}"
    graph.initializer.append(numpy_helper.from_array(stored, weight))
    graph.initializer.append(numpy_helper.from_array(scale, scales))
    q, step, zero, total, real, both = (f"{node.output[0]}.{part}" for part in range(6))
    return [
        helper.make_node("DynamicQuantizeLinear", [node.input[0]], [q, step, zero]),
        helper.make_node("MatMulInteger", [q, weight, zero], [total]),
        helper.make_node("Cast", [total], [real], to=TensorProto.FLOAT),
        helper.make_node("Mul", [step, scales], [both]),
        helper.make_node("Mul", [real, both], list(node.output)),
    ]
