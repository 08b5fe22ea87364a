"""Days → the nodes of one sample. Any number of channels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgernn.nets.days import (
    BINS,
    CLIP,
    FLOOR_SHARE,
    LARGEST_SQUARE,
    MEMORY,
    RECENT_MEMORY,
    SETTLED,
    TRUSTED,
    USUAL_CLIP_SHARE,
    USUAL_MEMORY,
    USUAL_MOST,
    USUAL_SHARE,
)
from edgernn.nets.levels import (
    FEWEST,
    FLOOR,
    LARGEST_RESIDUAL,
    RELATIVE_FLOOR,
    SPANS,
    smoothing,
)
from edgernn.nets.readings import LARGEST_READING, MOST_COUNTED
from edgernn.times import DAY_S, WEEK_S
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import as_number, bounded, number, split
from edgernn_export.ops.readings import Reading


def step(
    seen: Reading,
    clock: Any,
    moments: Any,
    table: Any,
    spans: Sequence[float] = SPANS,
    *,
    memory: float = MEMORY,
    clip: float = CLIP,
) -> tuple[Any, Any, Any]:
    """As `edgernn.nets.days` writes it."""
    recent, around, usual, f = split(moments, [1, 1, 1, len(spans)], axis=1)
    means, variances, visits = split(table, [BINS, BINS, BINS], axis=1)  # (N, 48, C)
    zero, one = number(0.0), number(1.0)
    days = op.Mul(clock, number(1 / DAY_S))
    near, here = _bins(op.Sub(days, op.Floor(days)))
    there = op.MatMul(near, op.Min(visits, one))  # (N, 1, C), as is what follows
    mean, variance, visited = (op.MatMul(here, one_) for one_ in (means, variances, visits))
    is_new = op.Equal(visited, zero)
    share = op.Div(one, op.Where(is_new, one, there))
    expected = op.Where(is_new, recent, op.Mul(op.MatMul(near, means), share))
    spread = op.Where(is_new, around, op.Mul(op.MatMul(near, variances), share))
    least = op.Mul(op.Abs(op.Add(seen.origin, recent)), number(RELATIVE_FLOOR))
    floor = op.Max(least, op.Mul(op.Sqrt(around), number(FLOOR_SHARE)), number(FLOOR))
    deviation = op.Add(op.Sqrt(op.Add(spread, op.Mul(usual, number(USUAL_SHARE)))), floor)
    is_settled = op.Greater(seen.n, number(FEWEST))
    largest = op.Mul(deviation, number(LARGEST_RESIDUAL))
    largest = op.Where(is_settled, largest, number(LARGEST_READING))
    r = bounded(op.Sub(seen.x, expected), largest)
    x = op.Add(expected, r)
    says = as_number(is_settled)
    change = op.Mul(op.Mul(op.Max(seen.rate, number(smoothing(tuple(spans)))), op.Sub(r, f)), says)
    now = op.Add(f, change)  # (N, K, C)
    u = op.Mul(op.Div(op.Abs(now), deviation), op.Mul(seen.is_there, says))

    most = op.Sqrt(op.Add(variance, op.Mul(usual, number(USUAL_CLIP_SHARE))))
    most = op.Add(op.Mul(most, number(clip)), floor)
    most = op.Where(op.Less(visited, number(TRUSTED)), number(LARGEST_READING), most)
    q = bounded(op.Sub(x, mean), most)
    visited = op.Add(visited, one)
    a = op.Max(op.Div(one, visited), number(1 / memory))
    aq = op.Mul(a, q)
    learnt = [
        op.Add(mean, aq),
        op.Mul(op.Sub(one, a), op.Add(variance, op.Mul(aq, q))),
        op.Min(visited, number(MOST_COUNTED)),
    ]
    is_learnt_here = op.Mul(op.Transpose(here, perm=[0, 2, 1]), seen.is_learnt)  # (N, 48, C)
    table = op.Concat(
        *(
            op.Add(before, op.Mul(is_learnt_here, op.Sub(after, before)))
            for before, after in zip((means, variances, visits), learnt, strict=True)
        ),
        axis=1,
    )
    most = op.Add(op.Mul(usual, number(USUAL_MOST)), op.Mul(floor, floor))
    most = op.Where(op.Greater(seen.n, number(SETTLED)), most, number(LARGEST_SQUARE))
    square = op.Min(op.Mul(r, r), most)
    pace = op.Mul(seen.is_learnt, op.Max(seen.rate, number(1 / USUAL_MEMORY)))
    usual = op.Add(usual, op.Mul(pace, op.Sub(square, usual)))
    a = op.Mul(seen.is_learnt, op.Max(seen.rate, number(1 / RECENT_MEMORY)))
    away = op.Sub(x, recent)
    moved = op.Mul(a, away)
    moments = op.Concat(
        op.Add(recent, moved),
        op.Mul(op.Sub(one, a), op.Add(around, op.Mul(moved, away))),
        usual,
        op.Add(f, op.Mul(seen.is_learnt, change)),
        axis=1,
    )
    return u, moments, table


def later(clock: Any, period: Any) -> Any:
    """As `edgernn.nets.days` writes it."""
    clock = op.Add(clock, period)
    weeks = op.Floor(op.Mul(clock, number(1 / WEEK_S)))
    return op.Sub(clock, op.Mul(weeks, number(WEEK_S)))


def _bins(phase: Any) -> tuple[Any, Any]:
    """phase (N, 1) → how near each bin is, and 1 at the one that it is in (N, 1, 48)."""
    zero, one = number(0.0), number(1.0)
    place = op.Unsqueeze(op.Mul(phase, number(BINS)), [1])
    after = op.Sub(place, number(np.arange(BINS)))
    away = op.Abs(op.Sub(after, number(0.5)))
    near = op.Relu(op.Sub(one, op.Min(away, op.Sub(number(BINS), away))))
    is_here = op.And(op.GreaterOrEqual(after, zero), op.Less(after, one))
    return near, as_number(is_here)
