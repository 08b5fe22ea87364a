"""How far each channel is from its own level, at several time scales, learnt as it goes.

Nothing here is trained: the level, the smoothed residual and its variance begin empty and follow
the stream. What is surprising is learnt slowly, so that a fault does not become the new level
while it lasts. Every scale has a level of its own: one that all share is held still by the most
surprised.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float32]

SPANS = (1.0, 4.0, 16.0)
"""Samples over which residuals are smoothed, one time scale each, unless others are asked for."""
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
MOST_COUNTED = 1e6
"""Samples: float32 counts to 16 million."""
LARGEST_RESIDUAL = 100.0
"""Standard deviations: one wild reading is over once its smoothed residual is, and moves a level
by nothing."""
LARGEST_READING = 1e15
"""Sensor units: what is beyond is never learnt, so that no square leaves float32."""


def rows(scales: int) -> int:
    """Of the state: samples seen and where the level is counted from, then level, smoothed residual
    and variance of every scale."""
    return 2 + 3 * scales


class Levels(nn.Module):
    """The level view of all channels, each by itself.

    For a channel that was observed n times before, and a scale of W samples, with x counted from
    the channel's first sample so that a small change of a large reading stays a float32:

        judged:  r = x − m, at most 100 standard deviations of the shortest scale
                 f += max(1/W, 1/(n+1)) · (r − f),  u = |f| / (√v + floor)
        guard:   γ = 1 / (1 + (u/2)³), 1 while n < 400
        learnt:  m += max(1/5000, 1/(n+1)) · γ · r
                 v += max(1/10000, 1/(n−4)) · γ · (f² − v), from n = 6 on

    A missing channel keeps what it knows and is not surprising.
    """

    def __init__(self, channels: int, spans: Sequence[float] = SPANS) -> None:
        """`spans`: W of each scale, in samples."""
        super().__init__()
        self.spans = tuple(map(float, spans))
        shape = rows(len(self.spans)), channels
        self.state_shapes: Mapping[str, tuple[int, ...]] = {"moments": shape}

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (T, N, C) in sensor units, NaN = missing; state (N, ROWS, C) → surprise u in standard
        deviations (T, N, K, C), 1 where it is known (T, N, C), the level before each sample
        (T, N, C) in sensor units, next state."""
        u, known, level, following = follow(x.detach().numpy(), state.numpy(), self.spans)
        return (
            torch.from_numpy(u),
            torch.from_numpy(known),
            torch.from_numpy(level),
            torch.from_numpy(following),
        )


def follow(
    x: Floats, state: Floats, spans: Sequence[float], *, unguarded: float = UNGUARDED
) -> tuple[Floats, Floats, Floats, Floats]:
    """`Levels.forward` in NumPy: a loop over samples, each judged by what was learnt before it.
    `unguarded`: first samples that are all learnt alike."""
    samples, streams, channels = x.shape
    smoothing = np.array([1 / span for span in spans], np.float32)[:, None]  # (K, 1)
    u = np.empty((samples, streams, len(spans), channels), np.float32)
    known, level = np.empty_like(x), np.empty_like(x)
    for t in range(samples):
        u[t], known[t], level[t], state = _step(x[t], state, smoothing, unguarded)
    return u, known, level, state


def _step(
    x: Floats, state: Floats, smoothing: Floats, unguarded: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """x (N, C), state (N, ROWS, C), smoothing (K, 1) → u (N, K, C), known (N, C), level (N, C),
    next state."""
    scales = len(smoothing)
    n, origin, m, f, v = np.split(state, [1, 2, 2 + scales, 2 + 2 * scales], axis=1)
    x = x[:, None]  # (N, 1, C)
    one = np.float32(1)
    is_there = ~np.isnan(x)
    is_learnt = (is_there & (np.abs(x) < LARGEST_READING)).astype(np.float32)
    x = np.clip(np.where(is_there, x, 0), -LARGEST_READING, LARGEST_READING)
    origin = np.where(n == 0, x, origin)
    floor = np.maximum(np.float32(RELATIVE_FLOOR) * np.abs(origin + m), np.float32(FLOOR))
    deviation = np.sqrt(v) + floor  # (N, K, C)
    is_settled = n > FEWEST  # (N, 1, C)
    largest = np.where(
        is_settled, np.float32(LARGEST_RESIDUAL) * deviation[:, :1], np.float32(LARGEST_READING)
    )
    r = np.maximum(np.minimum((x - origin) - m, largest), -largest)
    rate = one / (n + 1)
    change = np.maximum(rate, smoothing) * (r - f)
    now = f + change
    known = (is_there & is_settled).astype(np.float32)
    u = np.abs(now) / deviation * known
    ratio = u * np.float32(1 / GUARD)
    guard = one / (one + np.where(n < unguarded, 0, ratio * ratio * ratio))
    pace = is_learnt * guard  # (N, K, C)
    learnt = m + np.maximum(rate, np.float32(1 / LEVEL_MEMORY)) * pace * r
    settling = one / np.maximum(n - (SKIPPED - 1), one)
    settling = np.maximum(settling, np.float32(1 / VARIANCE_MEMORY)) * (n > SKIPPED)
    variance = v + settling * pace * (now * now - v)
    following = [
        np.minimum(n + is_learnt, np.float32(MOST_COUNTED)),
        origin,
        learnt,
        f + is_learnt * change,
        variance,
    ]
    level = origin[:, 0] + m[:, 0]
    return u, known[:, 0], level, np.concatenate(following, axis=1)
