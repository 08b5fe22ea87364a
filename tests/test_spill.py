"""Recordings larger than memory: the same weights, from files that are mapped."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save

from edgernn.card import AlarmRule
from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.evaluation.folds import cross_validate, cut
from edgernn.layout import Columns
from edgernn.nets import NetworkConfig
from edgernn.recording import Recording, Track, write_recording
from edgernn.run import CARD, CONFIG, HEALTHY, LOSS, WEIGHTS
from edgernn.simulate.pump import simulate_pump
from edgernn.spill import Spill
from edgernn.training.stretches import read_recordings, side_by_side
from edgernn.training.train import train as train_detector
from edgernn.tune.objective import Objective, judge

ROWS = 100_000
"""Of each of the files below."""
COPIES = 4
"""Of the pump's six channels: as many bytes in a quarter of the steps."""
FILES = 8
LIMIT_MB = 340
"""Beyond what Python, torch and polars have taken by then. From files 260 was enough (230 was not),
in memory 450 was not (500 was)."""

LIMITED = """
import resource, sys
import torch
from edgernn.training.cli import train
from edgernn.training import command  # what it loads counts as used
torch.set_num_threads(1)
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()  # data and stack
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[1]),) * 2)
train([*sys.argv[2:]], standalone_mode=False)
"""


def pieces(*lengths: int) -> list[Track]:
    values = np.random.default_rng(0).normal(size=(sum(lengths), 3)).astype(np.float32)
    parts = np.split(values, np.cumsum(lengths)[:-1])
    return [Track(str(i), np.arange(float(len(x))), x, None) for i, x in enumerate(parts)]


def test_an_array_that_finds_no_room_in_memory_is_the_same_in_a_file(tmp_path: Path) -> None:
    x = np.arange(5000.0).reshape(1000, 5)
    with Spill(tmp_path / "s", limit_bytes=1000) as spill:
        small, large = spill.keep(x[:10]), spill.keep(x)
        assert np.may_share_memory(small, x) and not np.may_share_memory(large, x)
        assert spill.is_used and list((tmp_path / "s").iterdir()) == []  # none has a name
        spill.release()
        assert np.array_equal(large, x)
    assert np.array_equal(large, x)  # whoever still has it can read it


def test_with_room_enough_no_file_is_made(tmp_path: Path) -> None:
    with Spill(tmp_path / "s", limit_bytes=1e6) as spill:
        spill.keep(np.zeros(1000))
        assert not spill.is_used
    assert list(tmp_path.iterdir()) == []


def test_one_beside_has_the_room_that_is_left(tmp_path: Path) -> None:
    spill = Spill(tmp_path, limit_bytes=1000)
    spill.keep(np.zeros(100))
    beside = spill.beside()
    beside.keep(np.zeros(25))
    assert not beside.is_used
    beside.keep(np.zeros(1))
    assert beside.is_used and not spill.is_used


def test_pieces_stand_side_by_side_alike_in_memory_and_in_a_file(tmp_path: Path) -> None:
    made = pieces(9000, 20, 5000)
    with Spill(tmp_path / "s", limit_bytes=0) as spill:
        mapped = side_by_side(made, 2, at_least=64, spill=spill).x.numpy()
        assert spill.is_used
        plain = side_by_side(made, 2, at_least=64).x.numpy()
        assert np.array_equal(mapped, plain, equal_nan=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight files of 100,000 samples with a gap: 77 MB, and several times that on the way."""
    made = tmp_path_factory.mktemp("large")
    pump = simulate_pump(hours=4, seed=0)
    (track,) = pump.tracks
    x = np.tile(track.x, (-(-ROWS // len(track.x)), COPIES))[:ROWS]
    channels = tuple(f"{name}-{i}" for i in range(COPIES) for name in pump.channels)
    for i in range(FILES):
        time_s = 1e9 + np.arange(ROWS, dtype=np.float64)
        keep = np.ones(ROWS, bool)
        keep[1000 : 1010 + i] = False
        tracks = (Track(f"p{i}", time_s[keep], x[keep], None),)
        made_of = Recording(channels, pump.units * COPIES, tracks, 1.0, ())
        write_recording(made / f"p{i}.parquet", made_of)
    return made


def train(folder: Path, name: str, *, memory_gb: float) -> "subprocess.CompletedProcess[str]":
    (folder / f"{name}.toml").write_text(
        f'[[recording]]\npath = "p*.parquet"\n[network]\nhidden = 2\n'
        f"[training]\nepochs = 1\nstreams = 256\nvalidation = 0.05\ncalibration = 0.05\n"
        f"memory_gb = {memory_gb}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(LIMIT_MB * 10**6), f"{name}.toml", "-o", name],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")
def test_what_does_not_fit_into_memory_is_trained_from_files(folder: Path) -> None:
    in_memory = train(folder, "memory", memory_gb=2)
    assert (
        in_memory.returncode != 0 and "edgernn: " not in in_memory.stderr
    )  # out of memory, no refusal
    from_files = train(folder, "files", memory_gb=0.001)
    assert from_files.returncode == 0, from_files.stderr
    assert (folder / "files" / WEIGHTS).exists()
    left = {path.name for path in (folder / "files").iterdir()}
    assert left == {CONFIG, CARD, WEIGHTS, HEALTHY, LOSS, "loss.png"}


def test_weights_do_not_depend_on_where_the_samples_were(tmp_path: Path) -> None:
    pump = simulate_pump(hours=0.5, seed=1)
    (track,) = pump.tracks
    keep = np.r_[0:500, 520:1800]  # one gap that is bridged
    gone = Track(track.stream, track.time_s[keep], track.x[keep], None)
    write_recording(tmp_path / "a.parquet", Recording(pump.channels, pump.units, (gone,), 1.0, ()))
    found = []
    for memory_gb in (2.0, 0.0):
        training = TrainingConfig(epochs=2, streams=8, chunk=32, memory_gb=memory_gb)
        config = Config(
            recording=(RecordingConfig(path="a.parquet"),),
            network=NetworkConfig(calendar=("day",)),
            training=training,
        )
        with Spill(tmp_path / "s", limit_bytes=memory_gb * 1e9) as spill:
            recording = read_recordings(config, tmp_path, spill)
            run, losses = train_detector(config, recording, name="p", spill=spill)
            assert spill.is_used == (memory_gb == 0)
        weights = {name: value.contiguous() for name, value in run.detector.state_dict().items()}
        found.append((save(weights), losses, run.card.provenance.data_hash))
    assert found[0] == found[1]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all files that samples are put into."""
    made: list[int] = []
    new_region = Spill._new_region

    def noted(self: Spill, size: int) -> mmap.mmap:
        made.append(size)
        return new_region(self, size)

    monkeypatch.setattr(Spill, "_new_region", noted)
    return made


def small(memory_gb: float) -> Config:
    training = TrainingConfig(epochs=1, streams=8, chunk=32, memory_gb=memory_gb)
    return Config(recording=(RecordingConfig(path="a.parquet"),), training=training)


def test_a_trial_keeps_to_the_memory_too(tmp_path: Path, files: list[int]) -> None:
    write_recording(tmp_path / "a.parquet", simulate_pump(hours=0.5, seed=1))
    objective = Objective("loss", tmp_path, None, Columns(), None, tmp_path / "out")
    in_memory = judge(objective, small(2.0), lambda _: None)
    assert files == []
    assert judge(objective, small(0.0), lambda _: None) == in_memory
    assert files


def test_folds_keep_to_the_memory_too(tmp_path: Path, files: list[int]) -> None:
    blocks = cut(simulate_pump(hours=0.8, seed=1), 2, warm_up=60)
    spill = Spill(tmp_path, limit_bytes=0)
    in_files = cross_validate(small(2.0), blocks, rule=AlarmRule(), source=None, spill=spill)
    assert len(files) >= 2
    assert cross_validate(small(2.0), blocks, rule=AlarmRule(), source=None) == in_files
