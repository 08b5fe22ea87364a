"""The study file: what is searched, and what makes no sense."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from studies import RATES, make_study_folder, plan_of

from edgernn.errors import EdgernnError
from edgernn.tune.conduct import make_objective, open_study
from edgernn.tune.space import Dimension
from edgernn.tune.study import read_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study_folder(tmp_path_factory.mktemp("tune"))


def refusal(folder: Path, search: str, *, study: str = "", more: str = "") -> str:
    with pytest.raises(EdgernnError) as caught:
        plan_of(folder, search, study=study, name="refused", more=more)
    return str(caught.value).removeprefix(f"{folder / 'refused.toml'}: ")


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
        ('"network.hidden" = { low = "a", high = 9 }', 'search."network.hidden": low: expected a '
         "number, got text"),
        ('"network.hidden" = { low = 1, high = 9, step = 3 }', 'search."network.hidden": step: 3 '
         "does not lead from 1 to 9"),
        ('"network.hidden" = { low = 1 }', 'search."network.hidden": expected values, or low and'),
        ('"network.hidden" = 8', 'search."network.hidden": expected { low, high } or'),
        ('"network.hidden" = { values = [] }', 'search."network.hidden": values: expected at'),
        ('"network.hidden" = { values = [4, 4] }', 'search."network.hidden": values: 4 is there'),
        ('"network.hidden" = { values = [4], low = 1 }', 'search."network.hidden": expected '
         "values, or low and high, got both"),
        ('"network.hidden" = { values = ["big"] }', 'search."network.hidden": network.hidden: '
         "expected a whole number, got text"),
        ('"network.kind" = { low = 1, high = 2 }', 'search."network.kind": is not a number'),
        ('"network.kind" = { values = ["gry"] }', 'search."network.kind": network.kind: expected'),
        ('"training.learning_rate" = { low = 0, high = 1, log = true }',
         'search."training.learning_rate": low: expected above 0 with log = true, got 0'),
        ('"training.hide" = { low = 0.1, high = 0.3, log = true, step = 0.1 }',
         'search."training.hide": expected log or step, got both'),
        ('"alarm.recover_s" = { low = 1, high = 9 }', 'search."alarm.recover_s": the validation '
         "loss does not depend on it"),
        ('"score.window" = { low = 10, high = 90 }', 'search."score.window": the validation loss '
         "does not depend on it"),
        ('"training.validation" = { low = 0.1, high = 0.2 }', 'search."training.validation": '
         "changes what the validation loss is measured on"),
        ('"task" = { values = ["anomaly", "forecast"] }', 'search."task": all trials share it'),
        ('"forecast.horizon" = { low = 1, high = 9 }', 'search."forecast.horizon": '),
        ('"network.look_ahead" = { low = 0, high = 9 }', 'search."network.look_ahead": '),
        ('"network.direction" = { values = ["causal", "bidirectional"] }\n'
         '"network.look_ahead" = { low = 1, high = 9 }', 'search."network.direction": '),
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
        ('sampler = "annealing"', "study.sampler: expected one of grid, random, tpe, gp"),
        ('pruner = "never"', "study.pruner: expected one of none, median, hyperband"),
        ('quality = "auc"', "study.quality: expected one of loss, auc_pr, f1"),
        ('quality = "f1"', 'study.quality: "f1" is measured on labelled data'),
        ('against = "watts"', "study.against: expected one of bytes, step_us"),
        ("trials = 0", "study.trials: expected 1–"),
        ("workers = 0", "study.workers: expected 1–"),
        ("timeout_s = 0", "study.timeout_s: expected seconds above 0"),
        ('sampler = "grid"\ntrials = 3', "study.trials: a grid tries every point once"),
        ('against = "bytes"\npruner = "median"', 'study.pruner: expected "none" with two'),
        ('storage = "redis://x"', "study.storage: expected a file or postgresql://…, got redis:"),
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
    opening = open_study(
        plan, make_objective(plan, None, folder), folder / "unlabelled", join=False
    )
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


def test_a_value_may_need_those_of_two_other_keys(folder: Path, tmp_path: Path) -> None:
    """The file's minGRU looks back only: 8 samples ahead need another kind and direction."""
    text = (folder / "pump.toml").read_text().replace("hidden = 4", 'hidden = 4\nkind = "mingru"')
    (tmp_path / "pump.toml").write_text(text)
    search = (
        '"network.kind" = { values = ["gru", "mingru"] }\n'
        '"network.direction" = { values = ["causal", "bidirectional"] }\n'
        '"network.look_ahead" = { low = 0, high = 8 }'
    )
    more = '[evaluate]\nrecording = "faulty.csv"'
    space = plan_of(tmp_path, search, study='quality = "f1"', name="ahead", more=more).space
    point: dict[str, str | int] = dict(zip(space.keys, ("gru", "bidirectional", 8), strict=True))
    assert space.config_of(point).network.look_ahead == 8
