"""Levels → plain nodes for one sample, a Scan over them for several. Any number of channels."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from onnxscript import ir
from torch import Tensor, nn

from edgernn.nets.levels import (
    FEWEST,
    FLOOR,
    GUARD,
    LARGEST_READING,
    LARGEST_RESIDUAL,
    LEVEL_MEMORY,
    MOST_COUNTED,
    RELATIVE_FLOOR,
    SKIPPED,
    UNGUARDED,
    VARIANCE_MEMORY,
    Levels,
    follow,
    rows,
)
from edgernn_export.ops.loop import sample_by_sample
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import number, split


@torch.library.custom_op("edgernn::levels", mutates_args=())
def levels(
    x: Tensor, state: Tensor, spans: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `Levels.forward` takes and gives them."""
    u, known, level, following = map(torch.from_numpy, follow(x.numpy(), state.numpy(), spans))
    return u, known, level, following


@levels.register_fake
def _(x: Tensor, state: Tensor, spans: Sequence[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, streams, channels = x.shape
    u = x.new_empty(samples, streams, len(spans), channels)
    return u, torch.empty_like(x), torch.empty_like(x), torch.empty_like(state)


def _onnx_levels(x, state, spans):  # type: ignore[no-untyped-def]  # traced by onnxscript
    channels = x.shape[2]
    shapes = [[rows(len(spans)), channels], [channels]]
    return sample_by_sample(partial(step, spans), [x], [state], rows=shapes)


def step(
    spans: Sequence[float], states: Sequence[Any], sample: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """The update of one sample, as `edgernn.nets.levels` writes it."""
    scales = len(spans)
    n, origin, m, f, v = split(states[0], [1, 1, scales, scales, scales], axis=1)
    x = op.Unsqueeze(sample[0], [1])  # (N, 1, C)
    one, zero = number(1.0), number(0.0)
    is_missing = op.IsNaN(x)
    is_there = op.Cast(op.Not(is_missing), to=ir.DataType.FLOAT)
    x = op.Where(is_missing, zero, x)
    is_learnt = op.Cast(op.Less(op.Abs(x), number(LARGEST_READING)), to=ir.DataType.FLOAT)
    is_learnt = op.Mul(is_there, is_learnt)
    x = op.Clip(x, number(-LARGEST_READING), number(LARGEST_READING))
    origin = op.Where(op.Equal(n, zero), x, origin)
    level = op.Add(origin, m)
    # not a sum: ONNX Runtime leaves out what adds so little
    floor = op.Max(op.Mul(op.Abs(level), number(RELATIVE_FLOOR)), number(FLOOR))
    deviation = op.Add(op.Sqrt(v), floor)  # (N, K, C)
    is_settled = op.Greater(n, number(FEWEST))  # (N, 1, C)
    largest = op.Mul(op.Slice(deviation, [0], [1], [1]), number(LARGEST_RESIDUAL))
    largest = op.Where(is_settled, largest, number(LARGEST_READING))
    r = op.Max(op.Min(op.Sub(op.Sub(x, origin), m), largest), op.Neg(largest))
    rate = op.Div(one, op.Add(n, one))
    smoothing = number([[1 / span] for span in spans])
    change = op.Mul(op.Max(rate, smoothing), op.Sub(r, f))
    now = op.Add(f, change)
    known = op.Mul(is_there, op.Cast(is_settled, to=ir.DataType.FLOAT))
    u = op.Mul(op.Div(op.Abs(now), deviation), known)
    ratio = op.Mul(u, number(1 / GUARD))
    cube = op.Mul(op.Mul(ratio, ratio), ratio)
    is_guarded = op.Less(n, number(UNGUARDED))
    pace = op.Div(is_learnt, op.Add(op.Where(is_guarded, zero, cube), one))
    learnt = op.Mul(op.Mul(op.Max(rate, number(1 / LEVEL_MEMORY)), pace), r)
    settling = op.Div(one, op.Max(op.Sub(n, number(SKIPPED - 1)), one))
    settling = op.Max(settling, number(1 / VARIANCE_MEMORY))
    settling = op.Mul(settling, op.Cast(op.Greater(n, number(SKIPPED)), to=ir.DataType.FLOAT))
    varied = op.Mul(op.Mul(settling, pace), op.Sub(op.Mul(now, now), v))
    following = op.Concat(
        op.Min(op.Add(n, is_learnt), number(MOST_COUNTED)),
        origin,
        op.Add(m, learnt),
        op.Add(f, op.Mul(is_learnt, change)),
        op.Add(v, varied),
        axis=1,
    )
    first = op.Gather(level, 0, axis=1)  # (N, C): that of the sample alone
    return [following], [u, op.Squeeze(known, [1]), first]


class ExportedLevels(nn.Module):
    """Levels as one opaque op."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.spans = list(levels.spans)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, known, level, following = levels(x, state, self.spans)
        return u, known, level, following


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.levels.default: _onnx_levels}
