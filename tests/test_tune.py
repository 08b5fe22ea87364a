"""Tuning: the study file, the ledger of trials, workers that die, and what is chosen."""

import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.recording import write_recording
from edgernn.run import EpochLoss, Run
from edgernn.settings import read_settings
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train
from edgernn.tune import ledger as ledger_module
from edgernn.tune.conduct import conduct, make_objective, open_study
from edgernn.tune.findings import balanced, pareto_front, write_findings
from edgernn.tune.ledger import GRACE_S, OWNER, SURPLUS, Ledger, counted, make_sampler
from edgernn.tune.space import Dimension
from edgernn.tune.study import Plan, read_plan
from edgernn.tune.workers import Worker, WorkerDied
from edgernn_export.artefact import with_card
from edgernn_export.cost import artefact_bytes, step_us
from edgernn_export.graph import build_graph

TRAINING = """
[[recording]]
path = "healthy.csv"
[network]
hidden = 4
[training]
epochs = 2
streams = 4
chunk = 32
learning_rate = 0.01
device = "cpu"
"""
RATES = '"training.learning_rate" = { low = 0.001, high = 0.1, log = true }\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training file, its recording, and a labelled one; studies are added."""
    made = tmp_path_factory.mktemp("tune")
    write_recording(made / "healthy.csv", simulate_pump(hours=0.3, seed=1, stream="pump"))
    faults = [parse_fault("leak@6m")]
    write_recording(
        made / "faulty.csv", simulate_pump(hours=0.2, seed=2, faults=faults, stream="pump")
    )
    (made / "pump.toml").write_text(TRAINING)
    return made


def plan_of(folder: Path, search: str, *, study: str = "", name: str, more: str = "") -> Plan:
    path = folder / f"{name}.toml"
    path.write_text(f'train = "pump.toml"\n[study]\n{study}\n{more}\n[search]\n{search}')
    return read_plan(path)


def run(plan: Plan, output: Path, say: Callable[[str], None] = lambda _: None) -> Study:
    objective = make_objective(plan, None)
    with open_study(plan, objective, output, join=False) as study:
        conduct(plan, objective, study, say=say, stop=threading.Event())
    return study


def refusal(folder: Path, search: str, *, study: str = "", more: str = "") -> str:
    with pytest.raises(EdgernnError) as caught:
        plan_of(folder, search, study=study, name="refused", more=more)
    return str(caught.value).removeprefix(f"{folder / 'refused.toml'}: ")


# the study file


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ('"network.hiden" = { low = 1, high = 2 }', 'search."network.hiden": unknown key; '
         "[network] has kind, hidden"),
        ('"net" = { low = 1, high = 2 }', 'search."net": unknown key; the training file has'),
        ('"network" = { values = [1] }', 'search."network": is a table; expected one of its keys'),
        ('"network.hidden.x" = { values = [1] }', 'search."network.hidden.x": unknown key; '
         "[hidden] has no keys of its own"),
        ("network.hidden = { low = 1, high = 2 }", "search.network: expected quotes around"),
        ('"name" = { values = ["a"] }', 'search."name": all trials share it'),
        ('"network.hidden" = { low = 64, high = 8 }', 'search."network.hidden": low 64 is above '
         "high 8"),
        ('"network.hidden" = { low = 8, high = 9999 }', 'search."network.hidden": network.hidden: '
         "expected 1–"),
        ('"network.hidden" = { low = 8.5, high = 9 }', 'search."network.hidden": low: expected a '
         "whole number, got 8.5"),
        ('"network.hidden" = { low = "a", high = 9 }', 'search."network.hidden": low: Expected'),
        ('"network.hidden" = { low = 1, high = 9, step = 3 }', 'search."network.hidden": step: 3 '
         "does not lead from 1 to 9"),
        ('"network.hidden" = { low = 1 }', 'search."network.hidden": expected values, or low and'),
        ('"network.hidden" = 8', 'search."network.hidden": expected { low, high } or'),
        ('"network.hidden" = { values = [] }', 'search."network.hidden": values: expected at'),
        ('"network.hidden" = { values = [4, 4] }', 'search."network.hidden": values: 4 is there'),
        ('"network.hidden" = { values = [4], low = 1 }', 'search."network.hidden": expected '
         "values, or low and high, got both"),
        ('"network.hidden" = { values = ["big"] }', 'search."network.hidden": network.hidden: '
         "Expected `int`, got `str`"),
        ('"network.kind" = { low = 1, high = 2 }', 'search."network.kind": is not a number'),
        ('"network.kind" = { values = ["gry"] }', 'search."network.kind": network.kind: expected'),
        ('"training.learning_rate" = { low = 0, high = 1, log = true }',
         'search."training.learning_rate": low: expected above 0 with log = true, got 0'),
        ('"training.hide" = { low = 0.1, high = 0.3, log = true, step = 0.1 }',
         'search."training.hide": expected log or step, got both'),
        ('"alarm.recover_s" = { low = 1, high = 9 }', 'search."alarm.recover_s": expected [alarm] '
         "in the training file"),
        ('"score.window" = { low = 10, high = 90 }', 'search."score.window": the validation loss '
         "does not depend on it"),
        ('"training.validation" = { low = 0.1, high = 0.2 }', 'search."training.validation": '
         "changes what the validation loss is measured on"),
        ("", "search: expected at least one key to vary"),
    ],
)  # fmt: skip
def test_a_dimension_that_makes_no_sense_is_refused_with_its_key(
    folder: Path, search: str, said: str
) -> None:
    assert refusal(folder, search).startswith(said)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ('sampler = "annealing"', "study: sampler: expected one of grid, random, tpe, gp"),
        ('pruner = "never"', "study: pruner: expected one of none, median, hyperband"),
        ('quality = "auc"', "study: quality: expected one of loss, auc_pr, f1"),
        ('quality = "f1"', 'study.quality: "f1" is measured on labelled data'),
        ('against = "watts"', "study: against: expected one of bytes, step_us"),
        ("trials = 0", "study: trials: expected 1–"),
        ("workers = 0", "study: workers: expected 1–"),
        ("timeout_s = 0", "study: timeout_s: expected seconds above 0"),
        ('sampler = "grid"\ntrials = 3', "study: trials: a grid tries every point once"),
        ('against = "bytes"\npruner = "median"', 'study: pruner: expected "none" with two'),
        ('storage = "redis://x"', "study: storage: expected a file or postgresql://…, got redis:"),
        ('sampler = "grid"', 'search."training.learning_rate": a grid needs values, or a range'),
        ("trial = 3", "study: unknown key `trial`"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(folder: Path, study: str, said: str) -> None:
    assert refusal(folder, RATES, study=study).startswith(said)


def test_labels_that_nothing_is_chosen_by_are_refused(folder: Path) -> None:
    more = '[evaluate]\nrecording = "faulty.csv"'
    assert refusal(folder, RATES, more=more).startswith('evaluate: quality "loss" uses no labels')


def test_labelled_data_without_a_fault_are_refused_before_the_first_trial(folder: Path) -> None:
    more = '[evaluate]\nrecording = "healthy.csv"'
    plan = plan_of(folder, RATES, study='quality = "f1"', name="unlabelled", more=more)
    opening = open_study(plan, make_objective(plan, None), folder / "unlabelled", join=False)
    with (
        pytest.raises(EdgernnError, match=r"healthy\.csv: expected rows labelled as faults"),
        opening,
    ):
        pass


def test_a_whole_number_for_a_key_with_fractions_means_all_between(folder: Path) -> None:
    search = '"training.clip_norm" = { low = 1, high = 5 }'
    distributions = plan_of(folder, search, name="whole").space.distributions()
    assert distributions == {"training.clip_norm": FloatDistribution(1.0, 5.0)}


@given(st.integers(-50, 50), st.integers(1, 9), st.integers(0, 9), st.sampled_from([1, 0.1, 0.05]))
def test_a_grid_has_every_step_of_a_range(low: int, step: int, count: int, unit: float) -> None:
    start, end = round(low * unit, 9), round((low + count * step) * unit, 9)
    points = Dimension(low=start, high=end, step=round(step * unit, 9)).points()
    assert (points[0], points[-1], len(points)) == (start, end, count + 1)


def test_the_example_is_a_sound_study() -> None:
    plan = read_plan(Path(__file__).parents[1] / "examples" / "study.toml")
    assert plan.study.objectives == ("loss", "bytes")


def test_a_value_that_needs_another_keys_value_is_allowed_beside_it(folder: Path) -> None:
    kinds = '"head.kinds" = { values = [["forecast"], ["encoder-decoder"]] }\n'
    window = '"head.window" = { low = 20, high = 60 }\n'
    more = '[evaluate]\nrecording = "faulty.csv"'
    study = 'quality = "f1"'
    search = kinds + window + '"training.chunk" = { values = [16, 64] }'
    space = plan_of(folder, search, study=study, name="pair", more=more).space
    label = '["encoder-decoder"]'
    point: dict[str, str | int] = {"head.kinds": label, "head.window": 60, "training.chunk": 64}
    assert space.config_of(point).head.kinds == ("encoder-decoder",)
    with pytest.raises(EdgernnError, match=r"these values exclude each other: head\.window: 60"):
        space.config_of({**point, "training.chunk": 16})


# running


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
    assert lines[-1] == f"next: edgernn train {path}"
    rows = (path.parent / "trials.csv").read_text().splitlines()
    assert rows[0] == "trial,state,loss,training.learning_rate,seconds,front,reason"
    assert len(rows) == 4


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
    worker = Worker(make_objective(plan, None))
    (process,) = multiprocessing.active_children()
    process.kill()
    process.join()
    with pytest.raises(WorkerDied):
        worker.start(plan.config)
    worker.kill()


def test_stopped_by_ctrl_c_and_killed_the_same_command_goes_on_to_the_end(folder: Path) -> None:
    (folder / "slow.toml").write_text(TRAINING.replace("epochs = 2", "epochs = 20"))
    (folder / "stopped.toml").write_text(
        f'train = "slow.toml"\n[study]\ntrials = 6\nworkers = 2\npruner = "none"\n[search]\n{RATES}'
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
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "was lost with its process; tried again" in done.stderr
    assert "next: edgernn train studies/stopped/best.toml" in done.stdout
    rows = (folder / "studies/stopped/trials.csv").read_text().splitlines()[1:]
    assert len(rows) == 6
    assert {row.split(",")[1] for row in rows} == {"complete"}


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
        with open_study(plan, make_objective(plan, None), tmp_path, join=False):
            pass

    begin(RATES)
    begin(RATES)  # the same again is welcome
    with pytest.raises(EdgernnError, match='the study "same" was begun with another search'):
        begin('"network.hidden" = { low = 2, high = 4 }')
    write_recording(tmp_path / "healthy.csv", simulate_pump(hours=0.3, seed=9, stream="pump"))
    (tmp_path / "pump.toml").write_text(TRAINING)
    plan = plan_of(tmp_path, RATES, study='name = "same"', name="same")
    opening = open_study(plan, make_objective(plan, None), tmp_path, join=False)
    with pytest.raises(EdgernnError, match="was begun with another recording"), opening:
        pass


def test_a_study_that_is_not_there_cannot_be_joined(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, RATES, name="absent")
    opening = open_study(plan, make_objective(plan, None), tmp_path, join=True)
    with pytest.raises(EdgernnError, match='no study "absent" to join'), opening:
        pass


def test_a_database_that_is_not_there_is_said_without_the_password(
    folder: Path, tmp_path: Path
) -> None:
    address = "postgresql://me:secret@127.0.0.1:1/none"
    plan = plan_of(folder, RATES, study=f'storage = "{address}"', name="database")
    opening = open_study(plan, make_objective(plan, None), tmp_path, join=False)
    with (
        pytest.raises(EdgernnError, match=r"study\.storage: the database cannot be") as caught,
        opening,
    ):
        pass
    assert "secret" not in str(caught.value)


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a PostgreSQL server of its own, on a socket."""
    if shutil.which("initdb") is None:
        pytest.skip("no PostgreSQL on the PATH")
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="pg") as made:  # a socket's path must be short
        if user is not None:
            shutil.chown(made, user)
        begin = ["initdb", "-D", f"{made}/data", "-U", "me", "-A", "trust", "--no-sync"]
        subprocess.run(begin, user=user, cwd=made, check=True, timeout=60, capture_output=True)
        serve = ["postgres", "-D", f"{made}/data", "-k", made, "-c", "listen_addresses="]
        server = subprocess.Popen(serve, user=user, cwd=made, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            next(line for line in server.stderr if "ready to accept connections" in line)
            yield f"postgresql://me@/postgres?host={made}"
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)


def test_two_that_share_a_database_share_the_trials(folder: Path, database: str) -> None:
    keys = f'storage = "{database}"\ntrials = 8'
    plan = plan_of(folder, RATES, study=keys, name="shared")
    objective = make_objective(plan, None)
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
    assert [trial.state.is_finished() for trial in kept] == [True] * 8
    assert {trial.user_attrs[OWNER][1] for trial in kept} == {os.getpid(), other.pid}
    assert len({trial.params["training.learning_rate"] for trial in kept}) == 8


# the ledger

SPACE: dict[str, BaseDistribution] = {"x": IntDistribution(0, 10_000)}


def ledger_of(study: Study, *, wanted: int) -> Ledger:
    return Ledger(study, wanted=wanted, space=SPACE, prunes=False)


class LateReader(Ledger):
    """Sees no trial at its first look: another machine's came in between."""

    looked = False

    def counted(self) -> list[FrozenTrial]:
        found = super().counted() if self.looked else []
        self.looked = True
        return found


def test_two_that_begin_the_last_trial_at_the_same_time_begin_it_once() -> None:
    study = optuna.create_study()
    first = ledger_of(study, wanted=1)
    assert first.next() is not None
    assert LateReader(study, wanted=1, space=SPACE, prunes=False).next() is None
    assert [SURPLUS in trial.user_attrs for trial in study.trials] == [False, True]
    assert len(counted(study)) == 1


def test_a_trial_of_a_dead_process_is_tried_again_at_once_and_then_given_up() -> None:
    study = optuna.create_study()
    ledger = ledger_of(study, wanted=1)
    values = []
    for _ in range(2):
        trial = ledger_of(study, wanted=1).next()
        assert trial is not None
        place, pid, started, beats = trial.user_attrs[OWNER]
        trial.set_user_attr(OWNER, [place, pid, started + 1, beats])  # the id went to another
        values.append(trial.params["x"])
        ledger.elsewhere()
    assert values[0] == values[1]
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.FAIL]
    assert ledger.next() is None


def test_a_trial_of_another_machine_is_lost_when_its_beat_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()
    theirs, ours = (ledger_of(study, wanted=1) for _ in range(2))
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(ledger_module, "_place", lambda: "there")
    assert theirs.next() is not None
    monkeypatch.undo()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for _ in range(3):
        assert ours.elsewhere() == [0]
        clock[0] += 0.9 * GRACE_S
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, "_place", lambda: "there")
            theirs.beat()
    assert ours.elsewhere() == [0]
    assert study.trials[0].state == TrialState.RUNNING
    clock[0] += 1.1 * GRACE_S
    ours.elsewhere()
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    again = ours.next()
    assert again is not None
    assert again.params == study.trials[0].params


@pytest.mark.parametrize("name", ["random", "tpe", "gp"])
def test_a_sampler_draws_the_same_for_the_same_seed_and_looks_where_it_is_good(name: str) -> None:
    def draws(seed: int) -> list[float]:
        study = optuna.create_study(sampler=make_sampler(name, seed=seed))
        for _ in range(14):
            trial = study.ask({"x": FloatDistribution(-1.0, 1.0)})
            study.tell(trial, (trial.params["x"] - 0.3) ** 2)
        return [trial.params["x"] for trial in study.trials]

    first = draws(5)
    assert first == draws(5)
    assert first != draws(6)
    if name == "gp":  # a parabola is known after ten points
        assert max(abs(x - 0.3) for x in first[-2:]) < 0.1


# what is chosen


def trial_at(*values: float, x: int = 1) -> FrozenTrial:
    return create_trial(values=values, params={"x": x}, distributions=SPACE)


def numbered(*points: tuple[float, ...]) -> list[FrozenTrial]:
    study = optuna.create_study(directions=["minimize"] * len(points[0]))
    for point in points:
        study.add_trial(trial_at(*point))
    return study.trials


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_holds_what_nothing_beats_and_its_best_compromise(
    points: list[tuple[int, int]],
) -> None:
    trials = numbered(*points)
    front = pareto_front(trials, ("minimize", "minimize"))
    unbeaten = {
        p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)
    }
    assert {tuple(t.values) for t in front} == unbeaten
    assert len(front) == len(unbeaten)
    assert balanced(front, ("minimize", "minimize")) in front


def test_the_balanced_point_gives_up_little_of_both() -> None:
    front = numbered((0.0, 100.0), (0.1, 20.0), (1.0, 0.0))
    assert balanced(front, ("minimize", "minimize")).number == 1


def test_the_best_of_one_objective_is_the_largest_where_larger_is_better() -> None:
    (best,) = pareto_front(numbered((0.2,), (0.9,), (0.9,)), ("maximize",))
    assert best.number == 1


def test_two_objectives_leave_a_front_of_training_files_and_pictures(
    folder: Path, tmp_path: Path
) -> None:
    search = '"network.hidden" = { low = 2, high = 64 }\n' + RATES
    plan = plan_of(folder, search, study='against = "bytes"\ntrials = 12', name="two")
    study = optuna.create_study(directions=list(plan.directions))
    for i in range(12):
        rate, hidden = 10 ** (-3 + i / 6), 2 + 7 * ((5 * i) % 9)
        params = {"network.hidden": hidden, "training.learning_rate": rate}
        loss = 1 / hidden + (math.log10(rate) + 2) ** 2
        study.add_trial(
            create_trial(
                values=(loss, 9000.0 + 10 * hidden**2),
                params=params,
                distributions=plan.space.distributions(),
            )
        )
    (tmp_path / "front").mkdir()
    (tmp_path / "front" / "trial-999.toml").touch()  # of an earlier look at the study
    lines = write_findings(study, plan, tmp_path)
    front = pareto_front(study.trials, plan.directions)
    assert len(front) > 1
    names = {path.name for path in (tmp_path / "front").iterdir()}
    assert names == {f"trial-{trial.number}.toml" for trial in front}
    one = read_settings(tmp_path / "front" / f"trial-{front[0].number}.toml", Config)
    assert one.network.hidden == front[0].params["network.hidden"]
    best = read_settings(tmp_path / "best.toml", Config)
    assert len(read_recordings(best, tmp_path).tracks) == 1
    assert sum(line.startswith("*") for line in lines) == len(front)
    for picture in ("history.png", "importance.png", "pareto.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_study_without_a_complete_trial_says_why(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, RATES, name="none")
    study = optuna.create_study()
    trial = study.ask(plan.space.distributions())
    trial.set_user_attr("error", "training diverged")
    study.tell(trial, state=TrialState.FAIL)
    with pytest.raises(EdgernnError, match="no trial was completed; the last one failed: training"):
        write_findings(study, plan, tmp_path)
    assert "training diverged" in (tmp_path / "trials.csv").read_text()


def test_the_price_of_a_detector_is_that_of_integer_weights_on_the_devices_engine(
    trained_run: Run,
) -> None:
    weights = sum(p.numel() for p in trained_run.detector.parameters())
    whole = len(with_card(build_graph(trained_run.detector), trained_run.card))
    saved = whole - artefact_bytes(trained_run)  # 2 or 3 bytes of 4 a weight, less the scales
    assert weights < saved < 3 * weights
    assert 1 < step_us(trained_run) < 1e6
