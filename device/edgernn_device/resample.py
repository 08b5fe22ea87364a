"""Samples at any times → rows a period apart, each from samples not later than it. No clock.

Rows stand at whole periods since 1970, whatever the first sample's time was: a stream that is
resumed gets the rows it would have had.
"""

import math
from collections.abc import Sequence

import msgspec

RULES = ("off", "last", "mean")
"""How samples are brought onto the period; off = each sample is a row."""
SLACK = 1e-3
"""Share of a period by which a time may miss its row: clocks that count in floats do."""


class ResamplerMemory(msgspec.Struct, frozen=True, array_like=True):
    """All that a `Resampler` knows, to be kept."""

    column: int | None
    values: list[float]
    count: list[int]
    last_s: list[float]


class Resampler:
    """The row of time t is made of the samples after t − period, up to and with t.

    "last": each channel's last value, which stands for `hold_s` where none comes. "mean": the mean
    of what was observed. A row comes out with the first sample that is not before its time.
    """

    __slots__ = ("_column", "_count", "_hold_s", "_last_s", "_mean", "_period_s", "_values")

    def __init__(self, rule: str, *, period_s: float, hold_s: float) -> None:
        self._mean = rule == "mean"
        self._period_s = period_s
        self._hold_s = hold_s
        self.reset()

    def reset(self) -> None:
        """Forget the row that was being made, and what stood."""
        self._column: int | None = None  # of the row being made, in periods since 1970
        self._values: list[float] = []  # C: sums, or the last values
        self._count: list[int] = []  # C: how many are in a sum
        self._last_s: list[float] = []  # C: when the last values were observed

    def add(self, time_s: float, x: Sequence[float]) -> list[tuple[float, list[float]]]:
        """The rows that are complete with this sample, (time, C values): mostly none or one.

        Times must rise from call to call. Rows without any value are left out.
        """
        column = math.ceil(time_s / self._period_s - SLACK)
        rows = []
        if self._column is None:
            self._values = [math.nan] * len(x)
            self._last_s = [-math.inf] * len(x)
            self._count = [0] * len(x)
            self._column = column
        while self._column < column:
            row = self._close()
            if all(value != value for value in row[1]):
                self._column = column
                break
            rows.append(row)
        self._take(time_s, x)
        if time_s >= (column - SLACK) * self._period_s and column == self._column:
            rows.append(self._close())
        return rows

    def remember(self) -> ResamplerMemory:
        """What `recall` takes."""
        return ResamplerMemory(self._column, self._values, self._count, self._last_s)

    def recall(self, memory: ResamplerMemory) -> None:
        """Be as the one was that `memory` is of."""
        self._column, self._values = memory.column, list(memory.values)
        self._count, self._last_s = list(memory.count), list(memory.last_s)

    def _take(self, time_s: float, x: Sequence[float]) -> None:
        for c, value in enumerate(x):
            if value != value:
                continue
            self._values[c] = self._values[c] + value if self._count[c] and self._mean else value
            self._count[c] += 1
            self._last_s[c] = time_s

    def _close(self) -> tuple[float, list[float]]:
        """The row being made; the next one begins."""
        assert self._column is not None
        row_s = self._column * self._period_s
        if self._mean:
            row = [
                value / count if count else math.nan
                for value, count in zip(self._values, self._count, strict=True)
            ]
        else:
            stands_from_s = row_s - self._hold_s - SLACK * self._period_s
            row = [
                value if last_s >= stands_from_s or count else math.nan
                for value, last_s, count in zip(
                    self._values, self._last_s, self._count, strict=True
                )
            ]
        self._count = [0] * len(row)
        self._column += 1
        return row_s, row
