"""Around a stateful foreign graph: values filled and scaled before it, its task behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgernn.card import State
from edgernn_export.adopt.healthy import LARGEST, Scaling
from edgernn_export.adopt.walk import Stateful
from edgernn_export.adopt.writer import FLOAT

Floats = NDArray[np.float32]

LAST = "state.last"
"""What each channel was last, less its healthy mean: a fresh one stands at the mean."""


class Wrap:
    """A graph put together from parts: `x` → filled → foreign graph → told, in sensor units."""

    def __init__(
        self,
        stateful: Stateful,
        centre: Floats,
        scaling: Scaling | None,
        *,
        shape: Sequence[int],
    ) -> None:
        """`centre` (C,): what stands for a value before the first was observed. `shape`: of what
        is told of a sample, C last."""
        self._nodes: list[onnx.NodeProto] = []
        self._arrays: list[onnx.TensorProto] = []
        self._inputs = [helper.make_tensor_value_info("x", FLOAT, ["T", "N", len(centre)])]
        self._opset = stateful.model.opset_import[0].version
        self.states: list[State] = [State(LAST, (len(centre),), 0.0), *stateful.states]
        self._fill(centre)
        seen = "filled"
        if scaling is not None:
            self.store("mean", scaling.mean)
            self.store("std", scaling.std)
            self.add("Sub", ["filled", "mean"], "centred")
            self.add("Div", ["centred", "std"], "scaled")
            seen = "scaled"
        (output,) = stateful.outputs
        self.include(stateful.model, "foreign/", {"x": seen, output.name: "told.flat"})
        self.store("shape", np.array([0, 0, *shape]))
        if scaling is None:
            self.add("Reshape", ["told.flat", "shape"], "told")
        else:
            self.add("Reshape", ["told.flat", "shape"], "told.scaled")
            self.add("Mul", ["told.scaled", "std"], "told.wide")
            self.add("Add", ["told.wide", "mean"], "told")

    def add(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))

    def store(self, name: str, array: NDArray[np.generic]) -> None:
        self._arrays.append(numpy_helper.from_array(np.asarray(array), name))

    def include(self, model: onnx.ModelProto, prefix: str, names: Mapping[str, str]) -> None:
        """Every node of `model`, its values renamed: as `names` says, states as they are, all
        others with the prefix."""
        graph = onnx.GraphProto()
        graph.CopyFrom(model.graph)
        kept = {
            v.name: v.name for v in (*graph.input, *graph.output) if v.name.startswith("state.")
        }
        _rename(graph, prefix, kept | dict(names))
        self._nodes += graph.node
        self._arrays += graph.initializer

    def model(self, outputs: Mapping[str, Sequence[int]], more: Sequence[State]) -> onnx.ModelProto:
        """The whole graph. `outputs`: name → shape behind (T, N); `more`: states of included
        parts."""
        self.states += more
        gives = [
            helper.make_tensor_value_info(name, FLOAT, ["T", "N", *shape])
            for name, shape in outputs.items()
        ]
        for state in self.states:
            row: list[str | int | None] = ["N", *state.shape]
            self._inputs.append(helper.make_tensor_value_info(state.name, FLOAT, row))
            gives.append(helper.make_tensor_value_info(f"{state.name}.next", FLOAT, row))
        for i, node in enumerate(self._nodes):
            node.name = f"{node.op_type}.{i}"
        graph = helper.make_graph(self._nodes, "edgernn", self._inputs, gives, self._arrays)
        opsets = [helper.make_opsetid("", self._opset)]
        made = helper.make_model(
            graph, producer_name="edgernn", opset_imports=opsets, ir_version=10
        )
        onnx.checker.check_model(made)
        return made

    def _fill(self, centre: Floats) -> None:
        """A loop over the samples: a value that is missing or infinite is the last one before it,
        so that it poisons no state."""
        self.store("centre", centre)
        self.store("largest", np.array(LARGEST, np.float32))
        row: list[str | int | None] = ["N", len(centre)]
        body = helper.make_graph(
            [
                helper.make_node("Abs", ["sample"], ["size"]),
                helper.make_node("LessOrEqual", ["size", "largest"], ["is_there"]),
                helper.make_node("Where", ["is_there", "sample", "before"], ["now"]),
                helper.make_node("Identity", ["now"], ["row"]),
            ],
            "fill",
            [helper.make_tensor_value_info(name, FLOAT, row) for name in ("before", "sample")],
            [helper.make_tensor_value_info(name, FLOAT, row) for name in ("now", "row")],
        )
        self.add("Add", [LAST, "centre"], "first")
        self._nodes.append(
            helper.make_node(
                "Scan", ["first", "x"], ["ended", "filled"], num_scan_inputs=1, body=body
            )
        )
        self.add("Sub", ["ended", "centre"], f"{LAST}.next")


def _rename(graph: onnx.GraphProto, prefix: str, names: Mapping[str, str]) -> None:
    """Every value of a graph and of those inside it: as `names` says, others with the prefix."""
    for node in graph.node:
        for names_of in (node.input, node.output):
            for i, name in enumerate(names_of):
                names_of[i] = names.get(name, f"{prefix}{name}") if name else ""
        for attribute in node.attribute:
            _rename(attribute.g, prefix, names)
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.name = names.get(item.name, f"{prefix}{item.name}")


def forecasting(
    stateful: Stateful, centre: Floats, scaling: Scaling | None, spread: Floats
) -> tuple[onnx.ModelProto, tuple[State, ...]]:
    """Task "forecast": what is told, as (T, N, H, C), and `spread` (H, C) beside it."""
    wrap = Wrap(stateful, centre, scaling, shape=spread.shape)
    wrap.add("Identity", ["told"], "forecast")
    wrap.store("deviation", spread.astype(np.float32))
    wrap.add("Shape", ["forecast"], "wide")
    wrap.add("Expand", ["deviation", "wide"], "spread")
    model = wrap.model({"forecast": spread.shape, "spread": spread.shape}, ())
    return model, tuple(wrap.states)


def scoring(
    stateful: Stateful,
    centre: Floats,
    scaling: Scaling | None,
    judge: onnx.ModelProto,
    states: Sequence[State],
) -> tuple[onnx.ModelProto, tuple[State, ...]]:
    """Task "anomaly": `judge` over the samples and what is told of them."""
    wrap = Wrap(stateful, centre, scaling, shape=centre.shape)
    outputs = {"score": (), "contribution": centre.shape, "expected": centre.shape}
    wrap.add("Concat", ["x", "told"], "both", axis=-1)
    wrap.include(judge, "judge/", {"x": "both"} | {name: name for name in outputs})
    model = wrap.model(outputs, states)
    return model, tuple(wrap.states)
