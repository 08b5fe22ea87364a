"""Alarms and scores against labels, counted by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from edgernn.alarm import Edge
from edgernn.evaluation.evaluate import ScoredTrack
from edgernn.evaluation.metrics import Detection, FaultFound, measure
from edgernn.recording import Track
from edgernn.times import DAY_S

START_S = 1000.0


def scored(
    on: str,
    faulty: str | None,
    *,
    unknown: Sequence[int] = (),
    scores: Sequence[float] = (),
    stream: str = "a",
    lag_s: float = 0.0,
) -> ScoredTrack:
    """One letter a second: "#" where the alarm is on; a letter where there is a fault, "." else."""
    samples = len(on)
    time_s = START_S + np.arange(samples, dtype=np.float64)
    is_on = np.array([letter == "#" for letter in on])
    label = None if faulty is None else np.array([x.strip(".") for x in faulty])
    changes = np.flatnonzero(np.diff(is_on, prepend=False))
    edges = [Edge(bool(is_on[t]), float(time_s[t]), float(time_s[t]), 6.0, 5.0) for t in changes]
    score = np.array(scores or [0.0] * samples, np.float32)
    score[list(unknown)] = np.nan
    x = np.zeros((samples, 1), np.float32)
    track, threshold = Track(stream, time_s, x, label), np.full(samples, 5.0)
    return ScoredTrack(track, score, x, x, is_on, threshold, tuple(edges), lag_s)


def test_rows_are_counted_by_alarm_and_label() -> None:
    found = measure([scored("..####....", "...xxxx...")], aftermath_s=0)  # TP 3, FP 1, FN 1, TN 5
    assert (found.precision, found.recall, found.f1) == (3 / 4, 3 / 4, 6 / 8)
    assert (found.false_alarm_rate, found.missed_alarm_rate) == (1 / 6, 1 / 4)


def test_rows_without_a_score_do_not_count() -> None:
    found = measure([scored("..####....", "...xxxx...", unknown=[0, 2, 3])], aftermath_s=0)
    assert (found.rows, found.scored_rows) == (10, 7)
    assert (found.precision, found.recall) == (1.0, 2 / 3)


def test_a_fault_is_found_at_the_first_row_with_the_alarm_on() -> None:
    found = measure([scored("......##..", "...xxxxx..")], aftermath_s=0)
    assert found.faults == (FaultFound("a", "x", START_S + 3, START_S + 7, "found", 3.0),)


def test_a_fault_without_an_alarm_is_missed() -> None:
    found = measure([scored("#.......##", "...xxxxx..")], aftermath_s=0)
    assert [(fault.outcome, fault.delay_s) for fault in found.faults] == [("missed", None)]


def test_an_alarm_that_was_on_already_is_false_and_finds_no_fault() -> None:
    found = measure([scored("..####.#..", "....xxxx..")], aftermath_s=0)
    assert [(fault.outcome, fault.delay_s) for fault in found.faults] == [("on_already", None)]
    assert (found.faults_found, found.on_already, found.median_delay_s) == (0, 1, None)
    assert found.false_alarms == 1


def test_an_alarm_that_ends_as_a_fault_begins_was_not_on_already() -> None:
    found = measure([scored("..##..##..", "....xxxx..")], aftermath_s=0)
    assert [(fault.outcome, fault.delay_s) for fault in found.faults] == [("found", 2.0)]


def test_a_fault_without_one_scored_row_is_neither_found_nor_missed() -> None:
    unscored = scored("..#.......", "..xx...xx.", unknown=[2, 3])
    found = measure([unscored], aftermath_s=0)
    assert [fault.outcome for fault in found.faults] == ["unscored", "missed"]
    assert (found.faults_total, found.faults_found, found.faults_unscored) == (1, 0, 1)


def test_faults_of_different_kinds_that_touch_are_two() -> None:
    found = measure([scored(".....#....", "..xxyyy...")], aftermath_s=0)
    assert [(fault.label, fault.delay_s) for fault in found.faults] == [("x", None), ("y", 1.0)]


def test_a_fault_at_either_end_of_the_recording_is_one() -> None:
    found = measure([scored("#........#", "xx......yy")], aftermath_s=0)
    assert [fault.delay_s for fault in found.faults] == [0.0, 1.0]


@pytest.mark.parametrize(("aftermath_s", "false_alarms"), [(0, 2), (1, 2), (2, 1), (4, 1), (5, 0)])
def test_an_alarm_in_the_aftermath_of_a_fault_is_not_false(
    aftermath_s: float, false_alarms: int
) -> None:
    found = measure([scored("..#..#..#.", "..xx......")], aftermath_s=aftermath_s)
    assert (found.alarms, found.false_alarms) == (3, false_alarms)


@pytest.mark.parametrize(("aftermath_s", "healthy"), [(0, 8), (2, 6), (100, 2)])
def test_the_aftermath_of_a_fault_is_no_healthy_time(aftermath_s: float, healthy: int) -> None:
    found = measure([scored("#.........", "..xx......")], aftermath_s=aftermath_s)
    assert found.healthy_hours == pytest.approx(healthy / 3600)
    assert found.false_alarms_per_day == pytest.approx(1 / healthy * DAY_S)


def test_an_alarm_before_a_fault_is_false_whatever_the_aftermath() -> None:
    assert measure([scored("#.........", "..xx......")], aftermath_s=100).false_alarms == 1


def test_one_streams_fault_excuses_no_other_streams_alarm() -> None:
    one, other = scored("..#.......", "..xx......"), scored("..#.......", "..........", stream="b")
    found = measure([one, other], aftermath_s=0)
    assert (found.alarms, found.false_alarms, found.rows) == (2, 1, 20)


def test_a_stream_without_labels_is_healthy_beside_one_that_has_some() -> None:
    one, other = scored("..#.......", "..xx......"), scored("..#.......", None, stream="b")
    found = measure([one, other], aftermath_s=0)
    assert found.healthy_hours == pytest.approx(18 / 3600)
    assert (found.alarms, found.false_alarms) == (2, 1)


def test_without_labels_alarms_are_counted_and_what_needs_labels_is_not_available() -> None:
    found = measure([scored("..#..##...", None)], aftermath_s=0)
    assert found.alarms == 2
    assert found.scored_hours == pytest.approx(10 / 3600)
    assert found.alarms_per_day == pytest.approx(2 / 10 * DAY_S)
    needs_labels = set(Detection.__struct_fields__) | {
        "false_alarms",
        "false_alarms_per_day",
        "false_alarm_rate",
        "missed_alarm_rate",
        "healthy_hours",
    }
    assert {name for name in needs_labels if getattr(found, name) is not None} == set()
    assert (found.kinds, found.faults) == ((), ())


def test_healthy_hours_leave_out_faults_and_rows_without_a_score() -> None:
    found = measure([scored("..........", "..xx......", unknown=[0, 9])], aftermath_s=0)
    assert found.healthy_hours == pytest.approx(6 / 3600)


def test_where_there_is_nothing_to_count_a_rate_is_not_available() -> None:
    found = measure([scored("..........", "..........")], aftermath_s=0)
    assert (found.precision, found.recall, found.f1, found.missed_alarm_rate) == (None,) * 4
    assert (found.auc_pr, found.auc_roc, found.vus_pr, found.best_f1) == (None,) * 4
    assert (found.false_alarm_rate, found.false_alarms, found.faults_total) == (0.0, 0, 0)


def test_false_alarms_are_counted_per_healthy_day() -> None:
    found = measure([scored("#...#.....", "......xx..", unknown=[1, 3])], aftermath_s=0)
    assert found.false_alarms_per_day == pytest.approx(2 / 6 * DAY_S)  # 6 healthy seconds scored


def test_an_alert_that_comes_late_finds_the_fault_that_much_later() -> None:
    (fault,) = measure([scored("......##..", "...xxxxx..", lag_s=4.0)], aftermath_s=0).faults
    assert fault.delay_s == 7.0


def test_an_alarm_about_a_sample_before_the_fault_is_on_already_whenever_it_is_said() -> None:
    (fault,) = measure([scored("..######..", "...xxxxx..", lag_s=4.0)], aftermath_s=0).faults
    assert (fault.outcome, fault.delay_s) == ("on_already", None)


def test_each_kind_is_measured_against_healthy_rows_alone() -> None:
    found = measure([scored(".#.##...##", "...xxx..yy")], aftermath_s=0)
    x, y = found.kinds
    assert (x.label, x.precision, x.recall, x.faults_found) == ("x", 2 / 3, 2 / 3, 1)
    assert (y.label, y.precision, y.recall, y.faults_found) == ("y", 2 / 3, 1.0, 1)


def test_the_median_delay_leaves_missed_faults_out() -> None:
    found = measure([scored("..#....#..........", ".xxx..xxx..xxx....")], aftermath_s=0)
    assert (found.faults_total, found.faults_found, found.median_delay_s) == (3, 2, 1.0)


def test_scores_are_ranked_over_all_streams_together() -> None:
    one = scored("....", "..xx", scores=[1, 2, 4, 3])
    other = scored("....", "x...", scores=[5, 2, 3.5, 1], stream="b")
    found = measure([one, other], aftermath_s=0)
    assert found.auc_pr == pytest.approx((1 + 1 + 3 / 4) / 3)  # 5 x, 4 x, 3.5, 3 x
    assert found.auc_roc == pytest.approx(14 / 15)
    assert found.best_f1 == pytest.approx(6 / 7)
    assert found.best_f1_threshold == 3.0


def test_a_fault_at_the_end_of_one_stream_does_not_fade_into_the_next() -> None:
    quiet = scored("." * 40, "." * 40, scores=[9, *[0] * 39], stream="b")
    faulty = scored("." * 40, "." * 39 + "x", scores=[0] * 39 + [9])
    apart, other_way = (measure(s, aftermath_s=0) for s in ([faulty, quiet], [quiet, faulty]))
    assert apart.vus_pr == pytest.approx(other_way.vus_pr)
