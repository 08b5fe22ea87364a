"""Ranking → plain nodes for one sample, a Scan over them for several."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgernn.nets.ranking import (
    ABOVE,
    BINS,
    EXCURSION,
    LARGEST,
    LARGEST_EXPONENT,
    MEMORY,
    MOST_COUNTED,
    PRIOR_SAMPLES,
    RECOVERY,
    SLOPE,
    SLOPE_SAMPLES,
    SMALLEST_SCALE,
    SOFTNESS,
    START,
    TAIL,
    TAIL_SHARE,
    WIDTH,
    Ranking,
    prior_counts,
    rank,
)
from edgernn_export.ops.loop import sample_by_sample
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import number, split


@torch.library.custom_op("edgernn::ranking", mutates_args=())
def ranking(s: Tensor, known: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """As `Ranking.forward` takes and gives them."""
    y, following = map(torch.from_numpy, rank(s.numpy(), known.numpy(), state.numpy()))
    return y, following


@ranking.register_fake
def _(s: Tensor, known: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(s), torch.empty_like(state)


def _onnx_ranking(s, known, state):  # type: ignore[no-untyped-def]  # traced by onnxscript
    s, known = op.Unsqueeze(s, [2]), op.Unsqueeze(known, [2])  # (T, N, 1)
    y, following = sample_by_sample(step, [s, known], [state], rows=[[BINS + 1], [1], [1]])
    return op.Squeeze(y, [2]), following


def step(states: Sequence[Any], sample: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The update of one sample, as `edgernn.nets.ranking` writes it; columns (N, 1) for (N,)."""
    c, length = split(states[0], [BINS, 1], axis=1)
    s, known = sample
    zero, one = number(0.0), number(1.0)
    ends = np.arange(BINS, dtype=np.float32) + 1
    total = number(np.ones((BINS, 1)))  # a product is one node, and faster than a sum
    g = op.Log(op.Clip(s, one, number(LARGEST)))
    g = op.Mul(op.Sub(g, number(START)), number(1 / WIDTH))
    above = op.MatMul(op.Mul(c, op.Clip(op.Sub(number(ends), g), zero, one)), total)
    n = op.MatMul(c, total)
    with_prior = op.Add(c, number(prior_counts()))
    all_of_it = op.Add(n, number(PRIOR_SAMPLES))
    missing = op.Sub(op.Mul(all_of_it, number(TAIL)), op.MatMul(with_prior, number(ABOVE)))
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
    learnt = op.Sub(op.Relu(op.Sub(one, away)), op.Mul(c, number(1 / MEMORY)))
    learnt = op.Add(c, op.Mul(weight, learnt))
    shorter = op.Mul(length, number(RECOVERY))
    going_on = op.Mul(excursion, op.Sub(op.Add(length, one), shorter))
    longer = op.Min(op.Add(shorter, going_on), number(MOST_COUNTED))
    length = op.Add(length, op.Mul(known, op.Sub(longer, length)))
    return [op.Concat(learnt, length, axis=1)], [said]


class ExportedRanking(nn.Module):
    """A Ranking as one opaque op."""

    def __init__(self, _: Ranking) -> None:
        super().__init__()

    def forward(self, s: Tensor, known: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, following = ranking(s, known, state)
        return y, following


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.ranking.default: _onnx_ranking}
