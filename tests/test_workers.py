"""Workers that die, and studies that are stopped: what is lost, and what goes on."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from optuna.trial import Trial, TrialState
from studies import RATES, TRAINING, make_study_folder, plan_of, run

from edgernn.config import Config
from edgernn.run import EpochLoss
from edgernn.tune import conduct as conduct_module
from edgernn.tune.conduct import make_objective
from edgernn.tune.ledger import Ledger, counted
from edgernn.tune.workers import Worker, WorkerDied
from edgernn_export.cli import tune


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study_folder(tmp_path_factory.mktemp("tune"))


def test_killed_workers_lose_only_the_trials_they_were_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(folder, RATES, study="trials = 5\nworkers = 2", name="killed")
    killed: list[int | None] = []
    goes_on = Ledger.goes_on

    def kill_all_once(self: Ledger, trial: Trial, loss: EpochLoss) -> bool:
        """Every worker is in the middle of a trial: none ends without an answer to an epoch."""
        if not killed:
            for process in multiprocessing.active_children():
                process.kill()
                process.join()
                killed.append(process.exitcode)
        return goes_on(self, trial, loss)

    monkeypatch.setattr(Ledger, "goes_on", kill_all_once)
    lines: list[str] = []
    study = run(plan, folder / "killed", lines.append)
    assert killed == [-signal.SIGKILL] * 2
    died = [line for line in lines if "its worker died" in line]
    assert [line.endswith("tried again") for line in died] == [True, True]
    assert [t.state for t in study.trials[:2]] == [TrialState.FAIL, TrialState.FAIL]
    kept = counted(study)
    assert {t.state for t in kept} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(kept) == 5
    lost = [trial.params for trial in study.trials[:2]]
    assert all(params in [trial.params for trial in kept] for params in lost)


def test_a_worker_that_died_while_it_was_idle_is_noticed(folder: Path) -> None:
    plan = plan_of(folder, RATES, name="idle")
    worker = Worker(make_objective(plan, None, folder))
    (process,) = multiprocessing.active_children()
    process.kill()
    process.join()
    with pytest.raises(WorkerDied):
        worker.start(plan.config)
    worker.kill()


def test_workers_that_die_as_they_are_started_cost_their_trials_and_not_the_study(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stillborn(Worker):
        def start(self, config: Config) -> None:
            raise WorkerDied

    monkeypatch.setattr(conduct_module, "Worker", Stillborn)
    plan = plan_of(folder, RATES, study="trials = 2", name="stillborn")
    lines: list[str] = []
    study = run(plan, folder / "stillborn", lines.append)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 4
    assert [line.split("; ")[1] for line in lines] == ["tried again", "given up"] * 2
    assert multiprocessing.active_children() == []


def test_stopped_by_ctrl_c_and_killed_the_same_command_goes_on_to_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "slow.toml").write_text(TRAINING.replace("epochs = 2", "epochs = 20"))
    (folder / "stopped.toml").write_text(
        f'train = "slow.toml"\n[study]\ntrials = 3\npruner = "none"\n[search]\n{RATES}'
    )
    command = [sys.executable, "-m", "edgernn", "tune", "stopped.toml"]

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("trial "))
        time.sleep(0.3)  # less than a trial takes: the next ones are under way
        return process

    interrupted = start()
    interrupted.send_signal(signal.SIGINT)
    said, _ = interrupted.communicate(timeout=60)
    assert (interrupted.returncode, said.splitlines()[-1]) == (
        130,
        "stopped; go on with: edgernn tune stopped.toml",
    )
    killed = start()
    killed.kill()
    killed.communicate(timeout=60)
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(tune, ["stopped.toml"], catch_exceptions=False)
    assert "was lost with its process; tried again" in caplog.text
    assert "next: edgernn train studies/stopped/best.toml" in done.stdout
    rows = (folder / "studies/stopped/trials.csv").read_text().splitlines()[1:]
    assert len(rows) == 3
    assert {row.split(",")[1] for row in rows} == {"complete"}
