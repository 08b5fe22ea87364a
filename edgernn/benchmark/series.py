"""What a benchmark gives a detector to see, and apart from it what only a scorer may look at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Times = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = tuple[int, int]
"""First row of a stretch, and the row after its last."""


@dataclass(frozen=True, slots=True)
class Series:
    """All that a detector may see of one file, rows in the order in which they arrived.

    The score of row t may use what may be learnt from and the rows up to t; no later row, and
    nothing that was computed from all rows.
    """

    name: str
    """Of the file inside the folder, ending in .csv whatever it was packed in."""
    channels: tuple[str, ...]
    period_s: float
    """Between samples: the median of what may be learnt from, or what is known of the set."""
    time_s: Times | None
    """(T,) seconds since 1970, UTC where the file names no zone. May repeat or go back; None where
    the files have no times."""
    x: Samples
    """(T, C) in the file's units, NaN = missing."""
    before: Samples
    """(B, C) rows of a training part, which came before `x`; none where B = 0."""
    first_rows: int
    """So many rows of `x` may be learnt from, without labels, before the first one is scored."""

    @property
    def learnable(self) -> Samples:
        """(L, C) what the protocol gives to learn from: the training part or the first rows."""
        return self.before if len(self.before) else self.x[: self.first_rows]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a series afterwards. Nothing that scores a row may read it."""

    is_anomalous: Bools
    """(T,) per row; where the set has windows: inside one."""
    windows: tuple[Rows, ...]
    """Labelled stretches in order, apart from each other."""
    scored_from: int
    """The first row that the official figures count: rows before it are probation or training."""
    is_changepoint: Bools | None = None
    """(T,) SKAB: the fault begins, has settled, begins to recede, is gone."""
    blamed: tuple[tuple[Rows, tuple[int, ...]], ...] = ()
    """SMD: stretches, and the channels (counted from 0) that were behind each."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A benchmark's folder, read."""

    benchmark: str
    protocol: str
    series: tuple[Series, ...]
    truths: tuple[Truth, ...]
    """One for each of `series`, in their order."""
    healthy: tuple[Series, ...] = ()
    """Fault-free runs that no official figure counts: to ask how often there are false alarms."""
