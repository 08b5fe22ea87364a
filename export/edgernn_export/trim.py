"""What no reader of a graph needs, removed: notes of the exporter, defaults, long names."""

import re
from collections.abc import Iterator

import numpy as np
import onnx
from onnx.helper import get_attribute_value

from edgernn_export.weights import SMALLEST

PRODUCER = "edgernn"
STORED, SCALE = ".stored", ".scale"
"""Behind the name of a weight: the tensor in its place that has fewer bits, and its scale."""


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of this machine: stack traces, source paths, shapes of its
    intermediate values. They make up most of a small model, and are nobody's business."""
    del model.metadata_props[:]
    del model.functions[:]
    model.producer_name, model.graph.name = PRODUCER, PRODUCER
    model.ClearField("producer_version")
    model.ClearField("doc_string")
    for graph in _graphs(model.graph):
        del graph.value_info[:]
        del graph.metadata_props[:]
        graph.ClearField("doc_string")
        for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            del item.metadata_props[:]
            item.ClearField("doc_string")
        for i, node in enumerate(graph.node):
            node.name = f"{node.op_type}.{i}"


def shorten(model: onnx.ModelProto) -> None:
    """Remove what no reader of our own graphs needs: names of nodes, long names of values,
    attributes that say the default, operator sets that no node is of."""
    opset = next(one.version for one in model.opset_import if not one.domain)
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    used = {node.domain for node in nodes}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    for node in nodes:
        node.ClearField("name")
        _drop_defaults(node, opset)
    shorten_names(model.graph)


def shorten_names(graph: onnx.GraphProto) -> None:
    """Inputs, outputs, states and weights keep their names, also those in fewer bits; what lies
    between is v0, v1, …"""
    kept = {value.name for value in (*graph.input, *graph.output)}
    kept |= {t.name for t in graph.initializer if _is_weight(t)}
    short = {name: _plain(name) for name in kept} | {"": ""}

    def rename(name: str) -> str:
        if name not in short:
            short[name] = f"v{len(short) - len(kept) - 1:x}"
        return short[name]

    for part in _graphs(graph):
        for value in (*part.initializer, *part.input, *part.output):
            value.name = rename(value.name)
        for node in part.node:
            for names in (node.input, node.output):
                names[:] = [rename(name) for name in names]


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return int(np.prod(tensor.dims)) >= SMALLEST and SCALE not in tensor.name


def _plain(name: str) -> str:
    """A weight's own name, whatever it is stored as, within the model and its network."""
    return re.sub(r"^model\.(network\.)?", "", name.removesuffix(STORED))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """This one and those inside its nodes: bodies and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _drop_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Leave out every attribute that says what the operator's definition says without it."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    for i, attribute in reversed(list(enumerate(node.attribute))):  # in place: it may hold a graph
        default = schema.attributes[attribute.name].default_value
        if default.type and get_attribute_value(default) == get_attribute_value(attribute):
            del node.attribute[i]
