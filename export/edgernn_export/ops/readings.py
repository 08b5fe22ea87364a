"""Reading → the nodes of one sample."""

from typing import Any, NamedTuple

from edgernn.nets.readings import LARGEST_READING, MOST_COUNTED
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import as_number, number


class Reading(NamedTuple):
    """As `edgernn.nets.readings` has it."""

    x: Any
    origin: Any
    n: Any
    is_there: Any
    is_learnt: Any
    rate: Any
    counted: Any


def read(x: Any, n: Any, origin: Any) -> Reading:
    """As `edgernn.nets.readings` writes it."""
    x = op.Unsqueeze(x, [1])  # (N, 1, C)
    zero, one = number(0.0), number(1.0)
    is_missing = op.IsNaN(x)
    is_there = as_number(op.Not(is_missing))
    x = op.Where(is_missing, zero, x)
    is_learnt = op.Mul(is_there, as_number(op.Less(op.Abs(x), number(LARGEST_READING))))
    x = op.Clip(x, number(-LARGEST_READING), number(LARGEST_READING))
    origin = op.Where(op.Equal(n, zero), x, origin)
    rate = op.Div(one, op.Add(n, one))
    counted = op.Min(op.Add(n, is_learnt), number(MOST_COUNTED))
    return Reading(op.Sub(x, origin), origin, n, is_there, is_learnt, rate, counted)
