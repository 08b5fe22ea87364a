"""The threshold that steers itself: by hand, and what must hold for any scores at all."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from cards import CARD, make_limits
from hypothesis import given
from hypothesis import strategies as st

from edgernn.alarm import CRITICAL_ABOVE, Alarm, AlarmMemory, AlarmState, Edge, Limits
from edgernn.card import AlarmRule
from edgernn.steering import HIGHEST, LOWEST, RISE, START, Steering

INTERVAL_S = 100.0
STEERING = Steering.for_budget(1 / INTERVAL_S, period_s=1.0, enter=5.0)
LIMITS = make_limits(recover_s=2, steering=STEERING)
FALL = RISE / INTERVAL_S
SCORES = st.lists(st.floats(0, 12) | st.just(math.nan), max_size=200)


def run(alarm: Alarm, scores: Sequence[float], *, start_s: float = 0.0) -> list[Edge | float]:
    """One score a second: edges, and the threshold after each score."""
    found: list[Edge | float] = []
    for t, score in enumerate(scores):
        if (edge := alarm.update(start_s + t, score)) is not None:
            found.append(edge)
        found.append(alarm.threshold)
    return found


def test_the_threshold_by_hand() -> None:
    alarm = Alarm(LIMITS)
    assert alarm.threshold == 5.0 + START
    begin = 4.7
    told = []
    for time_s, score, expected in (
        (10.0, 1.0, begin - 1 * FALL),
        (11.0, 1.0, begin - 2 * FALL),
        (12.0, math.nan, begin - 2 * FALL),  # nothing was observed
        (13.0, 1.0, begin - 3 * FALL),
        (500.0, 1.0, begin - 4 * FALL),  # nor in a gap
        (500.5, 1.0, begin - 4.5 * FALL),  # sample times, not samples
        (501.5, 4.69, begin - 5.5 * FALL),  # on
        (502.5, 4.1, begin - 5.5 * FALL),
        (503.5, 1.0, begin - 5.5 * FALL),  # recovering
        (505.5, 1.0, begin - 5.5 * FALL + RISE),  # off
        (506.5, 4.9, begin - 6.5 * FALL + RISE),  # which would have been an alarm
    ):
        told.append(alarm.update(time_s, score))
        assert alarm.threshold == pytest.approx(expected, abs=1e-12)
    edges = [edge for edge in told if edge is not None]
    assert [(edge.is_on, edge.time_s) for edge in edges] == [(True, 501.5), (False, 505.5)]
    assert [edge.threshold for edge in edges] == pytest.approx([begin - 5.5 * FALL] * 2)


def test_an_alarm_that_is_critical_says_nothing_of_how_well_the_threshold_is_placed() -> None:
    for peak, rise in ((4.6 + CRITICAL_ABOVE, RISE), (4.8 + CRITICAL_ABOVE, 0.0)):
        alarm = Alarm(LIMITS)
        run(alarm, [4.8, peak])
        before = alarm.threshold
        alarm.end(9.0)
        assert alarm.threshold == pytest.approx(before + rise)


def test_the_leave_threshold_follows() -> None:
    alarm = Alarm(make_limits(recover_s=0, steering=STEERING))
    run(alarm, [1.0] * 100 + [5.0])  # at 4.7 − 0.5
    assert alarm.update(101.0, 3.2) is None
    assert alarm.update(102.0, 3.1) is not None


def test_a_fresh_start_keeps_the_threshold_and_spends_for_the_alarm_that_was_on() -> None:
    alarm = Alarm(LIMITS)
    run(alarm, [1.0] * 10 + [5.0])
    before = alarm.threshold
    alarm.reset()
    assert alarm.threshold == pytest.approx(before + RISE)
    alarm.reset()
    assert alarm.threshold == pytest.approx(before + RISE)


@given(st.lists(st.floats(0, 20), max_size=300), st.sampled_from([0.0, 0.5, 2.0, 5.0]))
def test_the_threshold_stays_within_its_range(scores: list[float], enter: float) -> None:
    steering = Steering.for_budget(0.5, period_s=1.0, enter=enter)
    alarm = Alarm(make_limits(enter=enter, recover_s=0, steering=steering))
    for edge_or_threshold in run(alarm, scores):
        if isinstance(edge_or_threshold, float):
            assert max(enter + LOWEST, enter / 2) <= edge_or_threshold <= enter + HIGHEST


@given(SCORES, st.integers(0, 200))
def test_it_goes_on_as_it_was_from_what_it_remembers(scores: list[float], cut: int) -> None:
    limits = make_limits(recover_s=1, quiet_s=3, steering=STEERING)
    whole, before, after = Alarm(limits), Alarm(limits), Alarm(limits)
    expected = run(whole, scores)
    found = run(before, scores[:cut])
    kept = msgspec.msgpack.encode(before.remember())
    after.recall(msgspec.msgpack.decode(kept, type=AlarmMemory))
    assert found + run(after, scores[cut:], start_s=len(scores[:cut])) == expected


@given(st.lists(st.floats(0, 12), max_size=100), st.sets(st.integers(0, 99)))
def test_what_was_not_observed_changes_nothing(scores: list[float], unknown: set[int]) -> None:
    plain, alarm = Alarm(LIMITS), Alarm(LIMITS)
    for t, score in enumerate(scores):
        if t in unknown:
            assert alarm.update(t - 0.5, math.nan) is None
        assert alarm.update(t, score) == plain.update(t, score)
        assert alarm.threshold == plain.threshold


@pytest.mark.parametrize("by_s", [-1e6, 1e6])
def test_a_clock_that_is_set_moves_no_threshold(by_s: float) -> None:
    alarm, steady = Alarm(LIMITS), Alarm(LIMITS)
    expected = run(steady, [1.0] * 20, start_s=1e8)
    found = run(alarm, [1.0] * 10, start_s=1e8)
    alarm.shift(by_s)
    assert found + run(alarm, [1.0] * 10, start_s=1e8 + 10 + by_s) == pytest.approx(expected)


def test_a_memory_from_before_begins_with_a_threshold_that_nothing_has_moved() -> None:
    old = msgspec.msgpack.encode(["on", 7.0, 5.0, 6.5, 1.0])
    alarm = Alarm(LIMITS)
    alarm.recall(msgspec.msgpack.decode(old, type=AlarmMemory))
    assert (alarm.state, alarm.since_s, alarm.threshold) == (AlarmState.ON, 7.0, 5.0 + START)


def test_with_another_budget_it_is_as_far_from_the_calibrated_one_as_before() -> None:
    alarm, other = Alarm(LIMITS), Alarm(msgspec.structs.replace(LIMITS, enter=7.0))
    run(alarm, [1.0] * 50)
    other.recall(alarm.remember())
    assert other.threshold - 7.0 == pytest.approx(alarm.threshold - 5.0)
    fixed = Alarm(make_limits())
    fixed.recall(alarm.remember())
    assert fixed.threshold == 5.0


@pytest.mark.parametrize(
    "changes", [{"offset": math.nan}, {"offset": math.inf}, {"told": -1.0}, {"told": math.inf}]
)
def test_what_no_alarm_can_remember_is_refused(changes: dict[str, float]) -> None:
    memory = msgspec.structs.replace(Alarm(LIMITS).remember(), **changes)
    with pytest.raises(ValueError, match=r"an alarm (whose threshold|that told)"):
        Alarm(LIMITS).recall(memory)


def test_scores_are_compared_by_alarms_that_know_nothing_of_each_other() -> None:
    limits = make_limits(quiet_s=7, cooldown_s=2, steering=STEERING).without_memory()
    assert limits == make_limits(cooldown_s=7)


def test_a_rule_says_whether_it_steers() -> None:
    assert Limits.from_rule(AlarmRule(), CARD).steering is None
    steering = Limits.from_rule(AlarmRule("2/day", steered=True), CARD).steering
    assert steering is not None
    assert steering.fall_per_s == pytest.approx(RISE * 2 / 86400)
    assert steering.period_s == CARD.period_s


@pytest.mark.parametrize("wrong", [-0.7, 0.0, 0.7])
def test_the_budget_is_held_also_with_scores_that_are_miscalibrated(wrong: float) -> None:
    """−log10 of a uniform number, and five times too likely or too rare."""
    asked, interval_s = 100, 1000.0
    scores = -np.log10(np.random.default_rng(0).uniform(size=int(asked * interval_s))) + wrong
    enter = math.log10(interval_s)
    steering = Steering.for_budget(1 / interval_s, period_s=1.0, enter=enter)
    alarms = {}
    for name, limits in (
        ("fixed", make_limits(enter=enter, leave=enter - 1)),
        ("steered", make_limits(enter=enter, steering=steering)),
    ):
        alarm = Alarm(limits)
        edges = [alarm.update(float(t), score) for t, score in enumerate(scores.tolist())]
        alarms[name] = sum(edge is not None and edge.is_on for edge in edges)
    assert asked / 2 < alarms["steered"] < 2 * asked
    assert (asked / 2 < alarms["fixed"] < 2 * asked) == (wrong == 0)
