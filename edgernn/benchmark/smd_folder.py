"""Folders of the Server Machine Dataset (Su et al., KDD 2019), or laid out like it."""

import re
from pathlib import Path

from edgernn.benchmark.folder import (
    Read,
    corpus_of,
    either,
    series_of,
    tsb_ad_rows,
    windows_of,
)
from edgernn.benchmark.series import Corpus, Rows, Samples, Truth
from edgernn.benchmark.table import Table
from edgernn.errors import EdgernnError
from edgernn.recording import read_bytes

PERIOD_S = 60.0
SUFFIXES = (".csv.gz", ".csv", ".txt")
"""OmniAnomaly names its comma-separated files .txt."""


def read_smd(folder: Path) -> Corpus:
    """train/, test/, test_label/ with a file for each machine, no header, no times; and, where it
    is there, interpretation_label/. The train half is to learn from, all of the test half scored.
    """
    return corpus_of("smd", "official", [_machine(folder, m) for m in _machines(folder)])


def read_smd_as_tsb_ad(folder: Path) -> Corpus:
    """The test halves alone: their first rows are to learn from, and all are scored."""
    return corpus_of("smd", "tsb-ad", [_first_rows(folder, m) for m in _machines(folder)])


def _first_rows(folder: Path, machine: str) -> Read:
    whole, truth = _machine(folder, machine)
    rows = tsb_ad_rows(truth.is_anomalous, whole.name)
    series = series_of(
        whole.name,
        whole.channels,
        None,
        whole.x,
        period_s=PERIOD_S,
        path=_path(folder / "test", machine),
        first_rows=rows,
    )
    return series, truth


def _machines(folder: Path) -> list[str]:
    test = folder / "test"
    names = {_stem(path) for path in test.glob("*") if path.name.endswith(SUFFIXES)}
    if not names:
        raise EdgernnError(
            f"{test}: expected a file for each machine, in {either(SUFFIXES)}; found none"
        )
    return sorted(names)


def _machine(folder: Path, machine: str) -> Read:
    train, test, labels = (
        Table(_path(folder / part, machine), has_header=False)
        for part in ("train", "test", "test_label")
    )
    if len(train.titles) != len(test.titles):
        raise EdgernnError(
            f"{test.path}: {len(test.titles)} columns, but {len(train.titles)} in {train.path}"
        )
    if len(labels) != len(test) or len(labels.titles) != 1:
        raise EdgernnError(
            f"{labels.path}: expected one label for each of {len(test)} rows,"
            f" got {len(labels)} rows of {len(labels.titles)}"
        )
    anomalous = labels.flags(labels.titles[0])
    channels = tuple(str(place + 1) for place in range(len(test.titles)))
    x, before = test.samples(test.titles), train.samples(train.titles)
    series = series_of(
        f"{machine}.csv", channels, None, x, period_s=PERIOD_S, path=train.path, before=before
    )
    blamed = _blamed(folder / "interpretation_label" / f"{machine}.txt", x)
    return series, Truth(anomalous, windows_of(anomalous), 0, blamed=blamed)


def _path(folder: Path, machine: str) -> Path:
    for suffix in SUFFIXES:
        if (path := folder / f"{machine}{suffix}").exists():
            return path
    raise EdgernnError(f"{folder}: expected {machine} in {either(SUFFIXES)}, found none")


def _blamed(path: Path, x: Samples) -> tuple[tuple[Rows, tuple[int, ...]], ...]:
    """Lines "first-end:channel,channel,…": rows from 0, the end not inside; channels from 1."""
    if not path.exists():
        return ()
    found = []
    for line, text in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), start=1):
        if not text.strip():
            continue
        said = re.fullmatch(r"(\d+)-(\d+):(\d+(?:,\d+)*)", text.strip())
        start, end = (int(said[1]), int(said[2])) if said else (0, 0)
        channels = [int(channel) for channel in said[3].split(",")] if said else []
        if not (start < end <= len(x) and all(0 < c <= x.shape[1] for c in channels)):
            raise EdgernnError(
                f"{path}: line {line}: expected first-end:channel,… within {len(x)} rows and"
                f' {x.shape[1]} channels, got "{text}"'
            )
        found.append(((start, end), tuple(channel - 1 for channel in channels)))
    return tuple(found)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
