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
    return math.sqrt(sum(max(min(u, 10) - 1, 0) ** 2 for u in known) / len(known))


class Rank:
    """−log10 p of a surprise by those before it."""

    def __init__(self) -> None:
        self.edges = [0.01 * 1000 ** (j / 32) for j in range(33)]
        self.counts = [0.0] * 32
        self.excursion = 0.0

    def see(self, s: float) -> float:
        z = math.log(min(max(s, 0.01), 10))
        edges = [math.log(edge) for edge in self.edges]
        width = edges[1] - edges[0]
        n = sum(self.counts)
        above = sum(
            c * min(max((edges[j + 1] - z) / width, 0), 1) for j, c in enumerate(self.counts)
        )
        start, scale = self.tail(edges, width)
        p = (above + min(1.0, 0.05 * math.exp(-max(z - start, -1e3) / scale))) / (n + 1)
        y = max(-math.log10(p), 0.0)
        weight = 1 / (1 + self.excursion)
        place = min(max((z - edges[0]) / width - 0.5, 0), 31)
        for j in range(32):
            share = max(1 - abs(place - j), 0)
            self.counts[j] += weight * (share - self.counts[j] / 20000)
        degree = min(max((y - 1.2) / 0.2, 0), 1)
        self.excursion = degree * (self.excursion + 1) + (1 - degree) * 0.9 * self.excursion
        return y

    def tail(self, edges: list[float], width: float) -> tuple[float, float]:
        """Where 5 % are above, and the mean of what is above it, with 5 samples of the prior."""
        low, high = math.log(0.5), math.log(2)
        counts = [
            c + 5 * max(min(edges[j + 1], high) - max(edges[j], low), 0) / (high - low)
            for j, c in enumerate(self.counts)
        ]
        everything = sum(counts)
        left, mass, start, parts = 0.05 * everything, 0.0, edges[-1], []
        for j in reversed(range(32)):
            share = min(max(left / (counts[j] + 0.001 * everything), 0), 1)
            parts.append((edges[j + 1] - share * width / 2, share * counts[j]))
            mass += share * counts[j]
            start -= share * width
            left -= counts[j]
        excess = sum(weight * (middle - start) for middle, weight in parts)
        return start, max((excess + 5 * 0.2) / (mass + 5), 0.05)


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
            said.append(rank.see(max(map(joined, surprise))))
    return np.array(said)
