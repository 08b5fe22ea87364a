"""Levels → the nodes of one sample. Any number of channels."""

from typing import Any

from edgernn.nets.levels import (
    FEWEST,
    FLOOR,
    GUARD,
    LARGEST_RESIDUAL,
    LEVEL_MEMORY,
    RELATIVE_FLOOR,
    SCALES,
    SKIPPED,
    SMOOTHING,
    UNGUARDED,
    VARIANCE_MEMORY,
)
from edgernn.nets.readings import LARGEST_READING
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import as_number, bounded, number, split
from edgernn_export.ops.readings import Reading, read


def step(sample: Any, state: Any) -> tuple[Reading, Any, Any, Any, Any]:
    """As `edgernn.nets.levels` writes it."""
    n, origin, m, f, v = split(state, [1, 1, SCALES, SCALES, SCALES], axis=1)
    seen = read(sample, n, origin)
    zero, one = number(0.0), number(1.0)
    level = op.Add(seen.origin, m)
    # not a sum: ONNX Runtime leaves out what adds so little
    floor = op.Max(op.Mul(op.Abs(level), number(RELATIVE_FLOOR)), number(FLOOR))
    deviation = op.Add(op.Sqrt(v), floor)  # (N, K, C)
    is_settled = op.Greater(n, number(FEWEST))  # (N, 1, C)
    largest = op.Mul(op.Slice(deviation, [0], [1], [1]), number(LARGEST_RESIDUAL))
    largest = op.Where(is_settled, largest, number(LARGEST_READING))
    r = bounded(op.Sub(seen.x, m), largest)
    change = op.Mul(op.Max(seen.rate, number(SMOOTHING)), op.Sub(r, f))
    now = op.Add(f, change)
    known = op.Mul(seen.is_there, as_number(is_settled))
    u = op.Mul(op.Div(op.Abs(now), deviation), known)
    ratio = op.Mul(u, number(1 / GUARD))
    cube = op.Mul(op.Mul(ratio, ratio), ratio)
    is_guarded = op.Less(n, number(UNGUARDED))
    pace = op.Div(seen.is_learnt, op.Add(op.Where(is_guarded, zero, cube), one))
    learnt = op.Mul(op.Mul(op.Max(seen.rate, number(1 / LEVEL_MEMORY)), pace), r)
    settling = op.Div(one, op.Max(op.Sub(n, number(SKIPPED - 1)), one))
    settling = op.Max(settling, number(1 / VARIANCE_MEMORY))
    settling = op.Mul(settling, as_number(op.Greater(n, number(SKIPPED))))
    varied = op.Mul(op.Mul(settling, pace), op.Sub(op.Mul(now, now), v))
    following = op.Concat(
        seen.counted,
        seen.origin,
        op.Add(m, learnt),
        op.Add(f, op.Mul(seen.is_learnt, change)),
        op.Add(v, varied),
        axis=1,
    )
    first = op.Gather(level, 0, axis=1)  # (N, C): that of the sample alone
    return seen, u, op.Squeeze(known, [1]), first, following
