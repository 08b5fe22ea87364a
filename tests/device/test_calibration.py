"""Budgets to thresholds: what was asked for is what healthy scores of known statistics lead to."""

import math

import numpy as np
import pytest
from cards import TAIL, make_tail
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.calibration import (
    SECONDS,
    enter_threshold,
    leave_threshold,
    parse_budget,
    samples_to_confirm,
)
from edgernn.card import AlarmRule
from edgernn.errors import EdgernnError

Scores = NDArray[np.float64]

SAMPLES = 2_000_000
BUDGETS = ["1/minute", "10/hour", "5/hour", "1/hour", "3/day", "1/day", "1/week", "1/year"]
THETAS = st.floats(0.02, 1.0)


def threshold(
    budget: str, *, theta: float = 0.5, views: int = 1, min_duration_s: float = 0.0
) -> float:
    rule = AlarmRule(false_alarms=budget, min_duration_s=min_duration_s)
    return enter_threshold(rule, (make_tail(extremal_index=theta),) * views, period_s=1.0)


def lone_scores(*, seed: int) -> Scores:
    """(T,) independent exponential surprise as −log10 p: θ = 1."""
    return np.random.default_rng(seed).exponential(size=SAMPLES) / math.log(10)


def clustered_scores(theta: float, *, seed: int) -> Scores:
    """(T,) −log10 p of a max-autoregressive process, whose extremal index is `theta` and whose
    clusters have geometric lengths (Davis and Resnick 1989)."""
    fresh = -theta / np.log(np.random.default_rng(seed).random(SAMPLES))
    log_keep = math.log1p(-theta)
    steps = log_keep * np.arange(SAMPLES)  # X_t = max over s ≤ t of keep^(t−s)·fresh_s
    log_x = steps + np.maximum.accumulate(np.log(fresh) - steps)
    p: Scores = -np.expm1(-np.exp(-log_x))  # unit Fréchet
    return -np.log10(p)


def alarms_per_sample(scores: Scores, enter: float, *, samples: int) -> float:
    """Runs of at least `samples` scores above the threshold."""
    edges = np.flatnonzero(np.diff((scores >= enter).astype(np.int8), prepend=0, append=0))
    lengths = edges[1::2] - edges[::2]
    return float((lengths >= samples).sum()) / len(scores)


def test_lone_exceedances_raise_as_many_alarms_as_the_budget() -> None:
    rate = alarms_per_sample(lone_scores(seed=1), threshold("3/hour", theta=1.0), samples=1)
    assert rate == pytest.approx(3 / 3600, rel=0.1)  # 1667 alarms: 2.4 % of standard error


@pytest.mark.parametrize("theta", [0.05, 0.2, 0.5])
def test_clustered_exceedances_raise_as_many_alarms_as_the_budget(theta: float) -> None:
    scores = clustered_scores(theta, seed=2)
    rate = alarms_per_sample(scores, threshold("3/hour", theta=theta), samples=1)
    assert rate == pytest.approx(3 / 3600, rel=0.1)


@pytest.mark.parametrize("min_duration_s", [1.0, 5.0, 10.0])
def test_clusters_that_must_last_raise_as_many_alarms_as_the_budget(min_duration_s: float) -> None:
    enter = threshold("3/hour", theta=0.2, min_duration_s=min_duration_s)
    samples = int(min_duration_s) + 1
    rate = alarms_per_sample(clustered_scores(0.2, seed=3), enter, samples=samples)
    assert rate == pytest.approx(3 / 3600, rel=0.15)  # at such low thresholds clusters touch


def test_clusters_taken_for_lone_exceedances_would_cost_sensitivity() -> None:
    assert threshold("1/day", theta=1.0) - threshold("1/day", theta=0.1) == pytest.approx(1.0, 0.01)


def test_the_largest_of_two_views_has_the_threshold_at_half_the_rate_each() -> None:
    assert threshold("1/day", views=2) == pytest.approx(threshold("1/day", views=1), abs=1e-3)


@given(THETAS, st.floats(0, 60))
def test_a_smaller_budget_never_lowers_the_threshold(theta: float, min_duration_s: float) -> None:
    found = [threshold(b, theta=theta, min_duration_s=min_duration_s) for b in BUDGETS]
    assert found == sorted(found)


@given(st.sampled_from(BUDGETS[1:]), st.floats(0.02, 0.99), st.integers(0, 60), st.integers(1, 60))
def test_a_longer_minimum_duration_lowers_the_threshold(
    budget: str, theta: float, seconds: int, more: int
) -> None:
    short = threshold(budget, theta=theta, min_duration_s=seconds)
    long = threshold(budget, theta=theta, min_duration_s=seconds + more)
    assert long < short or long == short == pytest.approx(0, abs=1e-9)


def test_a_week_at_one_sample_a_second_has_a_threshold_near_six() -> None:
    p = 10 ** -threshold("1/week", theta=1.0)
    assert p == pytest.approx(1 / SECONDS["week"], rel=1e-5)


def test_a_slower_sensor_has_fewer_samples_to_be_wrong_on() -> None:
    rule = AlarmRule(false_alarms="1/day")
    fast, slow = (enter_threshold(rule, (TAIL,), period_s=s) for s in (1.0, 10.0))
    assert fast - slow == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("1/minute", 1 / 60),
        ("1/hour", 1 / 3600),
        ("2/day", 2 / 86_400),
        (" 0.5 / week ", 0.5 / 604_800),
        ("1/month", 12 / 31_557_600),
        ("3/year", 3 / 31_557_600),
    ],
)
def test_a_budget_is_a_number_per_unit_of_time(text: str, per_second: float) -> None:
    assert parse_budget(text) == pytest.approx(per_second)


@pytest.mark.parametrize(
    "text",
    ["", "1", "/day", "1/", "0/day", "-1/day", "1/fortnight", "1/Day", "1 per day", "1e3/day"],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(EdgernnError, match=r'^alarm\.false_alarms: .* such as "1/week", got "'):
        parse_budget(text, where="alarm.false_alarms")


@given(st.text(max_size=20))
def test_any_text_is_a_budget_above_0_or_a_sentence(text: str) -> None:
    try:
        assert parse_budget(text) > 0
    except EdgernnError:
        return


@given(st.floats(0, 300), st.floats(0, 1000))
def test_the_leave_threshold_is_below_the_enter_threshold(enter: float, samples: float) -> None:
    assert enter / 2 <= leave_threshold(enter, recover_samples=samples) <= enter


@pytest.mark.parametrize(("enter", "leave"), [(5.0, 4.0), (2.2, 1.477), (1.6, 1.477), (1.2, 1.2)])
def test_the_leave_threshold_is_not_what_chance_reaches_while_an_alarm_recovers(
    enter: float, leave: float
) -> None:
    found = leave_threshold(enter, recover_samples=30)
    assert found == pytest.approx(leave, abs=1e-3)
    if found > enter - 1:
        assert (1 - 10**-found) ** 30 > 0.1  # of 30 healthy samples in a row


@pytest.mark.parametrize(("asked", "leave"), [(2.0, 2.0), (0.5, 1.477), (9.0, 5.0)])
def test_a_leave_threshold_that_is_asked_for_is_neither_chance_nor_above_the_other(
    asked: float, leave: float
) -> None:
    found = leave_threshold(5.0, recover_samples=30, asked=asked)
    assert found == pytest.approx(leave, abs=1e-3)


@pytest.mark.parametrize(("min_duration_s", "samples"), [(0, 1), (0.1, 2), (0.25, 3), (0.3, 4)])
def test_a_duration_is_confirmed_by_the_sample_that_completes_it(
    min_duration_s: float, samples: int
) -> None:
    rule = AlarmRule(min_duration_s=min_duration_s)
    assert samples_to_confirm(rule, period_s=0.1) == samples
