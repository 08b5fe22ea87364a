"""Wrong input at the workstation: one line that says what is wrong, exit code 2, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgernn.recording import write_recording
from edgernn.run import EpochLoss, Run, save_run
from edgernn.simulate.pump import simulate_pump

ROWS = "".join(f"2026-01-01 00:{i // 60:02}:{i % 60:02},{i % 7},{i % 5}\n" for i in range(600))


def refused(*words: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgernn", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.startswith("edgernn: ")) == (2, True), done.stderr
    return line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("time,a\n", "x.csv"),
        ("time,a,b\n2026-01-01 00:00:00,1,2\n2026-01-01 00:00:01,on,2\n", 'line 3, column "a"'),
        ("time,a\nyesterday,1\ntoday,2\n", 'column "time"'),
        ("a,b\n1,2\n3,4\n", "--time"),
        ("1,2\n3,4\n", "header"),
    ],
)
def test_a_file_that_is_no_recording_is_not_learnt_from(
    content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(content)
    assert said in refused("train", "x.csv", cwd=tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused("train", "no.csv", cwd=tmp_path) == "edgernn: no.csv: no such file"


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "folder" in refused("train", "folder", cwd=tmp_path)


def test_too_short_a_recording_says_so(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("time,a,b\n" + ROWS)
    line = refused("train", "short.csv", "--epochs", 1, cwd=tmp_path)
    assert "record longer" in line


def test_an_unknown_key_of_a_training_file_is_named_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "pump.toml").write_text('[[recording]]\npath = "x.csv"\n[network]\nhiden = 3\n')
    line = refused("train", "pump.toml", cwd=tmp_path)
    assert "pump.toml: network" in line and "hiden" in line


def test_an_unknown_network_is_said_with_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[[recording]]\npath = "x.csv"\n[network]\nkind = "gpt"\n')
    line = refused("train", "p.toml", cwd=tmp_path)
    assert "p.toml: network" in line and "expected one of rnn, lstm, gru" in line


def test_a_pattern_that_matches_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[[recording]]\npath = "none/*.csv"\n')
    assert "none/*.csv" in refused("train", "p.toml", cwd=tmp_path)


def test_a_run_folder_is_not_overwritten_by_accident(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("time,a,b\n" + ROWS)
    assert "--force" in refused("train", "x.csv", "-o", run_folder, cwd=tmp_path)


@pytest.mark.parametrize("command", ["evaluate {folder} x.csv", "export {folder} -o x.onnx"])
def test_a_folder_that_is_no_run_is_said(command: str, tmp_path: Path) -> None:
    line = refused(*command.format(folder=tmp_path).split(), cwd=tmp_path)
    assert "not a run folder" in line


def test_a_recording_without_a_channel_of_the_detector_names_it(
    run_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("time,a,b\n" + ROWS)
    line = refused("evaluate", run_folder, "x.csv", cwd=tmp_path)
    assert "channel vibration, pressure" in line and "is missing" in line


def test_a_number_of_folds_that_cannot_be_is_said_before_anything_is_scored(
    trained_run: Run, tmp_path: Path
) -> None:
    save_run(tmp_path / "run", trained_run, [EpochLoss(1, 1.5, 1.25, 0.01)])
    write_recording(tmp_path / "run" / "healthy.csv", simulate_pump(hours=0.2, seed=1))
    write_recording(tmp_path / "x.csv", simulate_pump(hours=0.1, seed=2))
    line = refused("evaluate", "run", "x.csv", "--folds", 1, cwd=tmp_path)
    assert "--folds: expected 2–6, got 1" in line
    assert not (tmp_path / "run" / "evaluation").exists()


def test_an_export_to_another_suffix_is_refused(run_folder: Path, tmp_path: Path) -> None:
    assert ".onnx" in refused("export", run_folder, "-o", "pump.bin", cwd=tmp_path)


@pytest.mark.parametrize(
    ("fault", "said"), [("rust@1h", "rust"), ("stuck@1h", "stuck"), ("leak@soon", "soon")]
)
def test_a_fault_that_cannot_be_planted_is_said(fault: str, said: str, tmp_path: Path) -> None:
    assert said in refused("simulate", "pump", "--fault", fault, "-o", "x.csv", cwd=tmp_path)
