"""SKAB's figures: alarms against labels row by row, and change points in windows behind them.

Katser and Kozitsin, 2020; the rules as in SKAB 0.9, whose leaderboard pools all files.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.benchmark.profiles import PROFILES, Profile
from edgernn.errors import EdgernnError
from edgernn.evaluation.quadrants import Quadrants, count

WINDOW_S = 60.0
"""Behind every true change point, in which it may be found."""
STEPS = 1000
"""In which the worth falls over a window, as in SKAB's scorer."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class JudgedFile(msgspec.Struct, frozen=True):
    """A detector's alarms of one file and its labels, over the rows that are scored."""

    name: str
    time_s: Floats
    """(T,) rising."""
    is_on: Bools
    """(T,) the alarm."""
    is_anomalous: Bools
    """(T,)"""
    is_changepoint: Bools
    """(T,)"""

    def __post_init__(self) -> None:
        back = np.flatnonzero(~(np.diff(self.time_s) > 0))
        if len(back):
            raise EdgernnError(
                f"{self.name}: expected times that rise, got {self.time_s[back[0] + 1]:.0f} s"
                f" after {self.time_s[back[0]]:.0f} s"
            )


class ChangeScore(msgspec.Struct, frozen=True, kw_only=True):
    profile: str
    score: float | None
    """0 = no detection, 100 = perfect. None without a change point."""
    changes: int
    found: int
    false: int
    """Flips of the alarm outside all windows."""
    mean_delay_s: float | None
    """Of those found, from the beginning of their windows."""


def point_wise(files: Iterable[JudgedFile]) -> Quadrants:
    """Rows of all files, pooled: F1, false-alarm rate and missed-alarm rate are its properties."""
    return reduce(
        Quadrants.__add__,
        (count(file.is_on, file.is_anomalous) for file in files),
        Quadrants(0, 0, 0, 0),
    )


def change_scores(files: Sequence[JudgedFile]) -> tuple[ChangeScore, ...]:
    """The three official figures, of the flips of the alarms."""
    return tuple(change_score(files, profile) for profile in PROFILES)


def change_score(files: Sequence[JudgedFile], profile: Profile) -> ChangeScore:
    points, changes, false = 0.0, 0, 0
    delays: list[float] = []
    for file in files:
        flips, windows = file.time_s[flipped(file.is_on)], change_windows(file)
        is_outside = np.ones(len(flips), bool)
        for start_s, end_s in windows:
            inside = (flips >= start_s) & (flips <= end_s)
            is_outside &= ~inside
            if not inside.any():
                points -= profile.miss
                continue
            delays.append(float(flips[inside][0] - start_s))
            points += worth(delays[-1] / (end_s - start_s), profile)
        changes += len(windows)
        false += int(is_outside.sum())
    points -= profile.false * false
    return ChangeScore(
        profile=profile.name,
        score=profile.normalise(points, windows=changes),
        changes=changes,
        found=len(delays),
        false=false,
        mean_delay_s=float(np.mean(delays)) if delays else None,
    )


def flipped(is_on: Bools) -> Bools:
    """(T,) rows where the alarm is another than one row before; before the first it was off."""
    return np.diff(is_on, prepend=False)


def change_windows(file: JudgedFile) -> list[tuple[float, float]]:
    """First and last second of every change point's window, both inside. One that begins within
    another begins where that one ends, which then belongs to both."""
    windows: list[tuple[float, float]] = []
    for time_s in file.time_s[file.is_changepoint].tolist():
        begin_s = max(time_s, windows[-1][1]) if windows else time_s
        windows.append((begin_s, time_s + WINDOW_S))
    return windows


def worth(place: float, profile: Profile) -> float:
    """Points of a change point that is found at this share of its window: `hit` at 0, down to
    −`false` at 1 along a hyperbolic tangent from −π/2 to π/2."""
    step = min(int(place * STEPS), STEPS - 1)
    x = math.pi * (step / (STEPS - 1) - 0.5)
    height = profile.hit + profile.false
    return height / 2 * (1 - math.tanh(x) / math.tanh(math.pi / 2)) - profile.false
