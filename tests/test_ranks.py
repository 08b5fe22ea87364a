"""Several processes train one detector: each stream has one of them, and all end alike."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from edgernn.config import TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track, write_recording
from edgernn.run import WEIGHTS, Run
from edgernn.simulate.pump import simulate_pump
from edgernn.training.checkpoint import NAME
from edgernn.training.fit import fit
from edgernn.training.ranks import Ranks, joined
from edgernn.training.stretches import Stretches

TOLERANCE = 1e-5
"""Of a weight, after 4 epochs of 6 steps: the two add up the same gradients in another order, and
Adam divides by their size. 1e-7 was measured."""

TOML = """
[[recording]]
path = "pump.parquet"
[network]
hidden = 6
calendar = ["day"]
[training]
epochs = 4
streams = 7
chunk = 16
learning_rate = 0.01
device = "cpu"
"""


@given(st.integers(0, 1000), st.integers(1, 20))
def test_every_stream_has_one_process(streams: int, count: int) -> None:
    owned = [
        stream
        for rank in range(count)
        for stream in range(streams)[Ranks(rank, count).share(streams)]
    ]
    assert owned == list(range(streams))


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as ranks:
        assert ranks == Ranks(0, 1)
        assert not torch.distributed.is_initialized()


def edgernn(folder: Path, *words: str, processes: int = 1) -> "subprocess.CompletedProcess[str]":
    """A training command, by torchrun on a free port of loopback if there are several processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    start = torchrun if processes > 1 else []
    return subprocess.run(
        [sys.executable, *start, "-m", "edgernn", "train", *words],
        cwd=folder,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def results_in(said: str) -> list[str]:
    """The lines that are no progress, which slow machines tell of more often."""
    return [line for line in said.splitlines() if not line.startswith("epoch ")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording with values missing here more than there, so that processes count differently."""
    made = simulate_pump(hours=0.3, seed=1)
    (track,) = made.tracks
    x = track.x.copy()
    x[:300][np.random.default_rng(0).random((300, x.shape[1])) < 0.5] = np.nan
    holes = Track(track.stream, track.time_s, x, None)
    recording = Recording(made.channels, made.units, (holes,), made.period_s, ())
    write_recording(tmp_path / "pump.parquet", recording)
    (tmp_path / "pump.toml").write_text(TOML)
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback interface has another name")
def test_two_processes_end_with_the_weights_of_one_with_all_streams(folder: Path) -> None:
    alone = edgernn(folder, "pump.toml", "-o", "one")
    assert alone.returncode == 0, alone.stderr
    together = edgernn(folder, "pump.toml", "-o", "joint", processes=2)
    assert together.returncode == 0, together.stderr
    one, two = (load_file(folder / name / WEIGHTS) for name in ("one", "joint"))
    trained = [name for name in one if name.startswith(("network.", "heads."))]
    assert len(trained) >= 6
    for name in trained:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=TOLERANCE)
    alone_lost, together_lost = (
        np.loadtxt(folder / name / "loss.csv", delimiter=",", skiprows=1)
        for name in ("one", "joint")
    )
    np.testing.assert_allclose(together_lost, alone_lost, rtol=TOLERANCE)
    # the first process alone prints; how often it says how far it is depends on the machine
    said = together.stdout.replace("joint", "one").replace(" in 2 processes", "")
    assert results_in(said) == results_in(alone.stdout)
    assert not (folder / "joint" / NAME).exists()


def test_more_processes_than_streams_are_refused(trained_run: Run) -> None:
    piece = trained_run.healthy.tracks[0]
    few = Stretches([piece], [piece], [piece])
    with pytest.raises(EdgernnError, match=r"^8 processes for 7 stream\(s\): .*training\.streams"):
        fit(trained_run.detector, few, TrainingConfig(streams=7), ranks=Ranks(0, 8))
