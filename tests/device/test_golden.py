"""Golden vectors: what an artefact says on this CPU, beside what it said when it was exported."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edgernn.errors import EdgernnError, Exit
from edgernn_device import verify as module
from edgernn_device.cli import verify as verify_command
from edgernn_device.engine import Engine
from edgernn_device.folders import state_folder
from edgernn_device.golden import Golden, largest_difference, read_golden
from edgernn_device.verify import verify, verify_once


@pytest.fixture
def engine(artefact: Path) -> Engine:
    return Engine.load(artefact)


@pytest.fixture
def golden(engine: Engine) -> Golden:
    found = read_golden(engine, where="a.onnx")
    assert found is not None
    return found


def test_an_artefact_says_here_what_it_said_when_it_was_exported(artefact: Path) -> None:
    found = verify(artefact.read_bytes(), where="a.onnx")
    assert found.samples == 48 and found.largest < 1e-4


def test_the_command_says_so(artefact: Path) -> None:
    said = CliRunner().invoke(verify_command, [str(artefact)]).output
    assert "says the same here of 48 golden samples, largest difference" in said


def test_golden_samples_have_missing_values_and_every_state(engine: Engine, golden: Golden) -> None:
    x = np.frombuffer(golden.x, "<f4").reshape(golden.samples, -1)
    assert np.isnan(x).all(axis=1).any() and np.isnan(x).any(axis=0).any()
    assert set(golden.states) == {state.name for state in engine.card.states}
    assert set(golden.outputs) == set(engine.card.outputs)


@pytest.mark.parametrize("part", ["outputs", "states"])
def test_what_differs_is_named(engine: Engine, golden: Golden, part: str) -> None:
    arrays = dict(getattr(golden, part))
    name, content = next(iter(arrays.items()))
    values = np.frombuffer(content, "<f4").copy()
    values[-1] += 0.5
    changed = msgspec.structs.replace(golden, **{part: arrays | {name: values.tobytes()}})
    with pytest.raises(EdgernnError, match=rf"^a.onnx: says something else .*: {name} by 0"):
        largest_difference(engine, changed, where="a.onnx")


@pytest.mark.parametrize(
    "change", [{"outputs": {}}, {"samples": 47}, {"x": b""}, {"samples": 0, "x": b""}]
)
def test_golden_vectors_that_do_not_fit_are_refused(
    engine: Engine, golden: Golden, change: dict[str, object]
) -> None:
    with pytest.raises(EdgernnError, match=r"^a\.onnx: "):
        largest_difference(engine, msgspec.structs.replace(golden, **change), where="a.onnx")


def test_golden_vectors_that_are_no_text_are_damaged(artefact: Path) -> None:
    content = artefact.read_bytes().replace(b'{"samples":', b'{"sampl\xffs":')
    with pytest.raises(EdgernnError, match=r"^a\.onnx: damaged golden vectors: "):
        verify(content, where="a.onnx")


def test_what_onnx_runtime_says_while_it_runs_is_said(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("non-zero status code\nin node Add.1")

    monkeypatch.setattr(Engine, "run", fail)
    with pytest.raises(EdgernnError) as caught:
        module._verify_here(artefact.read_bytes(), "a.onnx")
    assert str(caught.value) == "a.onnx: does not run here: non-zero status code in node Add.1"


def test_a_file_that_is_no_artefact_is_said() -> None:
    with pytest.raises(EdgernnError, match=r"^a\.onnx: not a readable ONNX file"):
        verify(b"nothing", where="a.onnx")


def test_an_illegal_instruction_is_said_and_not_suffered(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nkill -ILL $$\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(EdgernnError, match=r"was ended by SIGILL on this CPU"):
        verify(artefact.read_bytes(), where="a.onnx")


def test_what_passed_once_is_not_run_again(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    assert verify_once(artefact.read_bytes(), where="a.onnx") is not None
    monkeypatch.setattr(module, "verify", lambda *_: pytest.fail("it was run again"))
    assert verify_once(artefact.read_bytes(), where="a.onnx") is None


def test_a_read_only_state_directory_is_no_obstacle(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file"))
    assert verify_once(artefact.read_bytes(), where="a.onnx") is not None
    assert verify_once(artefact.read_bytes(), where="a.onnx") is not None


def test_a_state_directory_that_cannot_be_looked_into_is_no_obstacle(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / ("long" * 100)))
    assert verify_once(artefact.read_bytes(), where="a.onnx") is not None


def test_a_user_without_a_home_is_no_obstacle(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(EdgernnError, match=r"this user has no home; set STATE_DIRECTORY$"):
        state_folder()
    assert verify_once(artefact.read_bytes(), where="a.onnx") is not None


def test_a_module_in_the_folder_where_it_runs_is_not_run(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('it was run')\n")
    monkeypatch.chdir(tmp_path)
    assert verify(artefact.read_bytes(), where="a.onnx").samples == 48


def test_the_agent_does_not_start_with_an_artefact_that_says_something_else(
    artefact: Path, tmp_path: Path
) -> None:
    content = artefact.read_bytes()
    start = content.index(b'"states":{"')
    wrong = tmp_path / "wrong.onnx"
    head, tail = content[: start + 60], content[start + 63 :]
    wrong.write_bytes(head + b"AAA" + tail)
    done = subprocess.run(
        [sys.executable, "-m", "edgernn", "agent", wrong, "--broker", "mqtt://127.0.0.1:9"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"STATE_DIRECTORY": str(tmp_path / "state")},
        timeout=60,
    )
    assert done.returncode == Exit.ARTEFACT
    assert "says something else here than where it was exported" in done.stderr
