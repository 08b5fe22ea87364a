"""Going on after an interruption: the same weights bit for bit, wherever training was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import save

from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.nets import NetworkConfig
from edgernn.recording import Recording, Track, write_recording
from edgernn.run import WEIGHTS, EpochLoss, Run
from edgernn.simulate.pump import simulate_pump
from edgernn.training.checkpoint import NAME, partial_path
from edgernn.training.cli import train as train_command
from edgernn.training.train import train

TOML = """
[[recording]]
path = "pump.csv"
[network]
hidden = 4
calendar = ["day", "week"]
[training]
epochs = 40
streams = 8
chunk = 32
learning_rate = 0.01
"""


class Killed(Exception):
    """What stands for a signal, inside this process."""


def config(*, epochs: int = 8, **keys: Any) -> Config:
    asked = {"streams": 8, "chunk": 32, "learning_rate": 0.01, "patience": 3, **keys}
    return Config(
        recording=(RecordingConfig(path="a.csv"),),
        network=NetworkConfig(hidden=4),
        training=TrainingConfig(epochs=epochs, **asked),
    )


def pump() -> Recording:
    return simulate_pump(hours=0.4, seed=1)


def weights(run: Run) -> bytes:
    return save({name: value.contiguous() for name, value in run.detector.state_dict().items()})


def interrupt(folder: Path, wanted: Config, *, in_epoch: int) -> None:
    """Train until this epoch's loss is told: its checkpoint is never written."""

    def kill(loss: EpochLoss) -> None:
        if loss.epoch == in_epoch:
            raise Killed

    with pytest.raises(Killed):
        train(wanted, pump(), name="p", folder=folder, on_epoch=kill)


@pytest.mark.parametrize(
    ("keys", "in_epoch"),
    [
        ({}, 2),
        ({}, 5),
        ({"optimizer": "adamw", "l2": 0.01, "schedule": "cosine"}, 4),
        ({"optimizer": "rmsprop", "momentum": 0.5, "l1": 1e-4}, 3),
        ({"optimizer": "sgd", "momentum": 0.9, "schedule": "constant"}, 3),
    ],
)
def test_a_resumed_training_ends_with_the_weights_of_one_that_was_not_interrupted(
    keys: dict[str, Any], in_epoch: int, tmp_path: Path
) -> None:
    whole, losses = train(config(**keys), pump(), name="p")
    interrupt(tmp_path, config(**keys), in_epoch=in_epoch)
    resumed, all_losses = train(config(**keys), pump(), name="p", folder=tmp_path, resume=True)
    assert weights(resumed) == weights(whole)
    assert all_losses == losses


def test_what_was_trained_to_its_end_is_not_trained_further(tmp_path: Path) -> None:
    whole, losses = train(config(), pump(), name="p", folder=tmp_path)
    told: list[EpochLoss] = []
    again, _ = train(config(), pump(), name="p", folder=tmp_path, resume=True, on_epoch=told.append)
    assert (weights(again), told) == (weights(whole), [])
    assert len(losses) <= 8


def test_resuming_with_another_configuration_names_the_keys(tmp_path: Path) -> None:
    interrupt(tmp_path, config(), in_epoch=2)
    changed = msgspec.structs.replace(config(seed=7), network=NetworkConfig(hidden=8))
    with pytest.raises(EdgernnError) as caught:
        train(changed, pump(), name="p", folder=tmp_path, resume=True)
    assert str(caught.value) == (
        f"{tmp_path / NAME}: cannot resume: network.hidden was 4, is 8; training.seed was 0, is 7; "
        "start afresh with --force"
    )


def test_resuming_with_other_data_is_refused(tmp_path: Path) -> None:
    interrupt(tmp_path, config(), in_epoch=2)
    made = pump()
    (track,) = made.tracks
    x = track.x.copy()
    x[100, 0] += np.float32(0.001)
    other = Recording(
        made.channels, made.units, (Track("pump", track.time_s, x, None),), made.period_s, ()
    )
    with pytest.raises(EdgernnError, match=r"cannot resume: the recordings have changed"):
        train(config(), other, name="p", folder=tmp_path, resume=True)


def test_nothing_to_resume_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdgernnError, match=r"there is nothing to resume"):
        train(config(), pump(), name="p", folder=tmp_path, resume=True)


@pytest.mark.parametrize("keep", [0, 5, 100, 2000, -1])
def test_a_damaged_checkpoint_is_a_sentence(keep: int, tmp_path: Path) -> None:
    interrupt(tmp_path, config(), in_epoch=2)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EdgernnError, match=r"not a checkpoint, or damaged: "):
        train(config(), pump(), name="p", folder=tmp_path, resume=True)


def test_a_checkpoint_that_was_half_written_leaves_the_one_before_it(tmp_path: Path) -> None:
    whole, _ = train(config(), pump(), name="p")
    interrupt(tmp_path, config(), in_epoch=4)
    partial_path(tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:700])
    resumed, _ = train(config(), pump(), name="p", folder=tmp_path, resume=True)
    assert weights(resumed) == weights(whole)


def edgernn(folder: Path, *words: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "edgernn", "train", "pump.toml", *words]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


def finish(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def kill_when(process: "subprocess.Popen[str]", is_time: Any) -> None:
    """SIGKILL, at the first moment that `is_time()`."""
    give_up = time.monotonic() + 120
    while not is_time():
        assert process.poll() is None and time.monotonic() < give_up
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


def test_killed_twice_and_resumed_a_run_has_the_same_weights_and_no_checkpoint(
    tmp_path: Path,
) -> None:
    write_recording(tmp_path / "pump.csv", pump())
    (tmp_path / "pump.toml").write_text(TOML)
    finish(edgernn(tmp_path, "-o", "whole"))
    checkpoint = tmp_path / "killed" / NAME
    part = partial_path(checkpoint)
    chance = np.random.default_rng(os.getpid())

    first = edgernn(tmp_path, "-o", "killed")
    kill_when(first, part.exists)  # while a checkpoint is being written
    until = time.monotonic() + 3600
    if checkpoint.exists():
        second = edgernn(tmp_path, "-o", "killed", "--resume")
    else:  # it was the very first
        second = edgernn(tmp_path, "-o", "killed", "--force")
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    def some_time_after_an_epoch() -> bool:
        nonlocal until
        if until > time.monotonic() + 60 and checkpoint.exists():
            if checkpoint.stat().st_mtime_ns == before:
                return False
            until = time.monotonic() + float(chance.uniform(0, 0.3))
        return time.monotonic() > until

    kill_when(second, some_time_after_an_epoch)
    words = [str(tmp_path / "pump.toml"), "-o", str(tmp_path / "killed")]
    with pytest.raises(EdgernnError, match="interrupted; go on with --resume"):
        CliRunner().invoke(train_command, words, catch_exceptions=False)
    finish(edgernn(tmp_path, "-o", "killed", "--resume"))
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert (killed / "loss.csv").read_text() == (whole / "loss.csv").read_text()
    assert sorted(p.name for p in killed.iterdir()) == sorted(p.name for p in whole.iterdir())
