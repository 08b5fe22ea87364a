"""How far each channel is from its own level, at several time scales, learnt as it goes.

Nothing here is trained: the level, the smoothed residual and its variance begin empty and follow
the stream. What is surprising is learnt slowly, so that a fault does not become the new level
while it lasts. Every scale has a level of its own: one that all share is held still by the most
surprised.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgernn.nets.readings import LARGEST_READING, Reading, read

Floats = NDArray[np.float32]

SPANS = (1.0, 4.0, 16.0)
"""Samples over which residuals are smoothed, one time scale each, unless others are asked for."""
SCALES = len(SPANS)
LEVEL_MEMORY = 5_000.0
"""Samples of a level in the long run; before, it is the mean of all."""
VARIANCE_MEMORY = 10_000.0
"""Samples of a variance in the long run."""
FEWEST = 20.0
"""Samples of a channel before anything is said of it."""
UNGUARDED = 400.0
"""Samples that are all learnt alike: what is usual is not known yet. With 100, a wave that is
longer is a surprise for good; with 1000, a fault that comes early is taken for usual."""
SKIPPED = 5.0
"""First samples that no variance is learnt from: a level of so few is near each of them."""
GUARD = 2.0
"""Standard deviations at which learning has slowed to a half."""
FLOOR, RELATIVE_FLOOR = 1e-9, 1e-6
"""The least that is added to a standard deviation: in sensor units, and of the level, which is what
float32 can tell."""
LARGEST_RESIDUAL = 1000.0
"""Standard deviations: one wild reading is over once its smoothed residual is, 67 samples at a span
of 16, and moves a level by nothing. With 100, the largest step of a quiet sensor counts for no more
than a small one: NAB 66.2 / 61.9 in place of 70.0 / 66.6 in the prototype; with 2,000 and more the
server that has channels which hardly ever move is lost."""
MOST_SPANS, LONGEST_SPAN = 6, 1000


def check_spans(spans: Sequence[int]) -> None:
    """Raises ValueError unless they are a few that rise."""
    if not 1 <= len(spans) <= MOST_SPANS:
        raise ValueError(f"spans: expected 1–{MOST_SPANS} of them, got {len(spans)}")
    said = ", ".join(map(str, spans))
    if not all(1 <= span <= LONGEST_SPAN for span in spans):
        raise ValueError(f"spans: expected 1–{LONGEST_SPAN} samples each, got {said}")
    if sorted(set(spans)) != list(spans):
        raise ValueError(f"spans: expected them to rise, got {said}")


def rows(scales: int) -> int:
    """Of the state: samples seen and where the level is counted from, then level, smoothed residual
    and variance of every scale."""
    return 2 + 3 * scales


class Levels(nn.Module):
    """The level view alone, over any spans: `step` for sample after sample."""

    def __init__(self, channels: int, spans: Sequence[float] = SPANS) -> None:
        """`spans`: W of each scale, in samples."""
        super().__init__()
        self.spans = tuple(map(float, spans))
        shape = rows(len(self.spans)), channels
        self.state_shapes: Mapping[str, tuple[int, ...]] = {"moments": shape}

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (T, N, C) in sensor units, NaN = missing; state (N, rows, C) → surprise u in standard
        deviations (T, N, K, C), 1 where it is known (T, N, C), the level before each sample
        (T, N, C) in sensor units, next state."""
        said = follow(x.detach().numpy(), state.numpy(), self.spans)
        u, known, level, following = map(torch.from_numpy, said)
        return u, known, level, following


def follow(
    x: Floats, state: Floats, spans: Sequence[float], *, unguarded: float = UNGUARDED
) -> tuple[Floats, Floats, Floats, Floats]:
    """`Levels.forward` in NumPy. `unguarded`: first samples that are all learnt alike."""
    samples, streams, channels = x.shape
    u = np.empty((samples, streams, len(spans), channels), np.float32)
    known, level = np.empty_like(x), np.empty_like(x)
    for t in range(samples):
        _, u[t], known[t], level[t], state = step(x[t], state, spans, unguarded=unguarded)
    return u, known, level, state


def step(
    x: Floats,
    state: Floats,
    spans: Sequence[float] = SPANS,
    *,
    guarded: Floats | None = None,
    unguarded: float = UNGUARDED,
    memory: float = VARIANCE_MEMORY,
) -> tuple[Reading, Floats, Floats, Floats, Floats]:
    """The level view of all channels, each by itself.

    For a channel that was observed n times before, and a scale of W samples, with x counted from
    the channel's first sample:

        judged:  r = x − m, at most 1,000 standard deviations of the shortest scale
                 f += max(1/W, 1/(n+1)) · (r − f),  u = |f| / (√v + floor)
        guard:   γ = 1 / (1 + g · (u/2)³), 1 while n < 400
        learnt:  m += max(1/5000, 1/(n+1)) · γ · r
                 v += max(1/10000, 1/(n−4)) · γ · (f² − v), from n = 6 on

    A missing channel keeps what it knows and is not surprising.

    x (N, C) in sensor units, NaN = missing; state (N, rows, C); guarded g (N, 1, 1) from 1 to 0,
    where all is learnt alike, None = 1; unguarded: first samples of which that is true; memory of
    the variance, 10,000 above → the sample as other views take it, surprise u in standard
    deviations (N, K, C), 1 where it is known (N, C), the level before the sample (N, C) in sensor
    units, next state.
    """
    scales = len(spans)
    n, origin, m, f, v = np.split(state, [1, 2, 2 + scales, 2 + 2 * scales], axis=1)
    seen = read(x, n, origin)
    one = np.float32(1)
    level = seen.origin + m
    floor = np.maximum(np.float32(RELATIVE_FLOOR) * np.abs(level), np.float32(FLOOR))
    deviation = np.sqrt(v) + floor  # (N, K, C)
    is_settled = n > FEWEST  # (N, 1, C)
    largest = np.float32(LARGEST_RESIDUAL) * deviation[:, :1]
    largest = np.where(is_settled, largest, np.float32(LARGEST_READING))
    r = np.maximum(np.minimum(seen.x - m, largest), -largest)
    change = np.maximum(seen.rate, smoothing(spans)) * (r - f)
    now = f + change
    known = seen.is_there * is_settled.astype(np.float32)
    u = np.abs(now) / deviation * known
    ratio = u * np.float32(1 / GUARD)
    cube = ratio * ratio * ratio
    if guarded is not None:
        cube = cube * guarded
    guard = one / (one + np.where(n < unguarded, 0, cube))
    pace = seen.is_learnt * guard  # (N, K, C)
    learnt = m + np.maximum(seen.rate, np.float32(1 / LEVEL_MEMORY)) * pace * r
    settling = one / np.maximum(n - np.float32(SKIPPED - 1), one)
    settling = np.maximum(settling, np.float32(1 / memory)) * (n > SKIPPED)
    variance = v + settling * pace * (now * now - v)
    smooth = f + seen.is_learnt * change
    following = np.concatenate([seen.counted, seen.origin, learnt, smooth, variance], axis=1)
    return seen, u, known[:, 0], level[:, 0], following


@cache
def smoothing(spans: Sequence[float]) -> Floats:
    """(K, 1) what an average over each span moves by."""
    return np.array([1 / span for span in spans], np.float32)[:, None]
