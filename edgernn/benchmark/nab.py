"""NAB's score: detections in and around labelled windows, one threshold for a whole corpus.

Lavin and Ahmad, ICMLA 2015; the rules of a single row as in the scorer of NAB 1.1.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.benchmark.profiles import PROFILES, Profile
from edgernn.errors import EdgernnError

PROBATION, LONGEST_FILE = 0.15, 5000
"""Share of a file's rows in which nothing is scored; of this many rows at most."""
WINDOW = 0.10
"""Share of a file's rows that its windows cover together, where only single rows are labelled."""
FAR_BEHIND = 3.0
"""Window widths from which on a false alarm costs in full."""
NEVER = math.inf
"""The threshold that no row reaches."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Window = tuple[int, int]
"""First row, and the row after the last."""


class ScoredFile(msgspec.Struct, frozen=True):
    """A detector's scores of one file, and where its anomalies are."""

    name: str
    score: Floats
    """(T,) NaN = never a detection."""
    windows: tuple[Window, ...]

    def __post_init__(self) -> None:
        free = 0
        for start, end in self.windows:
            if not free <= start < end <= len(self.score):
                raise EdgernnError(
                    f"{self.name}: expected windows in order and apart within"
                    f" {len(self.score)} rows, got rows {start} to {end - 1}"
                )
            free = end

    @property
    def scored_windows(self) -> tuple[Window, ...]:
        """Those with at least one row after the probation; others count nowhere."""
        begin = probation(len(self.score))
        return tuple((start, end) for start, end in self.windows if end > begin)


class FilePoints(msgspec.Struct, frozen=True, kw_only=True):
    """What one file adds to a corpus's score at one threshold."""

    name: str
    points: float
    """Before normalising: the sum over all files is what counts."""
    windows: int
    found: int
    """Windows with a detection."""
    false: int
    """Rows that are detections outside windows."""


class NabScore(msgspec.Struct, frozen=True, kw_only=True):
    profile: str
    score: float | None
    """0 = no detection, 100 = perfect. None without a window."""
    threshold: float
    """A row is a detection when `score >= threshold`; inf = none is."""
    files: tuple[FilePoints, ...]


def probation(rows: int) -> int:
    """Rows at the beginning of a file in which nothing is scored."""
    return int(min(math.floor(PROBATION * rows), PROBATION * LONGEST_FILE))


def windows_around(labelled: Iterable[int], rows: int) -> tuple[Window, ...]:
    """Single labelled rows → windows as NAB's labeller draws them: around each row, a tenth of the
    file shared out among them, joined where they overlap, none that begins in the probation."""
    at = sorted(labelled)
    if at and not 0 <= at[0] <= at[-1] < rows:
        raise EdgernnError(f"expected labelled rows from 0 to {rows - 1}, got {at[0]} to {at[-1]}")
    reach = int(WINDOW * rows / len(at)) // 2 if at else 0
    windows: list[Window] = []
    for row in at:
        start, end = max(row - reach, 0), min(row + reach + 1, rows)
        if start < probation(rows):
            continue
        if windows and start < windows[-1][1]:
            start = windows.pop()[0]
        windows.append((start, end))
    return tuple(windows)


def nab_scores(files: Sequence[ScoredFile]) -> tuple[NabScore, ...]:
    """The three official figures of a corpus, each at its own best threshold."""
    return tuple(score_at(files, profile, best_threshold(files, profile)) for profile in PROFILES)


def best_threshold(files: Sequence[ScoredFile], profile: Profile) -> float:
    """The one threshold with the most points over all files; of equals the highest. It looks at the
    labels, as the official protocol does."""
    if not files:
        raise EdgernnError("expected the scores of at least one file, got none")
    scores, gains = zip(*(_gains(file, profile) for file in files), strict=True)
    score = np.concatenate(scores)
    order = np.argsort(-score, kind="stable")
    score = np.append(NEVER, score[order])
    points = np.append(0.0, np.cumsum(np.concatenate(gains)[order]))  # more than the null detector
    is_whole = np.append(score[1:] != score[:-1], True)  # all rows of one score together
    return float(score[is_whole][np.argmax(points[is_whole])])


def score_at(files: Sequence[ScoredFile], profile: Profile, threshold: float) -> NabScore:
    """A corpus's score at a given threshold: also of alerts, as scores 0 and 1 and threshold 1."""
    each = tuple(_points(file, profile, threshold) for file in files)
    points, windows = sum(one.points for one in each), sum(one.windows for one in each)
    score = profile.normalise(points, windows=windows)
    return NabScore(profile=profile.name, score=score, threshold=threshold, files=each)


def scaled_sigmoid(y: Floats) -> Floats:
    """Worth at y window widths from a window's right edge: 0.987 at −1, 0 there, −1 far behind."""
    worth: Floats = 2.0 / (1.0 + np.exp(5.0 * np.minimum(y, FAR_BEHIND))) - 1.0
    return np.where(y >= FAR_BEHIND, -1.0, worth)


def _worth(file: ScoredFile) -> tuple[Floats, Bools]:
    """(T,) what a detection at each row is worth, ≥ 0 as a share of a hit, < 0 of a false alarm;
    and whether the row lies outside windows."""
    row = np.arange(len(file.score))
    y, is_outside = np.full(len(row), FAR_BEHIND), np.ones(len(row), bool)
    for start, end in file.windows:  # each overwrites what stands behind it
        wide, behind = end - start, row[end:] - end + 1
        # a window of one row has no width to measure by: behind it everything is far
        y[end:] = behind / (wide - 1) if wide > 1 else FAR_BEHIND
        y[start:end] = (row[start:end] - end) / wide
        is_outside[start:end] = False
    most = scaled_sigmoid(np.array([-1.0]))
    return np.where(is_outside, scaled_sigmoid(y), scaled_sigmoid(y) / most), is_outside


def _points(file: ScoredFile, profile: Profile, threshold: float) -> FilePoints:
    worth, is_outside = _worth(file)
    is_on = file.score >= threshold
    is_on[: probation(len(is_on))] = False
    points = profile.false * float(worth[is_on & is_outside].sum())
    found = 0
    for start, end in file.scored_windows:
        hits = np.flatnonzero(is_on[start:end])
        points += profile.hit * worth[start + hits[0]] if len(hits) else -profile.miss
        found += len(hits) > 0
    return FilePoints(
        name=file.name,
        points=float(points),
        windows=len(file.scored_windows),
        found=found,
        false=int((is_on & is_outside).sum()),
    )


def _gains(file: ScoredFile, profile: Profile) -> tuple[Floats, Floats]:
    """Scores of rows (R,), and what the points grow by as the threshold sinks to each of them."""
    worth, is_outside = _worth(file)
    may_count = ~np.isnan(file.score)
    may_count[: probation(len(may_count))] = False
    false = np.flatnonzero(may_count & is_outside)
    rows, gains = [false], [profile.false * worth[false]]
    for start, end in file.scored_windows:
        inside = start + np.flatnonzero(may_count[start:end])
        inside = inside[np.argsort(-file.score[inside], kind="stable")]
        best = np.maximum.accumulate(np.append(-profile.miss, profile.hit * worth[inside]))
        rows.append(inside)
        gains.append(np.diff(best))
    return file.score[np.concatenate(rows)], np.concatenate(gains)
