"""Folders of the Skoltech Anomaly Benchmark (Katser, Kozitsin 2020; v0.9), or laid out like it."""

from pathlib import Path

from edgernn.benchmark.folder import (
    Read,
    channels_of,
    corpus_of,
    csv_files,
    period_of,
    series_of,
    windows_of,
)
from edgernn.benchmark.series import Corpus, Series, Truth
from edgernn.benchmark.table import Table
from edgernn.errors import EdgernnError

FIT_ROWS = 400
HEALTHY = "anomaly-free"


def read_skab(folder: Path) -> Corpus:
    """*/*.csv, or *.csv: semicolons, datetime, sensors, anomaly, changepoint; anomaly-free/*.csv
    without the last two. A file's first 400 rows are to learn from, the rest is scored."""
    paths = [path for path in csv_files(folder, "*.csv", "*/*.csv") if path.parent.name != HEALTHY]
    if not paths:
        raise EdgernnError(f"{folder}: expected files with faults beside {HEALTHY}/")
    healthy = sorted((folder / HEALTHY).glob("*.csv"))
    return corpus_of(
        "skab",
        "official",
        [_file(path, folder) for path in paths],
        healthy=tuple(_series(Table(path, delimiter=";"), folder) for path in healthy),
    )


def _file(path: Path, folder: Path) -> Read:
    table = Table(path, delimiter=";")
    table.require("datetime", "anomaly", "changepoint")
    anomalous = table.flags("anomaly")
    truth = Truth(anomalous, windows_of(anomalous), FIT_ROWS, table.flags("changepoint"))
    return _series(table, folder), truth


def _series(table: Table, folder: Path) -> Series:
    table.require("datetime")
    if len(table) <= FIT_ROWS:
        raise EdgernnError(
            f"{table.path}: expected more than the {FIT_ROWS} rows that are learnt from,"
            f" got {len(table)}"
        )
    channels = channels_of(table, "datetime", "anomaly", "changepoint")
    name, time_s = table.path.relative_to(folder).as_posix(), table.times("datetime")
    x = table.samples(channels)
    period_s = period_of(time_s[:FIT_ROWS], table.path)
    return series_of(
        name, channels, time_s, x, period_s=period_s, path=table.path, first_rows=FIT_ROWS
    )
