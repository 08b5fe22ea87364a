"""What the readers of benchmark folders share: which files there are, and what makes a series."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgernn.benchmark.series import Bools, Corpus, Rows, Samples, Series, Times, Truth
from edgernn.benchmark.table import Table
from edgernn.errors import EdgernnError
from edgernn.spans import runs

TSB_AD_SHARE, TSB_AD_APART = 4, 100
"""TSB-AD's training part: a quarter of the rows, and at least 100 rows before the first anomaly.
This gives the 16,165 rows of GECCO and 5,923 of SMD's machine-2-1 that its file names state."""

Read = tuple[Series, Truth]


def series_of(
    name: str,
    channels: tuple[str, ...],
    time_s: Times | None,
    x: Samples,
    *,
    period_s: float,
    path: Path,
    before: Samples | None = None,
    first_rows: int = 0,
) -> Series:
    """Refuses one with less than two rows to learn from, `path` being the file that lacks them."""
    before = np.empty((0, x.shape[1]), np.float32) if before is None else before
    _require_rows(max(len(before), first_rows), path)
    return Series(name, channels, period_s, time_s, x, before, first_rows)


def period_of(learnt_s: Times, path: Path) -> float:
    """The median interval of the times (L,) of what may be learnt from, in seconds."""
    _require_rows(len(learnt_s), path)
    period_s = float(np.median(np.diff(learnt_s)))
    if period_s <= 0:
        raise EdgernnError(
            f"{path}: expected times that go on from row to row, got {period_s:g} s between rows"
        )
    return period_s


def corpus_of(
    benchmark: str, protocol: str, read: Sequence[Read], *, healthy: tuple[Series, ...] = ()
) -> Corpus:
    series, truths = zip(*read, strict=True)
    return Corpus(benchmark, protocol, series, truths, healthy)


def tsb_ad_rows(anomalous: Bools, name: str) -> int:
    """How many of the first rows TSB-AD gives to learn from, of labels (T,)."""
    if not anomalous.any():
        raise EdgernnError(f"{name}: expected at least one anomaly, its labels have none")
    return max(min(len(anomalous) // TSB_AD_SHARE, int(np.argmax(anomalous)) - TSB_AD_APART), 0)


def windows_of(anomalous: Bools) -> tuple[Rows, ...]:
    """The stretches of True in (T,)."""
    starts, ends = runs(anomalous)
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def channels_of(table: Table, *others: str) -> tuple[str, ...]:
    """The titles that are none of `others`."""
    channels = tuple(title for title in table.titles if title not in others)
    if not channels:
        raise EdgernnError(f"{table.path}: expected a column for each sensor, found none")
    return channels


def csv_files(folder: Path, *patterns: str) -> list[Path]:
    """The files of these patterns, numbers in their names in order of their size."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    if not paths:
        raise EdgernnError(f"{folder}: expected files {either(patterns)}, found none")
    return sorted(paths, key=lambda path: _natural(path.relative_to(folder).as_posix()))


def either(words: Iterable[str]) -> str:
    return " or ".join(words)


def _require_rows(learnt: int, path: Path) -> None:
    if learnt < 2:
        raise EdgernnError(f"{path}: expected at least 2 rows to learn from, got {learnt}")


def _natural(name: str) -> list[tuple[str, int]]:
    """ "10.csv" comes after "9.csv"."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
