"""How far each channel is from what it is at this time of day, learnt as it goes.

A table of 48 half hours, UTC.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgernn.nets.levels import (
    FEWEST,
    FLOOR,
    LARGEST_RESIDUAL,
    RELATIVE_FLOOR,
    SPANS,
    smoothing,
)
from edgernn.nets.readings import LARGEST_READING, MOST_COUNTED, Reading
from edgernn.times import DAY_S, WEEK_S

Floats = NDArray[np.float32]

BINS = 48
"""Of a day."""
MEMORY = 200.0
"""Visits that a bin remembers."""
TRUSTED = 12.0
"""Visits of a bin after which it learns no more than `CLIP` of its deviations at once."""
CLIP = 3.0
USUAL_SHARE, USUAL_CLIP_SHARE = 0.1, 0.3
"""Of the usual square of a residual, beside a bin's own variance: in what surprise is measured by,
and in what is learnt at most. A bin of a few visits knows too small a variance."""
USUAL_MEMORY = 1000.0
"""Samples of the usual square."""
USUAL_MOST = 16.0
"""Times the usual square that are learnt at most, once there were `SETTLED` samples."""
SETTLED = 50.0
RECENT_MEMORY = 100.0
"""Samples of the recent level, which stands in for a bin that was never visited."""
FLOOR_SHARE = 1e-3
"""Of the recent deviation: the least that surprise is measured by."""
LARGEST_SQUARE = LARGEST_READING**2


def rows(scales: int) -> int:
    """Of `moments`: recent level and variance, the usual square, then the smoothed residuals."""
    return 3 + scales


def step(
    seen: Reading,
    clock: Floats,
    moments: Floats,
    table: Floats,
    spans: Sequence[float] = SPANS,
    *,
    memory: float = MEMORY,
    clip: float = CLIP,
) -> tuple[Floats, Floats, Floats]:
    """The time-of-day view of all channels, each by itself.

    μ, σ² and N are mean, variance and visits of the half hour b that it is; e and σₑ² lie between
    those of b and of the neighbour that is nearer, by the distance to their centres. Where b was
    never visited, they are the recent level's m and s². With x counted from the channel's first
    sample, and n seen before:

        judged:  r = x − e, at most 1,000 standard deviations
                 f += max(1/W, 1/(n+1)) · (r − f),  u = |f| / (√(σₑ² + 0.1 g) + floor),
                 from n = 21 on
        learnt:  q = x − μ, beyond 12 visits at most 3 √(σ² + 0.3 g)
                 a = max(1/(N+1), 1/200),  μ += a q,  σ² = (1 − a)(σ² + a q²)
                 g += max(1/1000, 1/(n+1)) · (r² − g), r² at most 16 g beyond 50 samples
                 a = max(1/100, 1/(n+1)),  s² = (1 − a)(s² + a (x − m)²),  m += a (x − m)

    A missing channel keeps what it knows and is not surprising.

    clock (N, 1): seconds since some midnight; moments (N, rows, C); table (N, 3·48, C): means,
    variances, visits; memory, in visits, and clip of what is learnt: 200 and 3 above → surprise u
    in standard deviations (N, K, C), then moments and table of the next sample.
    """
    recent, around, usual, f = np.split(moments, [1, 2, 3], axis=1)
    means, variances, visits = np.split(table, 3, axis=1)  # (N, 48, C)
    one = np.float32(1)
    days = clock * np.float32(1 / DAY_S)
    near, here = _bins(days - np.floor(days))  # (N, 1, 48)
    there = near @ np.minimum(visits, one)  # (N, 1, C), as is what follows
    visited = here @ visits
    is_new = visited == 0
    share = one / np.where(is_new, one, there)
    expected = np.where(is_new, recent, (near @ means) * share)
    spread = np.where(is_new, around, (near @ variances) * share)
    least = np.float32(RELATIVE_FLOOR) * np.abs(seen.origin + recent)
    floor = np.maximum(least, np.float32(FLOOR_SHARE) * np.sqrt(around))
    floor = np.maximum(floor, np.float32(FLOOR))
    deviation = np.sqrt(spread + np.float32(USUAL_SHARE) * usual) + floor
    is_settled = seen.n > FEWEST
    largest = np.float32(LARGEST_RESIDUAL) * deviation
    largest = np.where(is_settled, largest, np.float32(LARGEST_READING))
    r = np.maximum(np.minimum(seen.x - expected, largest), -largest)
    x = expected + r
    says = is_settled.astype(np.float32)
    change = np.maximum(seen.rate, smoothing(tuple(spans))) * (r - f) * says
    now = f + change  # (N, K, C)
    u = np.abs(now) / deviation * (seen.is_there * says)

    mean, variance = here @ means, here @ variances
    most = np.float32(clip) * np.sqrt(variance + np.float32(USUAL_CLIP_SHARE) * usual) + floor
    most = np.where(visited < TRUSTED, np.float32(LARGEST_READING), most)
    q = np.maximum(np.minimum(x - mean, most), -most)
    a = np.maximum(one / (visited + one), np.float32(1 / memory))
    learnt = [
        mean + a * q,
        (one - a) * (variance + a * q * q),
        np.minimum(visited + one, np.float32(MOST_COUNTED)),
    ]
    is_learnt_here = here.swapaxes(1, 2) * seen.is_learnt  # (N, 48, C)
    table = np.concatenate(
        [
            before + is_learnt_here * (after - before)
            for before, after in zip((means, variances, visits), learnt, strict=True)
        ],
        axis=1,
    )
    most = np.float32(USUAL_MOST) * usual + floor * floor
    square = np.minimum(r * r, np.where(seen.n > SETTLED, most, np.float32(LARGEST_SQUARE)))
    pace = seen.is_learnt * np.maximum(seen.rate, np.float32(1 / USUAL_MEMORY))
    usual = usual + pace * (square - usual)
    a = seen.is_learnt * np.maximum(seen.rate, np.float32(1 / RECENT_MEMORY))
    away = x - recent
    moved = a * away
    moments = np.concatenate(
        [
            recent + moved,
            (one - a) * (around + moved * away),
            usual,
            f + seen.is_learnt * change,
        ],
        axis=1,
    )
    return u, moments, table


def later(clock: Floats, period: Floats) -> Floats:
    """Seconds since Monday 00:00 of the next sample, (N, 1) all."""
    after = clock + period
    in_week: Floats = after - np.float32(WEEK_S) * np.floor(after * np.float32(1 / WEEK_S))
    return in_week


def _bins(phase: Floats) -> tuple[Floats, Floats]:
    """phase (N, 1) from 0 to 1 → how near each bin's centre is, from 1 to 0 a bin away, and 1 at
    the bin that it is in (N, 1, 48)."""
    after = (phase * np.float32(BINS))[:, None] - _BIN
    away = np.abs(after - np.float32(0.5))
    near = np.maximum(1 - np.minimum(away, np.float32(BINS) - away), 0)
    return near, ((after >= 0) & (after < 1)).astype(np.float32)


_BIN = np.arange(BINS, dtype=np.float32)
