"""The device's reader of ONNX files against onnx itself: it misses no node and no tensor."""

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgernn_device.wire import CHILDREN, walk

KINDS = {
    "ModelProto": "model",
    "GraphProto": "graph",
    "NodeProto": "node",
    "AttributeProto": "attribute",
    "TensorProto": "tensor",
    "SparseTensorProto": "sparse",
    "FunctionProto": "function",
    "TrainingInfoProto": "training",
}


def messages(message: Any) -> list[Any]:
    """This one and all inside it, as protobuf's own reflection finds them."""
    found: list[Any] = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                found += messages(inner)
    return found


def counted(model: onnx.ModelProto) -> Counter[str]:
    kinds = Counter(KINDS.get(m.DESCRIPTOR.name, "") for m in messages(model))
    del kinds[""]
    return kinds


def walked(model: onnx.ModelProto) -> Counter[str]:
    kinds = Counter(message.kind for message in walk(model.SerializeToString()))
    del kinds["entry"]
    return kinds


def everywhere() -> onnx.ModelProto:
    """A model with a tensor at every place where a model may have one."""
    value = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    place = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(value, place, [3])
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["v"])], "inner", [], [], [value]
    )
    nodes = [
        helper.make_node("Constant", [], ["a"], value=value),
        helper.make_node("Constant", [], ["b"], sparse_value=sparse),
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner),
        helper.make_node("Any", [], ["e"], tensors=[value, value], graphs=[inner, inner]),
        helper.make_node("Any", [], ["f"], sparse=[sparse]),
    ]
    graph = helper.make_graph(nodes, "outer", [], [], [value], sparse_initializer=[sparse])
    function = helper.make_function("own", "f", [], [], nodes, [helper.make_opsetid("", 17)])
    function.attribute_proto.add(name="default", t=value, type=onnx.AttributeProto.TENSOR)
    model = helper.make_model(graph, functions=[function])
    model.training_info.add(initialization=inner, algorithm=inner)
    return model


def test_every_message_of_an_artefact_is_found(artefact: Path) -> None:
    model = onnx.load_from_string(artefact.read_bytes())
    assert walked(model) == counted(model)
    assert walked(model)["node"] > 20


def test_every_place_where_a_node_or_a_tensor_may_be_is_found() -> None:
    model = everywhere()
    assert walked(model) == counted(model)
    assert set(walked(model)) == set(KINDS.values())


def test_the_fields_that_lead_on_are_all_that_onnx_has() -> None:
    """A later onnx with one more way to a node or a tensor fails here."""
    known = {(kind, number) for kind, fields in CHILDREN.items() for number in fields}
    found = {
        (KINDS[descriptor.name], field.number)
        for descriptor in (getattr(onnx, name).DESCRIPTOR for name in KINDS)
        for field in descriptor.fields
        if field.message_type is not None and field.message_type.name in KINDS
    }
    assert known - {("model", 14)} == found


@pytest.mark.parametrize("kind", ["function", "training"])
def test_what_artefacts_do_not_have_is_walked_too(kind: str) -> None:
    assert walked(everywhere())[kind] == 1
