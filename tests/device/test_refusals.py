"""Wrong input as a new user gives it: one line that says what is wrong, and an exit code."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mosquitto import Mosquitto

from edgernn.errors import Exit


def edgernn(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edgernn", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(done: "subprocess.CompletedProcess[str]", code: Exit = Exit.SETTINGS) -> str:
    """The one line that was said."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(("edgernn:", "Error:"))]
    assert "Traceback" not in done.stderr
    return line


def test_an_unreachable_broker_is_named(artefact: Path) -> None:
    port = closed_port()
    done = edgernn("agent", artefact, "--broker", f"mqtt://127.0.0.1:{port}")
    line = refused(done, Exit.BROKER)
    assert f"127.0.0.1:{port}" in line


@pytest.mark.parametrize("command", ["watch", "record -o {tmp}/x.csv", "replay {tmp}/r.csv"])
def test_every_command_names_an_unreachable_broker(command: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("time,a\n2026-01-01 00:00:00,1\n2026-01-01 00:00:01,2\n")
    port = closed_port()
    words = command.format(tmp=tmp_path).split()
    done = edgernn(*words, "--broker", f"mqtt://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in refused(done, Exit.BROKER)


def test_a_missing_artefact_is_named(tmp_path: Path) -> None:
    line = refused(edgernn("inspect", tmp_path / "no.onnx"), Exit.ARTEFACT)
    assert line.endswith("no.onnx: no such file")


def test_a_folder_instead_of_an_artefact_is_said(tmp_path: Path) -> None:
    assert "is a folder" in refused(edgernn("inspect", tmp_path), Exit.ARTEFACT)


def test_a_file_of_another_format_is_no_artefact(tmp_path: Path) -> None:
    path = tmp_path / "picture.onnx"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    line = refused(edgernn("agent", path), Exit.ARTEFACT)
    assert "picture.onnx: not a readable ONNX file" in line


def test_a_truncated_artefact_is_refused(artefact: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(artefact.read_bytes()[:4000])
    assert "half.onnx" in refused(edgernn("inspect", path), Exit.ARTEFACT)


def test_an_unknown_key_of_the_agents_file_is_named_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('model = "x.onnx"\n[broker]\nadress = "mqtt://localhost"\n')
    line = refused(edgernn("agent", path))
    assert "agent.toml: broker" in line and "adress" in line


def test_a_value_of_the_wrong_type_is_named_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('model = "x.onnx"\n[broker]\nkeepalive_s = "long"\n')
    assert "broker.keepalive_s: expected a whole number, got text" in refused(
        edgernn("agent", path)
    )


def test_a_value_out_of_range_is_said_with_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('model = "x.onnx"\n[input]\nqos = 2\n')
    assert "input.qos: expected 0–1, got 2" in refused(edgernn("agent", path))


def test_a_budget_that_makes_no_sense_is_said(artefact: Path) -> None:
    line = refused(edgernn("agent", artefact, "--false-alarms", "never"))
    assert "false_alarms: expected a number above 0 per one of minute" in line


def test_a_password_in_the_address_is_refused_and_not_repeated(artefact: Path) -> None:
    line = refused(edgernn("agent", artefact, "--broker", "mqtt://me:secret@localhost"))
    assert "secret" not in line


def test_a_shared_subscription_is_refused_with_the_reason(artefact: Path) -> None:
    line = refused(edgernn("agent", artefact, "--subscribe", "$share/g/sensors/{stream}/telemetry"))
    assert "$share" in line and "state" in line


@pytest.mark.parametrize(("content", "said"), [("", "empty"), ("a;b\n1;2\n", "no column of times")])
def test_a_file_that_is_no_recording_is_not_replayed(
    content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    line = refused(edgernn("replay", path, "--broker", f"mqtt://127.0.0.1:{closed_port()}"))
    assert "bad.csv" in line and said in line


def test_text_in_a_number_column_ends_a_replay_with_its_place(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("time,a\n2026-01-01 00:00:00,1\n2026-01-01 00:00:01,x\n")
    line = refused(edgernn("replay", path, "--broker", mosquitto.address))
    assert line.endswith('bad.csv: line 3, column "a": expected a number, got "x"')
