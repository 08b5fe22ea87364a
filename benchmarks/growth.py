"""Epoch time and peak memory as the recording grows: the one in proportion, the other not at all.

Alone: `python -m benchmarks.growth`
"""

import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.measure import HOURS, status_mb, table
from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.recording import write_recording
from edgernn.run import EpochLoss
from edgernn.simulate.pump import simulate_pump
from edgernn.spill import Spill
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train

TIMES = (1, 10, 100)
EPOCHS = 3
"""Of each; the first warms up and does not count."""
MEMORY_GB = 0.005
"""`memory_gb`: what the smallest recording needs. The others go into files, as one of many GB would
with the default."""


def main() -> None:
    """Each size in a process of its own, or one of them if a folder is given."""
    if len(sys.argv) > 1:
        print(*_measured(Path(sys.argv[1])))
        return
    rows: list[list[str]] = []
    first: tuple[float, float] | None = None
    for times in TIMES:
        with tempfile.TemporaryDirectory() as folder:
            for part in range(times):
                path = Path(folder, f"{part:03}.parquet")
                write_recording(path, simulate_pump(hours=HOURS, seed=part, stream=path.stem))
            command = [sys.executable, "-m", "benchmarks.growth", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        epoch_s, peak_mb = (float(word) for word in done.stdout.split())
        first = first or (epoch_s, peak_mb)
        rows.append(
            [
                f"{times}×",
                f"{3600 * HOURS * times:,.0f}",
                f"{1e3 * epoch_s:,.0f}",
                f"{epoch_s / first[0] / times:.2f}",
                f"{peak_mb:,.0f}",
                f"{peak_mb / first[1]:.2f}",
            ]
        )
    print("## Training: as the recording grows\n")
    print(
        f"A folder of Parquet files of {HOURS:g} hours of the simulated pump each, the default "
        f"network, one thread, memory_gb = {MEMORY_GB:g}. Median of the {EPOCHS - 1} epochs after "
        "the first, relative to the recording's size; and the most memory that the process ever "
        "held, from reading to calibration (a million samples at most), torch and polars included. "
        "Files lie side by side as streams, and more of them in one chunk cost less each.\n"
    )
    titles = [
        "recording",
        "samples",
        "epoch, ms",
        "epoch / size",
        "peak memory, MB",
        "peak / smallest",
    ]
    print(table(titles, rows))


def _measured(folder: Path) -> tuple[float, float]:
    """Seconds of an epoch, and the process's peak memory in MB."""
    torch.set_num_threads(1)
    config = Config(
        recording=(RecordingConfig(path=str(folder / "*.parquet")),),
        training=TrainingConfig(epochs=EPOCHS, device="cpu", memory_gb=MEMORY_GB),
    )
    ends_s: list[float] = []

    def note_end(_: EpochLoss) -> None:
        ends_s.append(time.perf_counter())

    with Spill(folder / "samples", limit_bytes=1e9 * MEMORY_GB) as spill:
        recording = read_recordings(config, folder, spill)
        train(config, recording, name="growth", on_epoch=note_end, spill=spill)
    epochs_s = [later - earlier for earlier, later in pairwise(ends_s)]
    return statistics.median(epochs_s), status_mb("VmHWM")


if __name__ == "__main__":
    main()
