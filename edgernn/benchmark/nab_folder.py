"""Folders of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015; v1.1), or laid out like it."""

from collections.abc import Container, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from edgernn.benchmark.folder import Read, corpus_of, csv_files, period_of, series_of
from edgernn.benchmark.nab import probation
from edgernn.benchmark.series import Corpus, Rows, Times, Truth
from edgernn.benchmark.table import Table
from edgernn.errors import EdgernnError
from edgernn.recording import read_bytes
from edgernn.times import parse_time

Windows = dict[str, list[tuple[str, str]]]
"""First and last time of each, by file."""


def read_nab(folder: Path) -> Corpus:
    """data/…/*.csv with the columns timestamp and value, labels/combined_windows.json.

    Nothing to learn from but the file itself, from its first row; its first 15 %, at most 750 rows,
    are a probation that is not scored.
    """
    labels = folder / "labels" / "combined_windows.json"
    files = {
        path.relative_to(folder / "data").as_posix(): path
        for path in csv_files(folder, "data/**/*.csv")
    }
    try:
        windows = msgspec.json.decode(read_bytes(labels), type=Windows)
    except msgspec.MsgspecError as exc:
        raise EdgernnError(f"{labels}: expected lists of windows by file: {exc}") from exc
    windows = _by_name(windows, files, labels)
    if unlabelled := sorted(set(files) - set(windows)):
        raise EdgernnError(
            f'{labels}: no windows for data/{unlabelled[0]}; expected a key "{unlabelled[0]}", '
            "[] if it has none"
        )
    if absent := sorted(set(windows) - set(files)):
        raise EdgernnError(f"{labels}: windows of {absent[0]}, which is not in {folder / 'data'}")
    read = [_file(name, path, windows[name], labels) for name, path in sorted(files.items())]
    return corpus_of("nab", "official", read)


def _by_name(windows: Windows, files: Container[str], labels: Path) -> Windows:
    """With paths below data/, also where they were given from the folder itself."""
    found: Windows = {}
    for key, places in windows.items():
        name = key if key in files else key.removeprefix("data/")
        if name in found:
            raise EdgernnError(f"{labels}: windows of {name} twice")
        found[name] = places
    return found


def _file(name: str, path: Path, windows: Sequence[tuple[str, str]], labels: Path) -> Read:
    table = Table(path)
    table.require("timestamp", "value")
    if others := [title for title in table.titles if title not in ("timestamp", "value")]:
        raise EdgernnError(
            f"{path}: expected columns timestamp and value, got {others[0]!r} beside them; several "
            "channels: SKAB's layout"
        )
    time_s, x = table.times("timestamp"), table.samples(["value"])
    first_rows = probation(len(x))
    places = sorted(_window(window, time_s, f"{labels}: {name}") for window in windows)
    for (_, end), (start, _) in pairwise(places):
        if start < end:
            raise EdgernnError(f"{labels}: {name}: two windows that overlap")
    series = series_of(
        name,
        ("value",),
        time_s,
        x,
        period_s=period_of(time_s[:first_rows], path),
        path=path,
        first_rows=first_rows,
    )
    inside = np.zeros(len(x), bool)
    for start, end in places:
        inside[start:end] = True
    return series, Truth(inside, tuple(places), first_rows)


def _window(window: tuple[str, str], time_s: Times, where: str) -> Rows:
    """Both ends are times of rows, and inside; of rows with one time NAB takes the first."""
    rows = []
    for text in window:
        try:
            found = np.flatnonzero(time_s == parse_time(text))
        except (ValueError, OverflowError) as exc:
            raise EdgernnError(f'{where}: expected a time, got "{text}"') from exc
        if not len(found):
            raise EdgernnError(
                f"{where}: a window at {text}, where the file has no row; expected the times of "
                "its first and its last row"
            )
        rows.append(int(found[0]))
    if rows[1] < rows[0]:
        raise EdgernnError(f"{where}: a window that ends at {window[1]} before it begins")
    return rows[0], rows[1] + 1
