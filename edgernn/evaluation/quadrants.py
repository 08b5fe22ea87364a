"""Rows that alarm against rows that are faulty: the four counts, and their shares."""

import msgspec
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


class Quadrants(msgspec.Struct, frozen=True):
    """Every share is None where there is nothing to count, never 0."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: "Quadrants") -> "Quadrants":
        """Rows of both, pooled."""
        return Quadrants(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def precision(self) -> float | None:
        return share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        return share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        return share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def false_alarm_rate(self) -> float | None:
        """FP / (FP + TN)."""
        return share(self.fp, self.fp + self.tn)

    @property
    def missed_alarm_rate(self) -> float | None:
        """FN / (FN + TP)."""
        return share(self.fn, self.fn + self.tp)


def count(is_on: Bools, faulty: Bools) -> Quadrants:
    """Alarm (T,) against label (T,), row by row."""
    pairs = ((is_on, faulty), (is_on, ~faulty), (~is_on, faulty), (~is_on, ~faulty))
    return Quadrants(*(int((a & b).sum()) for a, b in pairs))


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
