"""What a method says → what a score file has, and every figure is computed from."""

import numpy as np
from numpy.typing import NDArray

from edgernn.benchmark.method import Said
from edgernn.benchmark.series import Bools

Floats = NDArray[np.float64]

TINY = float(np.finfo(np.float32).tiny)
DIGITS = 12
"""Behind the point: more than two neighbouring float32 scores need to stay apart."""


def anomaly_score(said: Said, *, quiet: int = 0) -> Floats:
    """(T,) in 0 … 1, 0.5 where an alarm goes on: s / (s + threshold), which keeps the order of any
    two scores, and needs nothing of later rows.

    Where nothing is known the last score stands, 0 before the first: a missing sample neither
    alarms nor ends an alarm. With `quiet` a score counts only if it is news, and is 0 else: by the
    method's own measure where it has one, or higher than all of so many rows before it.
    """
    if quiet and said.told is not None:
        return _shared(said.told, said.threshold)
    score = _shared(held(said.score), said.threshold)
    return _news(score, quiet) if quiet else score


def _shared(score: Floats, threshold: float) -> Floats:
    shared: Floats = np.round(score / (score + max(threshold, TINY)), DIGITS)
    return shared


def onsets(is_on: Bools) -> Bools:
    """(T,) rows with which an alarm goes on."""
    risen: Bools = np.diff(is_on, prepend=False) & is_on
    return risen


def held(score: Floats) -> Floats:
    """(T,) with the last known score where there is none, 0 before the first."""
    place = np.where(np.isfinite(score), np.arange(len(score)), -1)
    last = np.maximum.accumulate(place)
    return np.where(last >= 0, score[last], 0.0)


def _news(score: Floats, quiet: int) -> Floats:
    """(T,) 0 wherever one of the `quiet` rows before is as high."""
    before = np.concatenate([np.zeros(quiet), score[:-1]])
    highest = np.lib.stride_tricks.sliding_window_view(before, quiet).max(axis=1)
    return np.where(score > highest, score, 0.0)
