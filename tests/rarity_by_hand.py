"""The adaptive score again, as docs/quality.md writes it: one stream, sample by sample, in NumPy.

Two views of how far each channel is from where it should be, each at three time scales, pooled over
the channels, and a histogram that turns the result into −log10 p. It learns while it judges: what
surprises it is learnt slowly, and a long excursion counts about once. The constants were chosen by
measurement, which that document has.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SCALES = np.array([1.0, 4.0, 16.0])
"""Samples over which residuals are averaged."""
LEVEL, SPREAD, LATELY, USUAL = 5000.0, 10_000.0, 100.0, 1000.0
"""Samples of memory: of a level, its spread, and without a time of day the recent and the usual."""
HALVED, STEEPNESS = 2.0, 3.0
"""Spreads at which learning is halved, and the power with which it falls beyond."""
BINS, VISITS, TRUSTED, CLIP = 48, 200.0, 12, 3.0
"""Of a day; visits a bin remembers, those after which it clips what it learns, and at how much."""
CAP, DEAD = 10.0, 1.5
"""A channel's distance counts from the second up to the first."""
PLACES, LOWEST, HIGHEST = 64, math.log(1e-2), math.log(1e4)
STEP = (HIGHEST - LOWEST) / PLACES
"""The histogram's bins, and the logarithms between which they lie."""
MEMORY, TAIL, SLOPE, PRIOR, SHARE = 1e5, 0.05, 0.2, 100.0, 0.3
"""Samples a histogram remembers; what is its tail, and a Pareto tail's slope before it is known,
how many exceedances that is worth, and the tail's share in the score."""
LONG, FADES = 1.0, 0.95
"""Score above which a sample belongs to an excursion; what is left of its length per sample."""


class LevelView:
    """Distance of each channel from its slow level, in its own spread, at each scale: (C, 3)."""

    def __init__(self, channels: int) -> None:
        self.seen = np.zeros(channels)
        self.level, self.smooth, self.variance = np.zeros((3, channels, len(SCALES)))

    def __call__(self, x: Array, *, learns: bool) -> Array:
        u = np.full(self.level.shape, np.nan)
        for c in np.flatnonzero(np.isfinite(x)).tolist():
            n = self.seen[c]
            if n == 0:
                self.level[c] = x[c]
            away = x[c] - self.level[c]  # (3,)
            self.smooth[c] += np.maximum(1 / SCALES, 1 / (n + 1)) * (away - self.smooth[c])
            least = 1e-9 + 1e-6 * abs(self.level[c, 0])
            u[c] = np.abs(self.smooth[c]) / (np.sqrt(self.variance[c]) + least) if n > 20 else 0.0
            gate = 1.0 if learns else 1 / (1 + (u[c] / HALVED) ** STEEPNESS)
            self.level[c] += max(1 / LEVEL, 1 / (n + 1)) * gate * away
            if n > 5:
                rate = max(1 / SPREAD, 1 / (n - 4)) * gate
                self.variance[c] += rate * (self.smooth[c] ** 2 - self.variance[c])
            self.seen[c] += 1
        return u


class DayView:
    """Distance of each channel from what it is at this time of day, at each scale: (C, 3)."""

    def __init__(self, channels: int) -> None:
        self.mean, self.variance, self.visits = np.zeros((3, channels, BINS))
        self.smooth = np.zeros((channels, len(SCALES)))
        self.seen, self.usual, self.recent, self.around = np.zeros((4, channels))

    def __call__(self, x: Array, phase: float) -> Array:
        u = np.full(self.smooth.shape, np.nan)
        at, off = int(phase * BINS) % BINS, phase * BINS % 1 - 0.5
        beside = (at + (1 if off > 0 else -1)) % BINS
        for c in np.flatnonzero(np.isfinite(x)).tolist():
            n = self.seen[c]
            if n == 0:
                self.recent[c] = x[c]
            rate, away = max(1 / LATELY, 1 / (n + 1)), x[c] - self.recent[c]
            self.recent[c] += rate * away
            self.around[c] = (1 - rate) * (self.around[c] + rate * away**2)
            least = 1e-9 + 1e-3 * (abs(self.recent[c]) + math.sqrt(self.around[c]))
            mean, variance = self.recent[c], self.around[c]
            if self.visits[c, at]:
                w = abs(off) if self.visits[c, beside] else 0.0
                mean = (1 - w) * self.mean[c, at] + w * self.mean[c, beside]
                variance = (1 - w) * self.variance[c, at] + w * self.variance[c, beside]
            residual, u[c] = x[c] - mean, 0.0
            if n > 5:
                rates = np.maximum(1 / SCALES, 1 / (n + 1))
                self.smooth[c] += rates * (residual - self.smooth[c])
                u[c] = np.abs(self.smooth[c]) / (math.sqrt(variance + 0.1 * self.usual[c]) + least)
            self._learn(c, at, x[c], least)
            most = 16 * self.usual[c] + least**2 if n > 50 else math.inf
            rate = max(1 / USUAL, 1 / (n + 1))
            self.usual[c] += rate * (min(residual**2, most) - self.usual[c])
            self.seen[c] += 1
        return u

    def _learn(self, c: int, at: int, x: float, least: float) -> None:
        away = x - self.mean[c, at]
        self.visits[c, at] += 1
        if self.visits[c, at] > TRUSTED:
            most = CLIP * math.sqrt(self.variance[c, at] + 0.3 * self.usual[c]) + least
            away = min(max(away, -most), most)
        rate = max(1 / self.visits[c, at], 1 / VISITS)
        self.variance[c, at] = (1 - rate) * (self.variance[c, at] + rate * away**2)
        self.mean[c, at] += rate * away


def pooled(u: Array) -> float:
    """(C, K) → the largest over K of the root mean square over the channels that are there."""
    counts = np.clip(u[np.isfinite(u[:, 0])], None, CAP) - DEAD
    return float(np.sqrt((np.maximum(counts, 0) ** 2).mean(0)).max()) if len(counts) else math.nan


class Rarity:
    """A surprise ≥ 0 → −log10 of how often it was as high before; NaN stays NaN."""

    def __init__(self) -> None:
        self.counts, self.total, self.length = np.zeros(PLACES), 0.0, 0.0

    def __call__(self, surprise: float) -> float:
        if math.isnan(surprise):
            return math.nan
        z = math.log(max(surprise, 1e-9))
        place = min(max((z - LOWEST) / STEP, 0.0), PLACES - 1e-3)
        k = int(place)
        above = self.counts[k] * (1 - (place - k)) + self.counts[k + 1 :].sum()
        from_top = self.counts[::-1].cumsum()[::-1]  # (64,) at or above each bin
        first = int(np.flatnonzero(from_top >= TAIL * self.total)[-1]) + 1  # of the tail
        beyond = self.counts[first:] @ ((np.arange(first, PLACES) + 0.5 - first) * STEP)
        slope = (beyond + SLOPE * PRIOR) / (self.counts[first:].sum() + PRIOR)
        high = LOWEST + first * STEP
        pareto = min(0.0, math.log(TAIL) - (z - high) / slope)
        score = -math.log10((above + math.exp(max(pareto, -80.0))) / (self.total + 1))
        weight = 1 / (1 + self.length)
        self.length = self.length + 1 if score > LONG else self.length * FADES
        keep = 1 - weight / MEMORY
        self.counts, self.total = self.counts * keep, self.total * keep + weight
        self.counts[k] += weight
        return score if z <= high else (1 - SHARE) * score - SHARE * pareto / math.log(10)


class Recipe:
    """One stream: x (C,), NaN = missing, and the phase of the day 0 … 1 → −log10 p."""

    def __init__(self, channels: int) -> None:
        self.level, self.day = LevelView(channels), DayView(channels)
        self.rarities = [Rarity() for _ in range(1 if channels > 1 else 2 * len(SCALES))]

    def __call__(self, x: Array, phase: float, *, learns: bool) -> float:
        u = np.concatenate([self.level(x, learns=learns), self.day(x, phase)], axis=1)  # (C, 6)
        if len(x) > 1:
            return self.rarities[0](1 + pooled(u))
        each = np.array([rarity(u[0, k]) for k, rarity in enumerate(self.rarities)])
        return float((each**4).mean() ** 0.25)
