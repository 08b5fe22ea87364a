"""The alarm: every transition, and what must hold for any scores at all."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from cards import CARD, make_limits
from hypothesis import given
from hypothesis import strategies as st

from edgernn.alarm import CRITICAL_ABOVE, Alarm, AlarmState, Edge, Limits, quiet_bar
from edgernn.calibration import enter_threshold, leave_threshold
from edgernn.card import AlarmRule
from edgernn.errors import EdgernnError

SCORES = st.lists(st.floats(0, 10) | st.just(math.nan), max_size=200)
LIMITS = st.builds(
    make_limits,
    min_duration_s=st.integers(0, 5).map(float),
    recover_s=st.integers(0, 5).map(float),
    cooldown_s=st.integers(0, 10).map(float),
    quiet_s=st.integers(0, 5).map(float),
)
HIGH, MIDDLE, LOW = 6.0, 4.5, 1.0  # around enter = 5 and leave = 4


def run(alarm: Alarm, scores: Sequence[float], *, start_s: float = 0.0) -> list[Edge]:
    """One score a second."""
    edges = [alarm.update(start_s + t, score) for t, score in enumerate(scores)]
    return [edge for edge in edges if edge is not None]


def states(limits: Limits, scores: Sequence[float]) -> list[str]:
    alarm = Alarm(limits)
    found = []
    for t, score in enumerate(scores):
        alarm.update(float(t), score)
        found.append(str(alarm.state))
    return found


def test_an_alarm_goes_on_with_the_first_score_at_the_threshold() -> None:
    assert run(Alarm(make_limits()), [LOW, 4.99, 5.0]) == [
        Edge(is_on=True, time_s=2.0, onset_s=2.0, score=5.0, threshold=5.0)
    ]


def test_an_alarm_stays_off_until_the_minimum_duration_is_over() -> None:
    limits = make_limits(min_duration_s=2)
    assert states(limits, [HIGH] * 3) == ["pending", "pending", "on"]
    assert run(Alarm(limits), [LOW, HIGH, HIGH, HIGH])[0].onset_s == 1.0


def test_a_pending_alarm_is_over_with_one_score_below_the_threshold() -> None:
    assert states(make_limits(min_duration_s=2), [HIGH, HIGH, MIDDLE, HIGH, HIGH]) == [
        "pending",
        "pending",
        "off",
        "pending",
        "pending",
    ]


def test_an_alarm_that_is_on_stays_on_between_the_thresholds() -> None:
    assert states(make_limits(recover_s=0), [HIGH] + [MIDDLE] * 5) == ["on"] * 6


def test_an_alarm_goes_off_after_the_recovery_time_below_the_leave_threshold() -> None:
    assert states(make_limits(recover_s=2), [HIGH, LOW, LOW, LOW, LOW]) == [
        "on",
        "recovering",
        "recovering",
        "off",
        "off",
    ]


def test_a_relapse_while_recovering_is_the_same_alarm_and_recovery_begins_again() -> None:
    limits = make_limits(recover_s=2)
    assert states(limits, [HIGH, LOW, MIDDLE, LOW, LOW, LOW]) == [
        "on",
        "recovering",
        "on",
        "recovering",
        "recovering",
        "off",
    ]


def test_the_off_edge_says_the_highest_score_and_the_onset() -> None:
    edges = run(Alarm(make_limits(recover_s=0)), [HIGH, 9.0, HIGH, LOW])
    assert edges[1] == Edge(is_on=False, time_s=3.0, onset_s=0.0, score=9.0, threshold=5.0)


def test_no_alarm_goes_on_while_it_cools_down() -> None:
    limits = make_limits(recover_s=0, cooldown_s=5)
    edges = run(Alarm(limits), [HIGH, LOW] + [HIGH] * 10)
    assert [(edge.is_on, edge.time_s) for edge in edges] == [(True, 0), (False, 1), (True, 6)]
    assert edges[2].onset_s == 2.0


def test_a_score_during_cool_down_is_pending() -> None:
    limits = make_limits(recover_s=0, cooldown_s=5)
    assert states(limits, [HIGH, LOW, HIGH, LOW])[2:] == ["pending", "off"]


@pytest.mark.parametrize("before", [[], [HIGH], [HIGH, LOW]])
def test_a_nan_score_changes_no_state(before: list[float]) -> None:
    alarm = Alarm(make_limits(recover_s=9))
    run(alarm, before)
    state, since_s = alarm.state, alarm.since_s
    assert run(alarm, [math.nan] * 50, start_s=100.0) == []
    assert (alarm.state, alarm.since_s) == (state, since_s)


def test_ending_an_alarm_that_is_on_gives_its_off_edge() -> None:
    alarm = Alarm(make_limits())
    run(alarm, [HIGH, 7.0])
    assert alarm.end(9.0) == Edge(is_on=False, time_s=9.0, onset_s=0.0, score=7.0, threshold=5.0)
    assert alarm.state is AlarmState.OFF


@pytest.mark.parametrize("scores", [[], [LOW], [HIGH]])
def test_ending_an_alarm_that_is_not_on_gives_no_edge(scores: list[float]) -> None:
    alarm = Alarm(make_limits(min_duration_s=9))
    run(alarm, scores)
    assert alarm.end(9.0) is None
    assert alarm.state is AlarmState.OFF


def test_reset_forgets_the_cool_down() -> None:
    alarm = Alarm(make_limits(recover_s=0, cooldown_s=1000))
    run(alarm, [HIGH, LOW])
    alarm.reset()
    assert run(alarm, [HIGH], start_s=2.0) == [Edge(True, 2.0, 2.0, HIGH, 5.0)]


QUIET = make_limits(recover_s=0, quiet_s=4)


def ons(scores: Sequence[float], limits: Limits = QUIET) -> list[float]:
    return [edge.time_s for edge in run(Alarm(limits), scores) if edge.is_on]


def test_after_an_alarm_only_what_is_half_as_high_again_is_an_alarm() -> None:
    assert ons([5.0, 6.0, LOW, 8.9]) == [0]  # the off-edge told 6
    assert ons([5.0, 6.0, LOW, 9.1]) == [0, 3]


def test_what_is_kept_quiet_is_pending() -> None:
    assert states(QUIET, [6.0, LOW, 8.0, LOW]) == ["on", "off", "pending", "off"]


def test_what_was_told_fades_once_the_quiet_is_over() -> None:
    rise = [6.0, LOW] + [5.5] * 10
    # 1 s: off; to 5 s: above 9; then above 6·exp(−(t − 5)/20): 5.71 at 6, 5.43 at 7
    assert ons(rise) == [0, 7]


def test_the_bar_of_the_quiet_by_hand() -> None:
    found = [quiet_bar(4.0, age_s, 100.0) for age_s in (0, 100, 101, 600, 1100)]
    assert found == pytest.approx([6.0, 6.0, 4 * math.exp(-1 / 500), 4 / math.e, 4 / math.e**2])
    assert quiet_bar(4.0, 1.0, 0.0) == quiet_bar(0.0, 1.0, 100.0) == 0


def test_an_infinite_score_does_not_quiet_for_ever() -> None:
    assert ons([math.inf, LOW, HIGH, *[LOW] * 200, HIGH]) == [0, 203]


def test_quiet_hides_no_off_edge_and_is_over_with_a_fresh_start() -> None:
    alarm = Alarm(QUIET)
    assert [edge.is_on for edge in run(alarm, [6.0, LOW])] == [True, False]
    alarm.reset()
    assert run(alarm, [HIGH], start_s=2.0)[0].is_on


def test_since_is_the_time_at_which_the_state_began() -> None:
    alarm = Alarm(make_limits(min_duration_s=2))
    run(alarm, [LOW, HIGH, HIGH, HIGH, HIGH])
    assert (alarm.state, alarm.since_s) == (AlarmState.ON, 3.0)


@given(LIMITS, SCORES)
def test_edges_alternate_on_and_off_and_rise_in_time(limits: Limits, scores: list[float]) -> None:
    edges = run(Alarm(limits), scores)
    assert [edge.is_on for edge in edges] == [i % 2 == 0 for i in range(len(edges))]
    assert [edge.time_s for edge in edges] == sorted({edge.time_s for edge in edges})


@given(LIMITS, st.lists(st.floats(0, 5, exclude_max=True), max_size=100))
def test_scores_below_the_enter_threshold_never_raise_an_alarm(
    limits: Limits, scores: list[float]
) -> None:
    alarm = Alarm(limits)
    assert run(alarm, scores) == []
    assert alarm.state is AlarmState.OFF


@given(LIMITS, SCORES)
def test_every_off_edge_has_the_onset_of_its_on_edge(limits: Limits, scores: list[float]) -> None:
    edges = run(Alarm(limits), scores)
    for on, off in zip(edges[::2], edges[1::2], strict=False):
        assert on.onset_s == off.onset_s
        assert on.time_s - on.onset_s >= limits.min_duration_s
        assert off.score >= on.score >= limits.enter == on.threshold == off.threshold


@given(LIMITS, SCORES)
def test_alarms_are_at_least_the_cool_down_apart(limits: Limits, scores: list[float]) -> None:
    edges = run(Alarm(limits), scores)
    for off, on in zip(edges[1::2], edges[2::2], strict=False):
        assert on.time_s - off.time_s >= limits.cooldown_s


@given(LIMITS, SCORES)
def test_is_on_holds_exactly_between_the_edges(limits: Limits, scores: list[float]) -> None:
    alarm = Alarm(limits)
    is_on = False
    for t, score in enumerate(scores):
        if (edge := alarm.update(float(t), score)) is not None:
            is_on = edge.is_on
        assert alarm.is_on == is_on


def test_limits_follow_from_the_rule_and_the_card() -> None:
    rule = AlarmRule("2/day", min_duration_s=1, recover_s=2, cooldown_s=3)
    enter = enter_threshold(rule, CARD.tails, period_s=CARD.period_s)
    leave = leave_threshold(enter, recover_samples=2)
    assert Limits.from_rule(rule, CARD) == Limits(enter, leave, 1, 2, 3)


def test_quiet_lasts_no_longer_than_a_tenth_of_the_interval_asked_for() -> None:
    for budget, quiet_s in (("1/week", 500.0), ("1/hour", 360.0)):
        rule = AlarmRule(budget, quiet_s=500.0)
        assert Limits.from_rule(rule, CARD).quiet_s == pytest.approx(quiet_s)


@pytest.mark.parametrize("name", ["min_duration_s", "recover_s", "cooldown_s", "quiet_s"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_duration_that_makes_no_sense_is_refused(name: str, value: float) -> None:
    changes: dict[str, Any] = {name: value}
    rule = msgspec.structs.replace(AlarmRule(), **changes)
    with pytest.raises(EdgernnError, match=rf"^a\.toml: alarm\.{name}: expected 0 or more seconds"):
        Limits.from_rule(rule, CARD, where="a.toml: alarm")


def test_a_budget_that_makes_no_sense_is_refused_with_its_path() -> None:
    with pytest.raises(EdgernnError, match=r"^a\.toml: alarm\.false_alarms: expected a number"):
        Limits.from_rule(AlarmRule("1/moon"), CARD, where="a.toml: alarm")


def test_an_alert_is_critical_a_thousand_times_above_the_threshold() -> None:
    level = 4.5 + CRITICAL_ABOVE
    assert Edge(True, 0.0, 0.0, level, threshold=4.5).severity == "critical"
    assert Edge(True, 0.0, 0.0, math.nextafter(level, 0), threshold=4.5).severity == "warning"


@pytest.mark.parametrize("by_s", [-1e9, -5.0, 5.0, 1e9])
def test_a_clock_that_is_set_changes_no_duration(by_s: float) -> None:
    limits = make_limits(min_duration_s=2, recover_s=3, cooldown_s=10, quiet_s=2)
    scores = [HIGH] * 5 + [LOW] * 8 + [HIGH] * 12
    alarm, steady = Alarm(limits), run(Alarm(limits), scores)
    edges = []
    for cut in range(0, len(scores), 4):
        edges += run(alarm, scores[cut : cut + 4], start_s=cut + by_s * (cut // 4))
        alarm.shift(by_s)
    assert [(e.is_on, e.time_s - e.onset_s) for e in edges] == [
        (e.is_on, e.time_s - e.onset_s) for e in steady
    ]
    assert len(edges) == 3


@pytest.mark.parametrize("wrong_s", [math.nan, math.inf, -5.0, 1e12])
def test_an_alarm_that_was_written_down_with_a_time_that_is_none_is_refused(wrong_s: float) -> None:
    whole = Alarm(make_limits()).remember()
    for name in ("since_s", "onset_s", "off_since_s", "heard_s"):
        changes: dict[str, Any] = {name: wrong_s}
        with pytest.raises(ValueError, match="an alarm of no time"):
            Alarm(make_limits()).recall(msgspec.structs.replace(whole, **changes))
