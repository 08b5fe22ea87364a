"""The README's commands, run as they stand there."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mosquitto import Mosquitto

from edgernn.cli import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text()


def commands(starting: str) -> list[str]:
    """Every `edgernn …` line of the README's shell blocks that starts so."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"edgernn {starting}")]


def words(command: str, broker: Mosquitto | None = None) -> list[str]:
    if broker is not None:
        command = command.replace("mqtt://localhost:1883", broker.address)
        command = command.replace("--speed 60", "--speed 0")
    return [sys.executable, "-m", *shlex.split(command)]


@contextmanager
def background(command: list[str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workstation's commands of the README have been run, in their order."""
    made = tmp_path_factory.mktemp("readme")
    for command in ("simulate", "train", "evaluate", "export", "inspect"):
        for line in commands(command):
            subprocess.run(words(line), cwd=made, check=True, timeout=400, capture_output=True)
    return made


def test_every_command_is_in_the_readme() -> None:
    assert [name for name in COMMANDS if f"edgernn {name}" not in README] == []


def test_the_workstations_commands_leave_what_they_promise(folder: Path) -> None:
    promised = ["healthy.csv", "faulty.csv", "pump.onnx", "runs/pump/detector.safetensors"]
    promised += ["runs/pump/loss.png", "runs/pump/evaluation/faulty/report.html"]
    assert [name for name in promised if not (folder / name).is_file()] == []


def test_the_devices_commands_print_the_alert_of_the_readme(
    folder: Path, mosquitto: Mosquitto
) -> None:
    (run,) = commands("agent")
    (watch,) = commands("watch")
    (replay,) = commands("replay")
    watching = [*words(watch, mosquitto), "--count", "1", "--timeout", "60"]
    with background(words(run, mosquitto), folder), background(watching, folder) as watcher:
        time.sleep(3)  # both are subscribed; a command line has no other way to tell
        subprocess.run(words(replay, mosquitto), cwd=folder, check=True, timeout=100)
        assert watcher.stdout is not None
        assert "pump-1 behaves unusually" in watcher.stdout.read()


def test_record_takes_what_replay_sends(folder: Path, mosquitto: Mosquitto) -> None:
    (record,) = commands("record")
    (replay,) = commands("replay")
    recording = [*words(record, mosquitto), "--force", "--max-samples", "7200"]
    with background(recording, folder) as recorder:
        time.sleep(2)  # as above
        subprocess.run(words(replay, mosquitto), cwd=folder, check=True, timeout=100)
        assert recorder.wait(60) == 0
