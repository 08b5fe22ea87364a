"""Folders of the GECCO Industrial Challenge 2018 (Moritz et al.), or laid out like it."""

from pathlib import Path

import numpy as np

from edgernn.benchmark.folder import (
    channels_of,
    corpus_of,
    period_of,
    series_of,
    tsb_ad_rows,
    windows_of,
)
from edgernn.benchmark.series import Bools, Corpus, Samples, Times, Truth
from edgernn.benchmark.table import Table
from edgernn.errors import EdgernnError


def read_gecco_as_tsb_ad(folder: Path) -> Corpus:
    """train.csv[.gz]: rows with a missing value dropped, the first to learn from, all scored."""
    channels, time_s, x, anomalous = _file(folder, "train")
    whole = np.isfinite(x).all(axis=1)
    time_s, x, anomalous = time_s[whole], x[whole], anomalous[whole]
    rows = tsb_ad_rows(anomalous, "train.csv")
    period_s = period_of(time_s[:rows], folder)
    series = series_of(
        "train.csv", channels, time_s, x, period_s=period_s, path=folder, first_rows=rows
    )
    return corpus_of("gecco", "tsb-ad", [(series, Truth(anomalous, windows_of(anomalous), 0))])


def read_gecco(folder: Path) -> Corpus:
    """train.csv[.gz] to learn from, and a later test.csv[.gz], all of it scored."""
    channels, learnt_s, before, _ = _file(folder, "train")
    of_test, time_s, x, anomalous = _file(folder, "test")
    if of_test != channels:
        raise EdgernnError(f"{folder}: the columns of test and train are not the same")
    period_s = period_of(learnt_s, folder)
    series = series_of(
        "test.csv", channels, time_s, x, period_s=period_s, path=folder, before=before
    )
    return corpus_of("gecco", "official", [(series, Truth(anomalous, windows_of(anomalous), 0))])


def _file(folder: Path, name: str) -> tuple[tuple[str, ...], Times, Samples, Bools]:
    paths = [path for end in (".csv.gz", ".csv") if (path := folder / f"{name}{end}").exists()]
    if len(paths) != 1:
        raise EdgernnError(f"{folder}: expected {name}.csv or {name}.csv.gz, found {len(paths)}")
    table = Table(paths[0])
    table.require("Time", "EVENT")
    channels = channels_of(table, "Time", "EVENT", "")  # R writes the row's number without a title
    return channels, table.times("Time"), table.samples(channels), table.flags("EVENT")
