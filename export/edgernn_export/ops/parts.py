"""Small things that nodes written by hand are made of: numbers, and what is split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper
from onnxscript import ir

from edgernn_export.ops.branch import traced
from edgernn_export.ops.order import op


def number(value: Any) -> Any:
    """A float32 constant of any shape."""
    return op.Constant(value=numpy_helper.from_array(np.asarray(value, np.float32)))


def as_number(value: Any) -> Any:
    """What is true or false → 1 or 0."""
    return op.Cast(value, to=ir.DataType.FLOAT)


def bounded(value: Any, most: Any) -> Any:
    """From −most to most."""
    return op.Max(op.Min(value, most), op.Neg(most))


def split(value: ir.Value, sizes: Sequence[int], *, axis: int) -> Sequence[ir.Value]:
    """Not by op.Split: onnxscript cannot know how many outputs a variadic node has."""
    parts = op.Constant(value=numpy_helper.from_array(np.array(sizes)))
    attributes = [ir.AttrInt64("axis", axis)]
    node = ir.Node("", "Split", [value, parts], attributes, num_outputs=len(sizes))
    traced().append(node)
    return node.outputs
