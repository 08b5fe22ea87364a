"""Long lines made short for drawing, without losing a single peak."""

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Floats = NDArray[np.floating]

COLUMNS = 800
"""Across a picture: what an eye can tell apart on a page."""
GAP = 1.5
"""Median intervals between two samples that no line shall join."""


def envelope(time_s: Times, y: Floats, *, columns: int = COLUMNS) -> tuple[Times, Floats]:
    """Times and values (T,) to draw as one line, at most 2 · `columns` of them where T is more.

    Every column becomes a stroke from its smallest to its largest value, so that a single wild
    sample in a week still shows. NaN, and columns without a sample, are gaps in the line.
    """
    if len(y) <= 2 * columns:
        return _broken(time_s, y)
    edges = np.linspace(time_s[0], time_s[-1], columns + 1)
    starts = np.searchsorted(time_s, edges[:-1])
    is_empty = np.diff(starts, append=len(y)) == 0
    starts = np.minimum(starts, len(y) - 1)
    low, high = np.fmin.reduceat(y, starts), np.fmax.reduceat(y, starts)  # (columns,)
    low[is_empty] = high[is_empty] = np.nan
    middle = (edges[:-1] + edges[1:]) / 2
    return (
        np.stack([edges[:-1], middle], axis=1).ravel(),
        np.stack([low, high], axis=1).ravel(),
    )


def pooled(y: Floats, *, columns: int) -> tuple[NDArray[np.intp], Floats]:
    """The mean of present values (T, C) in at most `columns` groups of neighbouring rows: where
    each group begins and the last one ends (≤ columns + 1,), means (≤ columns, C)."""
    edges = np.unique(np.linspace(0, len(y), min(columns, len(y)) + 1).astype(np.intp))
    is_present = np.isfinite(y)
    total = np.add.reduceat(np.where(is_present, y, 0.0), edges[:-1])
    count = np.add.reduceat(is_present.astype(np.intp), edges[:-1])
    return edges, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _broken(time_s: Times, y: Floats) -> tuple[Times, Floats]:
    """A NaN wherever samples are missing in between."""
    intervals = np.diff(time_s)
    if not len(intervals):
        return time_s, y
    jumps = np.flatnonzero(intervals > GAP * np.median(intervals)) + 1
    return np.insert(time_s, jumps, time_s[jumps]), np.insert(y, jumps, np.nan)
