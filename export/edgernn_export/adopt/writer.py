"""The new graph while it grows: nodes are added, and nothing that nobody reads is kept."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgernn.card import State
from edgernn_export.adopt.values import Array, Axis

FLOAT = onnx.TensorProto.FLOAT
OWN = re.compile(r"v\d+\.\d+|c\d+")
"""Names of values and of stored arrays."""


class Writer:
    """Nodes over `x` (T, N, C) and states (N, …)."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self._nodes: list[onnx.NodeProto] = []
        self._made_by: dict[str, onnx.NodeProto] = {}
        self._arrays: dict[str, Array] = {}
        self._lengths: dict[str, str] = {}

    def add(
        self, op_type: str, inputs: Sequence[str], *, outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """A new node → the names of what it gives."""
        names = [f"v{len(self._nodes)}.{i}" for i in range(outputs)]
        return self._keep(helper.make_node(op_type, list(inputs), names, **attributes))

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str]) -> list[str]:
        """A node of the original, reading other values → the names of what it gives."""
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        del twin.input[:], twin.output[:]
        twin.input.extend(inputs)
        twin.output.extend(
            f"v{len(self._nodes)}.{i}" if name else "" for i, name in enumerate(node.output)
        )
        return self._keep(twin)

    def constant(self, array: Array) -> str:
        """The name of a stored array; the same array is stored once."""
        for name, stored in self._arrays.items():
            if stored is array:
                return name
        name = f"c{len(self._arrays)}"
        self._arrays[name] = array
        return name

    def integers(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def add_state(self, name: str, width: int, initial: float) -> str:
        """A state row (width,) → the name of its input (N, width)."""
        self.states.append(State(f"state.{name}", (width,), initial))
        return f"state.{name}"

    def give(self, value: str, name: str) -> None:
        """Name an output of the graph."""
        self._keep(helper.make_node("Identity", [value], [name]))

    def transpose(self, value: str, order: Sequence[int]) -> str:
        """`value` with its axes in this order. One after another becomes one, or none."""
        maker = self._made_by.get(value)
        if maker is not None and maker.op_type == "Transpose":
            earlier = list(maker.attribute[0].ints)
            value, order = maker.input[0], [earlier[i] for i in order]
        if list(order) == sorted(order):
            return value
        return self.add("Transpose", [value], perm=list(order))[0]

    def reshape(self, value: str, before: Sequence[Axis], after: Sequence[Axis]) -> str:
        """`value` with axes `after`; lengths of time and streams are those at run time."""
        copied = [
            0 if axis.runs and i < len(before) and before[i].runs == axis.runs else axis.size
            for i, axis in enumerate(after)
        ]
        open_ = [i for i, axis in enumerate(after) if axis.runs and copied[i]]
        if len(open_) > 1:
            parts = [self._length(a.runs) if a.runs else self.integers(a.size) for a in after]
            shape = self.add("Concat", parts, axis=0)[0]
            return self.add("Reshape", [value, shape])[0]
        for i in open_:
            copied[i] = -1
        return self.add("Reshape", [value, self.integers(*copied)])[0]

    def _length(self, runs: str) -> str:
        """The size (1,) of an axis of time, of streams, or of both, at run time."""
        if runs not in self._lengths:
            if len(runs) == 2 or runs == "B":
                both = [self._length("T"), self._length("N")]
                self._lengths[runs] = self.add("Mul", both)[0]
            else:
                start = "TN".index(runs)
                self._lengths[runs] = self.add("Shape", ["x"], start=start, end=start + 1)[0]
        return self._lengths[runs]

    def graph(
        self, channels: int, outputs: Sequence[tuple[str, int, Sequence[int]]], *, opset: int
    ) -> onnx.ModelProto:
        """The model. `outputs`: name, element type, shape behind (T, N)."""
        names = [name for name, _, _ in outputs] + [f"{s.name}.next" for s in self.states]
        nodes, arrays = self._needed(names)
        inputs = [helper.make_tensor_value_info("x", FLOAT, ["T", "N", channels])]
        gives = [
            helper.make_tensor_value_info(name, kind, ["T", "N", *shape])
            for name, kind, shape in outputs
        ]
        for state in self.states:
            row: list[str | int | None] = ["N", *state.shape]
            inputs.append(helper.make_tensor_value_info(state.name, FLOAT, row))
            gives.append(helper.make_tensor_value_info(f"{state.name}.next", FLOAT, row))
        stored = [numpy_helper.from_array(self._arrays[name], name) for name in arrays]
        graph = helper.make_graph(nodes, "edgernn", inputs, gives, stored)
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(
            graph, producer_name="edgernn", opset_imports=opsets, ir_version=10
        )

    def _keep(self, node: onnx.NodeProto) -> list[str]:
        self._nodes.append(node)
        self._made_by |= {name: node for name in node.output if name}
        return list(node.output)

    def _needed(self, names: Sequence[str]) -> tuple[list[onnx.NodeProto], list[str]]:
        """Nodes and stored arrays that these values hang on, in their order."""
        wanted, nodes = set(names), []
        for node in reversed(self._nodes):
            if wanted & set(node.output):
                nodes.append(node)
                wanted |= set(node.input)
        return nodes[::-1], [name for name in self._arrays if name in wanted]


def is_own(name: str) -> bool:
    """Whether a `Writer` may give a value this name, so that no output can have it."""
    return OWN.fullmatch(name) is not None
