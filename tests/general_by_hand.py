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

    def see(self, x: float, largest: float) -> float | None:
        """The surprise of a value, None where it is missing or none is said yet; `largest`
        residual."""
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
        guard = 1 / (1 + (u / 2) ** 3) if n >= 400 else 1.0
        self.m += max(1 / 5000, 1 / (n + 1)) * guard * r
        if n > 5:
            self.v += max(1 / 10000, 1 / (n - 4)) * guard * (self.f**2 - self.v)
        self.n += 1
        return u if n > 20 else None


def joined(surprise: list[float | None]) -> float:
    """Of all channels at one time scale."""
    known = [u for u in surprise if u is not None]
    if not known:
        return 0.0
    return math.sqrt(sum(max(min(u, 10) - 1.5, 0) ** 2 for u in known) / len(known))


WIDTH = math.log(1e6) / 64
EDGES = [(j - 1 / 3) * WIDTH for j in range(13)]
"""Of the histogram, in the logarithm of surprise."""


class Rank:
    """−log10 p of a surprise by those before it."""

    def __init__(self) -> None:
        self.counts = [0.0] * 12
        self.excursion = 0.0

    def see(self, s: float) -> float:
        z = math.log(s)
        n = sum(self.counts)
        above = sum(
            c * min(max((upper - z) / WIDTH, 0), 1)
            for c, upper in zip(self.counts, EDGES[1:], strict=True)
        )
        start, scale = self.tail()
        pareto = min(math.log(0.05) - (z - start) / scale, 0)
        y = -math.log10((above + math.exp(pareto)) / (n + 1))
        weight = 1 / (1 + self.excursion)
        place = min(max((z - EDGES[0]) / WIDTH - 0.5, 0), 11)
        for j in range(12):
            share = max(1 - abs(place - j), 0)
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
        for j in reversed(range(12)):
            share = min(max(left / (counts[j] + 0.001 * everything), 0), 1)
            parts.append((EDGES[j + 1] - share * WIDTH / 2, share * counts[j]))
            mass += share * counts[j]
            start -= share * WIDTH
            left -= counts[j]
        excess = sum(weight * (middle - start) for middle, weight in parts)
        return start, max((excess + 100 * 0.2) / (mass + 100), 0.02)


def scores(x: Array) -> Array:
    """x (T, C), NaN = missing → (T,), NaN where nothing was observed."""
    levels = [[Level(span) for _ in x[0]] for span in (1, 4, 16)]
    rank = Rank()
    said = []
    for sample in x:
        largest = [100 * level.deviation for level in levels[0]]
        surprise = [
            [
                level.see(float(value), most)
                for level, value, most in zip(row, sample, largest, strict=True)
            ]
            for row in levels
        ]
        if np.isnan(sample).all():
            said.append(math.nan)
        elif all(u is None for u in surprise[0]):
            said.append(0.0)
        else:
            said.append(rank.see(1 + max(map(joined, surprise))))
    return np.array(said)
