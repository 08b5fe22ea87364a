"""A graph that is not as its card says is refused when it is loaded, not at the first sample."""

from typing import Any

import numpy as np
import onnx
import pytest
from cards import make_card
from onnx import TensorProto, helper, numpy_helper

from edgernn.errors import EdgernnError
from edgernn_device.engine import Engine
from edgernn_export.artefact import with_card

STATE = "state.layer.0.h"
Dims = tuple[str | int, ...]


def build(
    *,
    x: Dims = ("T", "N", 2),
    state: Dims = ("N", 4),
    x_type: int = TensorProto.FLOAT,
    following: str = "Identity",
    following_type: int = TensorProto.FLOAT,
    width: int = 4,
) -> onnx.ModelProto:
    """A graph for the card of `cards`, which says nothing sensible and goes on as `following`."""
    attributes: dict[str, dict[str, Any]] = {"Cast": {"to": following_type}, "Concat": {"axis": 1}}
    inputs = {"Concat": [STATE, STATE], "ReduceSum": [STATE, "one"]}.get(following, [STATE])
    nodes = [
        helper.make_node("Cast", ["x"], ["contribution"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["contribution"], ["expected"]),
        helper.make_node("ReduceSum", ["contribution", "two"], ["score"], keepdims=0),
        helper.make_node(following, inputs, [f"{STATE}.next"], **attributes.get(following, {})),
    ]
    floats = {"score": ("T", "N"), "contribution": ("T", "N", 2), "expected": ("T", "N", 2)}
    gives = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in floats.items()]
    graph = helper.make_graph(
        nodes,
        "odd",
        [
            helper.make_tensor_value_info("x", x_type, x),
            helper.make_tensor_value_info(STATE, TensorProto.FLOAT, state),
        ],
        [*gives, helper.make_tensor_value_info(f"{STATE}.next", following_type, ("N", width))],
        [numpy_helper.from_array(np.array([i]), name) for i, name in ((1, "one"), (2, "two"))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_graph_as_its_card_says_is_loaded() -> None:
    engine = Engine(with_card(build(), make_card()))
    rows = np.array([engine.add_stream(), engine.add_stream()])
    assert engine.run(rows, np.ones((3, 2, 2), np.float32))[0].shape == (3, 2)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            build(following="ReduceSum", width=1),  # numpy would spread it over the whole row
            f"the graph gives {STATE}.next as [1] a sample, its card says [4]",
        ),
        (
            build(following="Concat", width=8),
            f"the graph gives {STATE}.next as [8] a sample, its card says [4]",
        ),
        (
            build(following="Cast", following_type=TensorProto.INT64),
            f"the graph has {STATE}.next as tensor(int64), not tensor(float)",
        ),
        (
            build(x_type=TensorProto.DOUBLE),
            "the graph has x as tensor(double), not tensor(float)",
        ),
        (
            build(x=(5, "N", 2)),
            "the graph takes x as [5, 'N', 2] only; expected any number of samples and streams",
        ),
        (
            build(state=(1, 4)),
            f"the graph takes {STATE} as [1, 4] only; expected any number of samples and streams",
        ),
    ],
)
def test_a_graph_that_its_card_does_not_describe_is_refused(
    model: onnx.ModelProto, said: str
) -> None:
    with pytest.raises(EdgernnError) as caught:
        Engine(with_card(model, make_card()), where="a.onnx")
    assert str(caught.value) == f"a.onnx: {said}"
