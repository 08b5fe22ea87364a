"""A Scan whose body is traced like any other nodes: samples one after the other."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from onnxscript import ir

from edgernn_export.ops.branch import if_one_sample, moved_nodes, traced
from edgernn_export.ops.order import op

Values: TypeAlias = Sequence[ir.Value]
Body: TypeAlias = Callable[[Values, Values], tuple[Values, Values]]
"""States (N, …) and what comes with one sample (N, …) → next states, what is said of it."""


def sample_by_sample(
    step: Body, samples: Values, states: Values, *, rows: Sequence[Sequence[int]]
) -> Values:
    """samples (T, N, …) → what `step` says of each (T, N, …), then the last states: its nodes as
    they are for one sample, a Scan over them for several. `rows`: as `scan` takes them."""

    def one() -> Values:
        following, said = step(states, [op.Squeeze(value, [0]) for value in samples])
        return *(op.Unsqueeze(value, [0]) for value in said), *following

    def several() -> Values:
        following, said = scan(step, states, samples, rows=rows)
        return *said, *following

    return if_one_sample(samples[0], one, several)


def scan(
    body: Body,
    states: Values,
    samples: Values,
    *,
    rows: Sequence[Sequence[int]],
) -> tuple[Values, Values]:
    """states (N, …), samples (T, N, …) → the last states, what was said of every sample
    (T, N, …). `rows`: what is behind N, of each state and then of each sample's values."""
    inner = [_value(f"loop.{i}", row) for i, row in enumerate(rows)]
    start = len(traced())
    following, said = body(inner[: len(states)], inner[len(states) :])
    for value, row in zip(following, rows, strict=False):
        value.shape = ir.Shape(["N", *row])
    for value in (*following, *said):
        value.type = ir.TensorType(ir.DataType.FLOAT)
    nodes = moved_nodes(start)
    outputs = [*following, *said]
    graph = ir.Graph(inner, outputs, nodes=nodes, opset_imports={"": 21}, name="loop")
    attributes = [ir.AttrGraph("body", graph), ir.AttrInt64("num_scan_inputs", len(samples))]
    node = ir.Node("", "Scan", [*states, *samples], attributes, num_outputs=len(outputs))
    traced().append(node)
    return node.outputs[: len(following)], node.outputs[len(following) :]


def _value(name: str, row: Sequence[int]) -> ir.Value:
    shape = ir.Shape(["N", *row])
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
