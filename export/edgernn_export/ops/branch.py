"""Nodes for a call of one sample beside those for any number, in one graph.

The device opens a graph twice: once with its time axis fixed to 1 (`edgernn_device.engine`). There
ONNX Runtime knows which branch is taken, puts its nodes in place of the `If`, and drops the other.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, cast

from onnxscript import evaluator, ir

from edgernn_export.ops.order import op

Nodes = Callable[[], Sequence[ir.Value]]
"""Adds nodes to the graph that is being traced, and gives the values they end in."""


_NUMBERS = count()
"""Of names, which `trim` shortens to others."""


def if_one_sample(x: ir.Value, then: Nodes, otherwise: Nodes) -> Sequence[ir.Value]:
    """What `then` gives where x (T, N, K) has T = 1, else what `otherwise` gives."""
    is_one = op.Equal(samples_of(x), [1])
    branches = [_graph("one", then, is_one), _graph("any", otherwise, is_one)]
    node = ir.Node(
        "",
        "If",
        [is_one],
        [
            ir.AttrGraph(name, branch)
            for name, branch in zip(("then_branch", "else_branch"), branches, strict=True)
        ],
        num_outputs=len(branches[0].outputs),
    )
    traced().append(node)
    return node.outputs


def samples_of(x: ir.Value) -> Any:
    """T of x (T, N, K), in one element. It is asked of the values of one stream: the shape of what
    has no N in it is a constant as soon as T is one."""
    return op.Shape(op.Gather(x, 0, axis=1), start=0, end=1)


def moved_nodes(start: int) -> list[ir.Node]:
    """The nodes traced from `start` on, taken out of the graph that is being traced. Constants stay
    there, where the exporter may use them again. What is moved gets names of its own: the exporter
    numbers what it adds later from 0, and an inner graph hides the values around it."""
    nodes = traced()
    inner = [node for node in nodes[start:] if node.op_type != "Constant"]
    for value in (value for node in inner for value in node.outputs):
        value.name = f"inner.{next(_NUMBERS)}"
    nodes[start:] = [node for node in nodes[start:] if node.op_type == "Constant"]
    return inner


def traced() -> list[ir.Node]:
    """The nodes of the graph that onnxscript is tracing just now."""
    return cast("list[ir.Node]", cast("Any", evaluator.default()).nodes)


def _graph(name: str, add: Nodes, is_one: ir.Value) -> ir.Graph:
    """The nodes that `add` traces, in a graph of their own."""
    start = len(traced())
    outputs = add()
    return ir.Graph([], list(outputs), nodes=moved_nodes(start), opset_imports={"": 21}, name=name)
