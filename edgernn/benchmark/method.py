"""What turns a series into scores and alarms: the seam between a benchmark and what it measures."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgernn.benchmark.series import Bools, Series, Times
from edgernn.errors import EdgernnError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Said:
    """What a method says of a series, row by row; row t without knowledge of any later row."""

    score: Floats
    """(T,) ≥ 0, higher is more anomalous; NaN = nothing is known."""
    threshold: float
    """The score at which an alarm goes on, > 0: of what was learnt from, never of labels."""
    is_on: Bools
    """(T,) whether the alarm is on."""
    asked_per_s: float
    """Alarms per second on healthy data that the threshold is for; inf = as many as there are."""
    silent_rows: int = 0
    """First rows of which nothing is said: the method was still learning."""
    parts: Floats | None = None
    """(T, C) ≥ 0, what each channel has in the score, where the method knows."""
    told: Floats | None = None
    """(T,) the score where it is news by the method's own quiet after an alert, whatever the
    threshold, and 0 elsewhere; None = the method has none."""
    note: str = ""
    """What somebody who reads the figures has to know."""


def nothing(series: Series, *, threshold: float, asked_per_s: float, note: str) -> Said:
    """What a method says that knows nothing of any row; the note says why."""
    rows = len(series.x)
    return Said(np.full(rows, np.nan), threshold, np.zeros(rows, bool), asked_per_s, note=note)


class Method(Protocol):
    """A detector, or a plain method beside it. Goes from process to process, so it is data."""

    @property
    def name(self) -> str:
        """In tables and file names."""

    @property
    def fewest_rows(self) -> int:
        """That it has to learn from."""

    def judge(self, series: Series) -> Said:
        """Learn from `series.learnable`, then say something of every row of `series.x`."""


def ask(method: Method, series: Series) -> Said:
    """What the method says. Where the protocol gives it fewer rows than it needs, it goes on to
    learn from those that follow, and is silent until then. Raises EdgernnError, with the series'
    name, where there are not so many."""
    try:
        rows = _rows_needed(method, series)
        said = method.judge(replace(series, first_rows=rows) if rows else series)
    except EdgernnError as exc:
        raise EdgernnError(f"{series.name}: {exc}") from exc
    if not rows:
        return said
    learning = np.arange(len(series.x)) < rows
    return replace(
        said,
        score=np.where(learning, np.nan, said.score),
        is_on=said.is_on & ~learning,
        told=None if said.told is None else np.where(learning, 0.0, said.told),
        silent_rows=rows,
    )


def _rows_needed(method: Method, series: Series) -> int:
    """First rows of `x` to learn from where the protocol gives too few, else 0."""
    given, rows = len(series.learnable), method.fewest_rows
    if given >= rows:
        return 0
    if len(series.before) or rows >= len(series.x):
        there = given if len(series.before) else len(series.x)
        raise EdgernnError(f"{method.name} needs {rows} rows to learn from, and there are {there}")
    return rows


def rising_times(series: Series) -> Times:
    """(B + T,) of the rows of `before` and `x`: times of their arrival, which never go back.

    Where the file's times repeat or go back (daylight saving), a row comes half a period after the
    one before it, as the agent has it for samples without a time of their own. `before` has no
    times: its rows come a period apart, and so do all where the file has none.
    """
    before, period_s = len(series.before), series.period_s
    if series.time_s is None:
        return np.arange(before + len(series.x), dtype=np.float64) * period_s
    time_s = series.time_s.tolist()
    for row in range(1, len(time_s)):
        if time_s[row] <= time_s[row - 1]:
            time_s[row] = time_s[row - 1] + period_s / 2
    earlier_s = [time_s[0] + row * period_s for row in range(-before, 0)]
    return np.array([*earlier_s, *time_s])
