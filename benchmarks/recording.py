"""`read_recording` of a long CSV beside a bare `polars.read_csv` of the same file.

Alone: `python -m benchmarks.recording`
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import status_mb, table
from edgernn.recording import read_recording

ROWS, CHANNELS = 1_000_000, 8
START_MS = 1_767_589_200_000
ROUNDS = 3
BARE, OURS = "polars.read_csv", "read_recording"


def main() -> None:
    """Print the table."""
    found: dict[str, list[tuple[float, float]]] = {BARE: [], OURS: []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.csv"
        _write(path)
        size_mb = path.stat().st_size / 1e6
        for _ in range(ROUNDS):
            for reader, results in found.items():
                results.append(_read_in_a_process_of_its_own(reader, path))
    medians = {
        reader: [statistics.median(column) for column in zip(*results, strict=True)]
        for reader, results in found.items()
    }
    bare_s, bare_mb = medians[BARE]
    rows = [
        [
            f"`{reader}`",
            f"{time_s:.2f}",
            f"{time_s / bare_s:.2f}",
            f"{peak_mb:,.0f}",
            f"{peak_mb / bare_mb:.2f}",
            f"{ROWS / time_s:,.0f}",
        ]
        for reader, (time_s, peak_mb) in medians.items()
    ]
    print("## Recording: reading a long CSV\n")
    print(
        f"{ROWS:,} rows of {CHANNELS} channels and an ISO 8601 time, {size_mb:,.0f} MB. Peak: the "
        f"most memory that reading added to a process of its own. `{BARE}` leaves the times as "
        f"text and the rows unsorted. Median of {ROUNDS}.\n"
    )
    print(table(["reader", "time, s", "ratio", "peak, MB", "ratio", "rows/s"], rows))


def _write(path: Path) -> None:
    generator = np.random.default_rng(0)
    time_ms = pl.Series("time", START_MS + 1000 * np.arange(ROWS)).cast(pl.Datetime("ms", "UTC"))
    values = generator.standard_normal((CHANNELS, ROWS)).astype(np.float32)
    frame = pl.DataFrame([time_ms, *(pl.Series(f"c{i}", v) for i, v in enumerate(values))])
    frame.write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S%.3fZ", float_precision=4)


def _read_in_a_process_of_its_own(reader: str, path: Path) -> tuple[float, float]:
    """Seconds, and MB above what the imports take."""
    command = [sys.executable, "-m", "benchmarks.recording", reader, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    time_s, peak_mb = map(float, done.stdout.split())
    return time_s, peak_mb


def _read(reader: str, path: Path) -> None:
    before_mb = status_mb("VmRSS")
    began_s = time.perf_counter()
    kept = read_recording(path) if reader == OURS else pl.read_csv(path)
    time_s = time.perf_counter() - began_s
    print(time_s, status_mb("VmHWM") - before_mb)
    del kept  # until here, as a user would hold it


if __name__ == "__main__":
    if arguments := sys.argv[1:]:
        _read(arguments[0], Path(arguments[1]))
    else:
        main()
