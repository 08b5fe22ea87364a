"""What is chosen of a study's trials, and what they cost."""

import math
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial
from studies import RATES, SPACE, make_study_folder, plan_of

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.run import Run
from edgernn.settings import read_settings
from edgernn.training.stretches import read_recordings
from edgernn.tune.findings import balanced, pareto_front, write_findings
from edgernn_export import cost
from edgernn_export.artefact import with_card
from edgernn_export.cost import artefact_bytes, step_us
from edgernn_export.graph import build_graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study_folder(tmp_path_factory.mktemp("tune"))


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
    trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(p.numel() for p in trained_run.detector.parameters())
    graph = build_graph(trained_run.detector)
    monkeypatch.setattr(cost, "build_graph", lambda _: graph)  # slow, and the same each time
    whole = len(with_card(graph, trained_run.card))
    saved = whole - artefact_bytes(trained_run)  # 2 or 3 bytes of 4 a weight, less the scales
    assert weights < saved < 3 * weights
    assert 1 < step_us(trained_run) < 1e6
