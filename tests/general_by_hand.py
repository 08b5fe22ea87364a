"""The general detector once more, as its description says it: float64, one channel, one sample."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Level:
    """One channel at one time scale."""

    def __init__(self, span: int) -> None:
        self.span = span
        self.n = 0
        self.m = self.f = self.v = 0.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self.v) + max(1e-6 * abs(self.m), 1e-9)

    def see(self, x: float, largest: float, guarded: float) -> float | None:
        """The surprise of a value, None where it is missing or none is said yet; `largest`
        residual; `guarded` 1 … 0."""
        if math.isnan(x):
            return None
        n = self.n
        if n == 0:
            self.m = x
        r = x - self.m
        if n > 20:
            r = max(min(r, largest), -largest)
        self.f += max(1 / self.span, 1 / (n + 1)) * (r - self.f)
        u = abs(self.f) / self.deviation
        if n <= 20:
            u = 0.0
        guard = 1 / (1 + guarded * (u / 2) ** 3) if n >= 400 else 1.0
        self.m += max(1 / 5000, 1 / (n + 1)) * guard * r
        if n > 5:
            self.v += max(1 / 10000, 1 / (n - 4)) * guard * (self.f**2 - self.v)
        self.n += 1
        return u if n > 20 else None


class Day:
    """One channel against its half hours."""

    def __init__(self) -> None:
        self.n = 0
        self.start = self.recent = self.around = self.usual = 0.0
        self.bins = [(0.0, 0.0, 0) for _ in range(48)]
        """Mean, variance, visits."""
        self.smooth = [0.0, 0.0, 0.0]

    def see(self, x: float, phase: float) -> list[float]:
        """The surprise of a value at each scale; phase of the day 0 … 1."""
        n, place = self.n, 48 * phase
        at = int(place)
        side = 1 if place - at > 0.5 else -1
        if n == 0:
            self.start, x = x, 0.0
        else:
            x -= self.start
        mean, variance, visits = self.bins[at]
        beside = self.bins[(at + side) % 48]
        expected, spread = (mean, variance) if visits else (self.recent, self.around)
        if visits and beside[2]:
            w = abs(place - at - 0.5)
            expected = (1 - w) * mean + w * beside[0]
            spread = (1 - w) * variance + w * beside[1]
        floor = max(1e-6 * abs(self.start + self.recent), 1e-3 * math.sqrt(self.around), 1e-9)
        deviation = math.sqrt(spread + 0.1 * self.usual) + floor
        most = 1000 * deviation if n > 20 else math.inf
        r = min(max(x - expected, -most), most)
        u = [0.0, 0.0, 0.0]
        if n > 20:
            for k, span in enumerate((1, 4, 16)):
                self.smooth[k] += max(1 / span, 1 / (n + 1)) * (r - self.smooth[k])
                u[k] = abs(self.smooth[k]) / deviation
        self.bins[at] = self.learnt(x, at, floor, most)
        square = min(r * r, 16 * self.usual + floor**2) if n > 50 else r * r
        self.usual += max(1 / 1000, 1 / (n + 1)) * (square - self.usual)
        rate, away = max(1 / 100, 1 / (n + 1)), min(max(x - self.recent, -most), most)
        self.recent += rate * away
        self.around = (1 - rate) * (self.around + rate * away**2)
        self.n += 1
        return u

    def learnt(self, x: float, at: int, floor: float, most: float) -> tuple[float, float, int]:
        """The bin with a value more."""
        mean, variance, visits = self.bins[at]
        if not visits:
            mean = self.recent
        if visits >= 12:
            most = 3 * math.sqrt(variance + 0.3 * self.usual) + floor
        q = min(max(x - mean, -most), most)
        rate = max(1 / (visits + 1), 1 / 200)
        return mean + rate * q, (1 - rate) * (variance + rate * q**2), visits + 1


def joined(surprise: list[float | None]) -> float:
    """Of all channels at one time scale."""
    known = [u for u in surprise if u is not None]
    if not known:
        return 0.0
    return math.sqrt(sum(max(min(u, 10) - 1.5, 0) ** 2 for u in known) / len(known))


WIDTH = math.log(1e6) / 64
BINS = 64
EDGES = [(j - 21.5) * WIDTH for j in range(BINS + 1)]
"""Of the histogram, in the logarithm of surprise."""


class Rank:
    """−log10 p of a surprise by those before it."""

    def __init__(self) -> None:
        self.counts = [0.0] * BINS
        self.excursion = 0.0

    def see(self, s: float) -> float:
        z = min(max(math.log(max(s, 1e-9)), EDGES[0]), EDGES[-1])
        n = sum(self.counts)
        above = sum(
            c * min(max((upper - z) / WIDTH, 0), 1)
            for c, upper in zip(self.counts, EDGES[1:], strict=True)
        )
        start, scale = self.tail()
        pareto = min(math.log(0.05) - (z - start) / scale, 0)
        y = -math.log10((above + math.exp(pareto)) / (n + 1))
        weight = 1 / (1 + self.excursion)
        place = min(max((z - EDGES[0]) / WIDTH - 0.5, 0), BINS - 1)
        for j in range(BINS):
            share = min(max((0.52 - abs(place - j)) / 0.04, 0), 1)
            self.counts[j] += weight * (share - self.counts[j] / 100_000)
        degree = min(max((y - 0.9) / 0.2, 0), 1)
        self.excursion = degree * (self.excursion + 1) + (1 - degree) * 0.95 * self.excursion
        inside = 0.3 * min(max((z - start) / WIDTH, 0), 1)
        return (1 - inside) * y - inside * pareto / math.log(10)

    def tail(self) -> tuple[float, float]:
        """Where 5 % are above, with 5 samples of the prior, and the mean of what is above it, with
        100."""
        high = math.log(3)
        counts = [
            c + 5 * max(min(upper, high) - max(lower, 0), 0) / high
            for c, lower, upper in zip(self.counts, EDGES, EDGES[1:], strict=False)
        ]
        everything = sum(counts)
        left, mass, start, parts = 0.05 * everything, 0.0, EDGES[-1], []
        for j in reversed(range(BINS)):
            share = min(max(left / (counts[j] + 0.001 * everything), 0), 1)
            parts.append((EDGES[j + 1] - share * WIDTH / 2, share * counts[j]))
            mass += share * counts[j]
            start -= share * WIDTH
            left -= counts[j]
        excess = sum(weight * (middle - start) for middle, weight in parts)
        return start, max((excess + 100 * 0.2) / (mass + 100), 0.02)


def scores(x: Array, *, day: float) -> Array:
    """x (T, C), NaN = missing; `day` samples a day → (T,), NaN where nothing was observed."""
    channels = x.shape[1]
    levels = [[Level(span) for _ in range(channels)] for span in (1, 4, 16)]
    days = [Day() for _ in range(channels)]
    ranks = [Rank() for _ in range(6 if channels == 1 else 1)]
    said = []
    for t, sample in enumerate(x):
        guarded = min(max(2 - max(rank.excursion for rank in ranks) / 20_000, 0), 1)
        largest = [1000 * level.deviation for level in levels[0]]
        surprise = [
            [
                level.see(float(value), most, guarded)
                for level, value, most in zip(row, sample, largest, strict=True)
            ]
            for row in levels
        ]
        of_day = [
            [None] * 3 if np.isnan(value) else day_.see(float(value), t % day / day)
            for day_, value in zip(days, sample, strict=True)
        ]
        is_known = [u is not None for u in surprise[0]]
        for k in range(3):
            surprise.append([u[k] if ok else None for u, ok in zip(of_day, is_known, strict=True)])
        if np.isnan(sample).all():
            said.append(math.nan)
        elif not any(is_known):
            said.append(0.0)
        else:
            alone = channels == 1
            s = [row[0] or 0.0 for row in surprise] if alone else [1 + max(map(joined, surprise))]
            y = [rank.see(one) for rank, one in zip(ranks, s, strict=True)]
            said.append(float(np.mean(np.array(y) ** 4) ** 0.25))
    return np.array(said)
