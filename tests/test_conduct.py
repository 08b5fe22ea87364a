"""A study conducted: trials dealt out, gone on with, shared, and not mixed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from studies import RATES, TRAINING, make_study_folder, plan_of, run

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.recording import Track, write_recording
from edgernn.settings import read_settings
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train
from edgernn.tune.conduct import conduct, make_objective, open_study
from edgernn.tune.findings import write_findings
from edgernn.tune.ledger import IMPOSSIBLE, OWNER, counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study_folder(tmp_path_factory.mktemp("tune"))


def test_a_grid_is_covered_once_by_two_workers(folder: Path) -> None:
    search = '"network.hidden" = { low = 2, high = 3 }\n"training.hide" = { values = [0.0, 0.1] }'
    plan = plan_of(folder, search, study='sampler = "grid"\nworkers = 2', name="grid")
    lines: list[str] = []
    study = run(plan, folder / "grid", lines.append)
    points = [(t.params["network.hidden"], t.params["training.hide"]) for t in study.trials]
    assert sorted(points) == sorted(product((2, 3), (0.0, 0.1)))
    assert sum(line.startswith("trial ") for line in lines) == 4


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(folder: Path) -> None:
    def outcome(name: str, trials: int) -> list[tuple[object, ...]]:
        plan = plan_of(folder, RATES, study=f'name = "s"\ntrials = {trials}', name=name)
        study = run(plan, folder / name)
        return [(t.number, t.params, t.values) for t in study.trials]

    straight = outcome("straight", 4)
    assert outcome("halves", 2) == straight[:2]
    assert outcome("halves", 4) == straight


def test_the_best_trial_trains_again_to_the_same_loss(folder: Path) -> None:
    plan = plan_of(folder, RATES, study="trials = 3", name="best")
    study = run(plan, folder / "deep" / "best")
    lines = write_findings(study, plan, folder / "deep" / "best")
    path = folder / "deep" / "best" / "best.toml"
    config = read_settings(path, Config)
    _, losses = train(config, read_recordings(config, path.parent), name="again")
    assert min(row.validation for row in losses) == study.best_value
    assert lines[-1] == f"next: edgernn train {path} -o runs/best"
    rows = (path.parent / "trials.csv").read_text().splitlines()
    assert rows[0] == "trial,state,loss,training.learning_rate,seconds,front,reason"
    assert len(rows) == 4


def test_a_trial_that_cannot_be_trained_fails_with_its_reason_and_others_go_on(
    folder: Path,
) -> None:
    more = '[evaluate]\nrecording = "faulty.csv"'
    study_keys = 'sampler = "grid"\nquality = "auc_pr"'
    search = '"score.window" = { values = [10, 90_000] }'
    plan = plan_of(folder, search, study=study_keys, name="labelled", more=more)
    study = run(plan, folder / "labelled")
    lines = write_findings(study, plan, folder / "labelled")
    short, long = sorted(study.trials, key=lambda t: t.params["score.window"])
    assert 0.3 < short.values[0] <= 1
    assert "record longer" in long.user_attrs["error"]
    assert any("no honest test any more" in line for line in lines)
    assert "record longer" in (folder / "labelled" / "trials.csv").read_text()


def test_a_study_begun_with_another_search_or_other_data_is_not_mixed(
    folder: Path, tmp_path: Path
) -> None:
    def begin(search: str) -> None:
        plan = plan_of(folder, search, study='name = "same"', name="same")
        with open_study(plan, make_objective(plan, None, folder), tmp_path, join=False):
            pass

    begin(RATES)
    begin(RATES)  # the same again is welcome
    with pytest.raises(EdgernnError, match='the study "same" was begun with another search'):
        begin('"network.hidden" = { low = 2, high = 4 }')
    write_recording(tmp_path / "healthy.csv", simulate_pump(hours=0.3, seed=9, stream="pump"))
    (tmp_path / "pump.toml").write_text(TRAINING)
    plan = plan_of(tmp_path, RATES, study='name = "same"', name="same")
    opening = open_study(plan, make_objective(plan, None, folder), tmp_path, join=False)
    with pytest.raises(EdgernnError, match="was begun with another recording"), opening:
        pass


def test_a_study_that_is_not_there_cannot_be_joined(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, RATES, name="absent")
    opening = open_study(plan, make_objective(plan, None, folder), tmp_path, join=True)
    with pytest.raises(EdgernnError, match='no study "absent" to join'), opening:
        pass


def test_a_database_that_is_not_there_is_said_without_the_password(
    folder: Path, tmp_path: Path
) -> None:
    address = "postgresql://me:secret@127.0.0.1:1/none"
    plan = plan_of(folder, RATES, study=f'storage = "{address}"', name="database")
    opening = open_study(plan, make_objective(plan, None, folder), tmp_path, join=False)
    with (
        pytest.raises(EdgernnError, match=r"study\.storage: the database cannot be") as caught,
        opening,
    ):
        pass
    assert "secret" not in str(caught.value)


def find_postgresql(name: str) -> str | None:
    """One of its programs; Debian leaves those of a server off the PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a PostgreSQL server of its own, on a socket."""
    programs = [path for name in ("initdb", "postgres") if (path := find_postgresql(name))]
    if len(programs) < 2:
        pytest.skip("no PostgreSQL on the PATH or in /usr/lib/postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="pg") as made:  # a socket's path must be short
        if user is not None:
            shutil.chown(made, user)
        begin = [programs[0], "-D", f"{made}/data", "-U", "me", "-A", "trust", "--no-sync"]
        subprocess.run(begin, user=user, cwd=made, check=True, timeout=60, capture_output=True)
        serve = [programs[1], "-D", f"{made}/data", "-k", made, "-c", "listen_addresses="]
        server = subprocess.Popen(serve, user=user, cwd=made, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            next(line for line in server.stderr if "ready to accept connections" in line)
            yield f"postgresql://me@/postgres?host={made}"
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)


def test_two_that_share_a_database_share_the_trials(folder: Path, database: str) -> None:
    keys = f'storage = "{database}"\ntrials = 4'
    plan = plan_of(folder, RATES, study=keys, name="shared")
    objective = make_objective(plan, None, folder)
    opening = open_study(plan, objective, folder / "shared", join=False)
    command = [sys.executable, "-m", "edgernn", "tune", "shared.toml", "--join"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        opening as study,
        subprocess.Popen(
            command, cwd=folder, text=True, stdout=subprocess.PIPE, env=environment
        ) as other,
    ):
        told: list[str] = []

        def wait_for_the_other(_: str) -> None:
            assert other.stdout is not None
            if not told:
                told.append(next(line for line in other.stdout if line.startswith("trial ")))

        conduct(plan, objective, study, say=wait_for_the_other, stop=threading.Event())
        other.communicate(timeout=60)
        kept = counted(study)
    assert other.returncode == 0
    assert [trial.state.is_finished() for trial in kept] == [True] * 4
    assert {trial.user_attrs[OWNER][1] for trial in kept} == {os.getpid(), other.pid}
    assert len({trial.params["training.learning_rate"] for trial in kept}) == 4


def test_labels_that_were_moved_are_other_data(folder: Path, tmp_path: Path) -> None:
    def begin(fault: str) -> None:
        made = simulate_pump(hours=0.2, seed=2, faults=[parse_fault("leak@6m")], stream="pump")
        (track,) = made.tracks
        label = np.where(np.arange(len(track.x)) < 300, "", fault)
        moved = replace(made, tracks=(Track("pump", track.time_s, track.x, label),))
        write_recording(tmp_path / "faulty.csv", moved)
        plan = plan_of(tmp_path, RATES, study='quality = "f1"', name="labels", more=more)
        with open_study(plan, make_objective(plan, None, folder), tmp_path, join=False):
            pass

    more = '[evaluate]\nrecording = "faulty.csv"'
    make_study_folder(tmp_path)
    begin("leak")
    begin("leak")
    with pytest.raises(EdgernnError, match="was begun with another labelled recording"):
        begin("wear")


def test_values_that_exclude_each_other_are_listed_and_others_tried(
    folder: Path, tmp_path: Path
) -> None:
    search = (
        '"training.optimizer" = { values = ["adam", "adamw", "sgd"] }\n'
        '"training.momentum" = { values = [0.0, 0.5, 0.9] }'
    )
    plan = plan_of(folder, search, study='trials = 3\nsampler = "random"', name="pairs")
    study = run(plan, tmp_path)
    excluded = [trial for trial in study.trials if IMPOSSIBLE in trial.user_attrs]
    assert 0 < len(excluded) == len(study.trials) - 3
    write_findings(study, plan, tmp_path)
    rows = (tmp_path / "trials.csv").read_text().splitlines()[1:]
    assert len(rows) == len(study.trials)
    assert sum("these values exclude each other" in row for row in rows) >= len(excluded)
