"""Log lines: one a record, whatever is in it; JSON for programs; the priorities of the journal."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agents import Listener, agent, online, play
from hypothesis import given
from hypothesis import strategies as st
from mosquitto import Mosquitto

from edgernn_device.logs import (
    JournalFormatter,
    JsonFormatter,
    TextFormatter,
    fields,
    goes_to_journal,
)


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("edgernn_device.agent", level, "x.py", 1, message, None, None)
    made.__dict__.update(extra)
    return made


def failing() -> logging.LogRecord:
    try:
        raise ValueError("first\nsecond")  # noqa: TRY301 - its traceback is wanted
    except ValueError:
        made = record("it failed", logging.ERROR)
        made.exc_info = sys.exc_info()
        return made


@given(st.text())
def test_any_message_is_one_line_in_both_formats(text: str) -> None:
    for formatter in (TextFormatter(has_time=True), TextFormatter(has_time=False), JsonFormatter()):
        assert len(formatter.format(record(text)).splitlines()) == 1


@given(st.text())
def test_json_says_time_level_message_and_fields(text: str) -> None:
    made = record("hello", logging.WARNING, **fields(stream=text, score=float("nan")))
    said = json.loads(JsonFormatter().format(made))
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "warning",
        "logger": "edgernn_device.agent",
        "message": "hello",
        "fields": {"stream": text, "score": None},
    }


def test_a_traceback_is_part_of_its_json_line() -> None:
    (line,) = JsonFormatter().format(failing()).splitlines()
    assert json.loads(line)["exception"].endswith("ValueError: first\nsecond")


def test_in_the_journal_every_line_has_its_priority_and_none_a_second_time_stamp() -> None:
    lines = JournalFormatter(TextFormatter(has_time=False)).format(failing()).splitlines()
    assert lines[0] == "<3>ERROR edgernn_device.agent: it failed"
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_the_journal_is_known_by_device_and_inode_of_stderr(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        found = os.fstat(stream.fileno())
        right, wrong = f"{found.st_dev}:{found.st_ino}", f"{found.st_dev}:{found.st_ino + 1}"
        assert goes_to_journal(stream, {"JOURNAL_STREAM": right})
        assert not goes_to_journal(stream, {"JOURNAL_STREAM": wrong})
        assert not goes_to_journal(stream, {})
    assert not goes_to_journal(io.StringIO(), {"JOURNAL_STREAM": right})


def test_under_systemd_what_ends_the_agent_has_its_priority(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        found = os.fstat(stream.fileno())
        done = subprocess.run(
            [sys.executable, "-m", "edgernn", "agent", "no.onnx"],
            env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            stderr=stream,
            timeout=60,
            check=False,
        )
    said = (tmp_path / "stderr").read_text()
    assert (done.returncode, said) == (4, "<2>CRITICAL edgernn_device: no.onnx: no such file\n")


def test_the_agents_whole_stderr_is_json_and_an_alert_has_fields(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, faulty_csv: Path
) -> None:
    words = ("--log-format", "json")
    with (
        Listener(mosquitto) as listener,
        agent(tmp_path, artefact, mosquitto, words=words) as process,
    ):
        online(listener)
        listener.wait_until_scored(play(mosquitto, faulty_csv, "a"))
        process.terminate()
        said = process.communicate(timeout=30)[1]
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["level"] for line in lines} <= {"info", "warning"}
    (alert, *_) = [line["fields"] for line in lines if line["message"].startswith("alert on")]
    assert alert["stream"] == "a"
    assert alert["id"] == listener.alerts("a")[0]["id"]


@pytest.mark.parametrize(
    ("words", "code"),
    [(("no.onnx",), 4), (("no.toml",), 2), (("{artefact}", "--broker", "127.0.0.1:1"), 3)],
)
def test_what_ends_the_agent_is_json_too(
    words: tuple[str, ...], code: int, artefact: Path, tmp_path: Path
) -> None:
    said = [word.format(artefact=artefact) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "edgernn", "agent", *said, "--log-format", "json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, last["level"], last["fields"]) == (
        code,
        "critical",
        {"exit_code": code},
    )
