"""Ranking → the nodes of one sample."""

import math
from typing import Any

import numpy as np

from edgernn.nets.ranking import (
    BINS,
    EDGE,
    EXCURSION,
    LARGEST,
    LARGEST_EXPONENT,
    MEMORY,
    PRIOR_SAMPLES,
    RECOVERY,
    SLOPE,
    SLOPE_SAMPLES,
    SMALLEST,
    SMALLEST_SCALE,
    SOFTNESS,
    START,
    TAIL,
    TAIL_SHARE,
    WIDTH,
    prior_counts,
)
from edgernn.nets.readings import MOST_COUNTED
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import number, split


def step(s: Any, known: Any, state: Any) -> tuple[Any, Any]:
    """As `edgernn.nets.ranking` writes it; (N, V, 1) for (N, V)."""
    c, length = split(state, [BINS, 1], axis=2)
    s, known = op.Unsqueeze(s, [2]), op.Unsqueeze(known, [2])
    zero, one = number(0.0), number(1.0)
    ends = np.arange(BINS, dtype=np.float32) + 1
    total = number(np.ones((BINS, 1)))  # a product is one node, and faster than a sum
    g = op.Log(op.Clip(s, number(SMALLEST), number(LARGEST)))
    g = op.Mul(op.Sub(g, number(START)), number(1 / WIDTH))
    above = op.MatMul(op.Mul(c, op.Clip(op.Sub(number(ends), g), zero, one)), total)
    n = op.MatMul(c, total)
    with_prior = op.Add(c, number(prior_counts()))
    all_of_it = op.Add(n, number(PRIOR_SAMPLES))
    higher = op.CumSum(with_prior, op.Constant(value_int=2), exclusive=1, reverse=1)
    missing = op.Sub(op.Mul(all_of_it, number(TAIL)), higher)
    soft = op.Add(with_prior, op.Mul(all_of_it, number(SOFTNESS)))
    share = op.Clip(op.Div(missing, soft), zero, one)
    start = op.Sub(number(BINS), op.MatMul(share, total))
    taken = op.Mul(share, with_prior)
    excess = op.Sub(op.Sub(number(ends), op.Mul(share, number(0.5))), start)
    spread = op.Mul(op.MatMul(op.Mul(taken, excess), total), number(WIDTH))
    spread = op.Div(
        op.Add(spread, number(SLOPE * SLOPE_SAMPLES)),
        op.Add(op.MatMul(taken, total), number(SLOPE_SAMPLES)),
    )
    spread = op.Max(spread, number(SMALLEST_SCALE))
    exponent = op.Div(op.Mul(op.Sub(start, g), number(WIDTH)), spread)
    exponent = op.Add(exponent, number(math.log(TAIL)))
    exponent = op.Clip(exponent, number(-LARGEST_EXPONENT), zero)
    p = op.Div(op.Add(above, op.Exp(exponent)), op.Add(n, one))
    to_score = number(-1 / math.log(10))
    y = op.Mul(op.Relu(op.Mul(op.Log(p), to_score)), known)
    inside = op.Mul(op.Clip(op.Sub(g, start), zero, one), number(TAIL_SHARE))
    more = op.Sub(op.Mul(op.Mul(exponent, to_score), known), y)
    said = op.Add(y, op.Mul(inside, more))
    low, high = EXCURSION
    excursion = op.Mul(op.Sub(y, number(low)), number(1 / (high - low)))
    excursion = op.Clip(excursion, zero, one)
    weight = op.Div(known, op.Add(length, one))
    where = op.Clip(op.Sub(g, number(0.5)), zero, number(BINS - 1))
    away = op.Abs(op.Sub(where, number(ends - 1)))
    there = op.Sub(number(0.5 + 0.5 / EDGE), op.Mul(away, number(1 / EDGE)))
    learnt = op.Sub(op.Clip(there, zero, one), op.Mul(c, number(1 / MEMORY)))
    learnt = op.Add(c, op.Mul(weight, learnt))
    shorter = op.Mul(length, number(RECOVERY))
    going_on = op.Mul(excursion, op.Sub(op.Add(length, one), shorter))
    longer = op.Min(op.Add(shorter, going_on), number(MOST_COUNTED))
    length = op.Add(length, op.Mul(known, op.Sub(longer, length)))
    return op.Squeeze(said, [2]), op.Concat(learnt, length, axis=2)
