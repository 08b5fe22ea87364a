"""The ledger of trials: which may begin, which is whose, which was lost."""

import time

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from studies import SPACE

from edgernn.tune import ledger as ledger_module
from edgernn.tune.ledger import GRACE_S, OWNER, SURPLUS, Ledger, counted, listed, make_sampler


def ledger_of(study: Study, *, wanted: int) -> Ledger:
    return Ledger(study, wanted=wanted, space=SPACE, prunes=False)


def test_two_that_begin_the_last_trial_at_the_same_time_begin_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()
    first = ledger_of(study, wanted=1)
    assert first.next() is not None
    looks: list[int] = []

    def late(study: Study) -> list[FrozenTrial]:
        """No trial at the first look: another machine's came in between."""
        looks.append(1)
        return counted(study) if len(looks) > 1 else []

    monkeypatch.setattr(ledger_module, "counted", late)
    assert ledger_of(study, wanted=1).next() is None
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


def test_a_trial_whose_values_exclude_each_other_is_replaced_for_as_many_as_are_wanted() -> None:
    study = optuna.create_study()
    ledger = ledger_of(study, wanted=2)
    while (trial := ledger.next()) is not None:
        ledger.impossible(trial, "no such pair")
    assert (len(listed(study)), len(counted(study))) == (4, 2)
    assert {trial.user_attrs["error"] for trial in study.trials} == {"no such pair"}


def test_a_point_of_a_grid_is_not_replaced() -> None:
    study = optuna.create_study()
    ledger = Ledger(study, wanted=2, space=SPACE, prunes=False, replaces=False)
    while (trial := ledger.next()) is not None:
        ledger.impossible(trial, "no such pair")
    assert len(study.trials) == len(counted(study)) == 2
