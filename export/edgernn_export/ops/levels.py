"""Levels → the nodes of one sample. Any number of channels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgernn.nets.levels import (
    FEWEST,
    FLOOR,
    GUARD,
    LARGEST_RESIDUAL,
    LEVEL_MEMORY,
    RELATIVE_FLOOR,
    SKIPPED,
    SPANS,
    UNGUARDED,
    VARIANCE_MEMORY,
    Levels,
    follow,
    rows,
    smoothing,
)
from edgernn.nets.readings import LARGEST_READING
from edgernn_export.ops.loop import sample_by_sample
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import as_number, bounded, number, split
from edgernn_export.ops.readings import Reading, read


@torch.library.custom_op("edgernn::levels", mutates_args=())
def levels(
    x: Tensor, state: Tensor, spans: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `Levels.forward` takes and gives them."""
    said = follow(x.numpy(), state.numpy(), tuple(spans))
    u, known, level, following = map(torch.from_numpy, said)
    return u, known, level, following


@levels.register_fake
def _(x: Tensor, state: Tensor, spans: Sequence[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, streams, channels = x.shape
    u = x.new_empty(samples, streams, len(spans), channels)
    return u, torch.empty_like(x), torch.empty_like(x), torch.empty_like(state)


def _onnx_levels(x, state, spans):  # type: ignore[no-untyped-def]  # traced by onnxscript
    def alone(states: Sequence[Any], sample: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        _, u, known, level, following = step(sample[0], states[0], spans)
        return [following], [u, known, level]

    channels = x.shape[2]
    shapes = [[rows(len(spans)), channels], [channels]]
    return sample_by_sample(alone, [x], [state], rows=shapes)


def step(
    sample: Any,
    state: Any,
    spans: Sequence[float] = SPANS,
    *,
    guarded: Any = None,
    memory: float = VARIANCE_MEMORY,
) -> tuple[Reading, Any, Any, Any, Any]:
    """As `edgernn.nets.levels` writes it."""
    scales = len(spans)
    n, origin, m, f, v = split(state, [1, 1, scales, scales, scales], axis=1)
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
    change = op.Mul(op.Max(seen.rate, number(smoothing(tuple(spans)))), op.Sub(r, f))
    now = op.Add(f, change)
    known = op.Mul(seen.is_there, as_number(is_settled))
    u = op.Mul(op.Div(op.Abs(now), deviation), known)
    ratio = op.Mul(u, number(1 / GUARD))
    cube = op.Mul(op.Mul(ratio, ratio), ratio)
    if guarded is not None:
        cube = op.Mul(cube, guarded)
    is_guarded = op.Less(n, number(UNGUARDED))
    pace = op.Div(seen.is_learnt, op.Add(op.Where(is_guarded, zero, cube), one))
    learnt = op.Mul(op.Mul(op.Max(seen.rate, number(1 / LEVEL_MEMORY)), pace), r)
    settling = op.Div(one, op.Max(op.Sub(n, number(SKIPPED - 1)), one))
    settling = op.Max(settling, number(1 / memory))
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


class ExportedLevels(nn.Module):
    """Levels as one opaque op."""

    def __init__(self, layer: Levels) -> None:
        super().__init__()
        self.spans = list(layer.spans)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, known, level, following = levels(x, state, self.spans)
        return u, known, level, following


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.levels.default: _onnx_levels}
