"""Small folders laid out as the public sets are, with anomalies that any method sees."""

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

START = datetime(2026, 1, 1)
LEARNT = 400
"""Rows at the beginning of every file that nothing is wrong in."""

Floats = NDArray[np.float64]


def write_nab(folder: Path) -> Path:
    """Two files of 900 rows, a jump in the first one from row 700 to 739."""
    windows: dict[str, list[list[str]]] = {}
    for place, name in enumerate(("pumps/one.csv", "fans/quiet.csv")):
        x = noise(900, 1, seed=place)[:, 0]
        times = minutes(900)
        windows[name] = []
        if "quiet" not in name:
            x[700:740] += 12
            windows[name] = [[times[690], times[749]]]
        lines = [f"{time},{value!r}" for time, value in zip(times, x.tolist(), strict=True)]
        write(folder / "data" / name, "timestamp,value", *lines)
    write(folder / "labels" / "combined_windows.json", json.dumps(windows))
    return folder


def write_skab(folder: Path, *, channels: int = 3) -> Path:
    """Files 2 and 10 of 700 rows, faulty from row 500 to 599, and a run without a fault."""
    names = [f"S{c}" for c in range(channels)]
    for place, name in enumerate(("valve1/2.csv", "valve1/10.csv")):
        x = noise(700, channels, seed=place)
        x[500:600] += 8
        rows = [
            f"{line};{float(500 <= row < 600)};{float(row in (500, 600))}"
            for row, line in enumerate(joined(x, ";", times=seconds(700)))
        ]
        write(folder / name, ";".join(["datetime", *names, "anomaly", "changepoint"]), *rows)
    healthy = joined(noise(600, channels, seed=9), ";", times=seconds(600))
    write(folder / "anomaly-free" / "anomaly-free.csv", ";".join(["datetime", *names]), *healthy)
    return folder


def write_smd(folder: Path) -> Path:
    """Two machines of four channels; channels 2 and 4 are wrong from row 400 to 449."""
    for place, machine in enumerate(("machine-1-1", "machine-1-2")):
        x = noise(1400, 4, seed=place)
        before, x = x[:500], x[500:]
        x[400:450, [1, 3]] += 10
        write(folder / "train" / f"{machine}.csv.gz", *joined(before, ","))
        write(folder / "test" / f"{machine}.csv.gz", *joined(x, ","))
        labels = (str(int(400 <= row < 450)) for row in range(len(x)))
        write(folder / "test_label" / f"{machine}.csv.gz", *labels)
        write(folder / "interpretation_label" / f"{machine}.txt", "400-450:2,4")
    return folder


def write_gecco(folder: Path) -> Path:
    """Two sensors over 2,400 minutes, an event in rows 1800 to 1819."""
    x = noise(2400, 2, seed=0)
    x[1800:1820] += 10
    rows = joined(x, ",", times=minutes(2400))
    events = (int(1800 <= row < 1820) for row in range(len(x)))
    lines = [f"{line},{event}" for line, event in zip(rows, events, strict=True)]
    write(folder / "train.csv.gz", "Time,Tp,pH,EVENT", *lines)
    return folder


WRITERS = {"nab": write_nab, "skab": write_skab, "smd": write_smd, "gecco": write_gecco}


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def noise(rows: int, channels: int, *, seed: int) -> Floats:
    """(T, C) around 5, to four digits."""
    found: Floats = np.random.default_rng(seed).normal(5, 1, (rows, channels)).round(4)
    return found


def joined(x: Floats, delimiter: str, *, times: list[str] | None = None) -> list[str]:
    lines = [delimiter.join(map(repr, row)) for row in x.tolist()]
    return (
        lines
        if times is None
        else [f"{t}{delimiter}{x}" for t, x in zip(times, lines, strict=True)]
    )


def minutes(count: int) -> list[str]:
    return [str(START + timedelta(minutes=row)) for row in range(count)]


def seconds(count: int) -> list[str]:
    return [str(START + timedelta(seconds=row)) for row in range(count)]
