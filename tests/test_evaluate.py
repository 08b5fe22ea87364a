"""Alarms against labels, counted by hand; and a recording scored as the device would score it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from cards import make_card, make_limits

from edgernn.alarm import Edge, Limits
from edgernn.errors import EdgernnError
from edgernn.evaluate import FaultFound, ScoredTrack, measure, score_recording
from edgernn.nets import Detector, NetworkConfig
from edgernn.recording import Recording, Track
from edgernn.simulate import parse_fault, simulate_pump

if TYPE_CHECKING:
    from edgernn.run import Run

START_S = 1000.0


def scored(
    on: str, faulty: str | None, *, unknown: Sequence[int] = (), stream: str = "a"
) -> ScoredTrack:
    """One letter a second: "#" where the alarm is on; a letter where there is a fault, "." else."""
    samples = len(on)
    time_s = START_S + np.arange(samples, dtype=np.float64)
    is_on = np.array([letter == "#" for letter in on])
    label = None if faulty is None else np.array([x.strip(".") for x in faulty])
    changes = np.flatnonzero(np.diff(is_on, prepend=False))
    edges = [Edge(bool(is_on[t]), float(time_s[t]), float(time_s[t]), 6.0) for t in changes]
    score = np.zeros(samples, np.float32)
    score[list(unknown)] = np.nan
    x = np.zeros((samples, 1), np.float32)
    return ScoredTrack(Track(stream, time_s, x, label), score, x, x, is_on, tuple(edges))


def test_rows_are_counted_by_alarm_and_label() -> None:
    found = measure([scored("..####....", "...xxxx...")], aftermath_s=0)  # TP 3, FP 1, FN 1, TN 5
    assert (found.rows, found.precision, found.recall, found.f1) == (10, 3 / 4, 3 / 4, 6 / 8)
    assert (found.false_alarm_rate, found.missed_alarm_rate) == (1 / 6, 1 / 4)


def test_rows_without_a_score_do_not_count() -> None:
    found = measure([scored("..####....", "...xxxx...", unknown=[0, 2, 3])], aftermath_s=0)
    assert (found.rows, found.precision, found.recall) == (7, 1.0, 2 / 3)


def test_a_fault_is_found_at_the_first_row_with_the_alarm_on() -> None:
    found = measure([scored("......##..", "...xxxxx..")], aftermath_s=0)
    assert found.faults == (FaultFound("a", "x", START_S + 3, START_S + 7, 3.0),)


def test_a_fault_without_an_alarm_is_missed() -> None:
    found = measure([scored("#.......##", "...xxxxx..")], aftermath_s=0)
    assert [fault.delay_s for fault in found.faults] == [None]


def test_an_alarm_that_was_on_already_finds_a_fault_at_once_and_is_false() -> None:
    found = measure([scored("..####....", "....xxxx..")], aftermath_s=0)
    assert ([fault.delay_s for fault in found.faults], found.false_alarms) == ([0.0], 1)


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


def test_an_alarm_before_a_fault_is_false_whatever_the_aftermath() -> None:
    assert measure([scored("#.........", "..xx......")], aftermath_s=100).false_alarms == 1


def test_one_streams_fault_excuses_no_other_streams_alarm() -> None:
    one, other = scored("..#.......", "..xx......"), scored("..#.......", "..........", stream="b")
    found = measure([one, other], aftermath_s=0)
    assert (found.alarms, found.false_alarms, found.rows) == (2, 1, 20)


def test_without_labels_every_alarm_is_false_and_every_row_healthy() -> None:
    found = measure([scored("..#..##...", None)], aftermath_s=0)
    assert (found.alarms, found.false_alarms, found.faults) == (2, 2, ())
    assert found.healthy_hours == pytest.approx(10 / 3600)


def test_healthy_hours_leave_out_faults_and_rows_without_a_score() -> None:
    found = measure([scored("..........", "..xx......", unknown=[0, 9])], aftermath_s=0)
    assert found.healthy_hours == pytest.approx(6 / 3600)


def test_where_there_is_nothing_to_count_rates_are_0() -> None:
    found = measure([scored("..........", None)], aftermath_s=0)
    assert (found.precision, found.recall, found.f1, found.missed_alarm_rate) == (0, 0, 0, 0)


class Fake(Detector):
    """Scores what its first channel says."""

    def __init__(self) -> None:
        super().__init__(("a", "b"), NetworkConfig(hidden=4), span=3, seed=0)

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x[..., 0].clone(), torch.ones_like(x), x, *state)


def said_by_fake(
    scores: Sequence[float], times: Sequence[float], *, limits: Limits, warm_up: int = 0
) -> ScoredTrack:
    x = np.stack([scores, np.zeros(len(scores))], axis=1).astype(np.float32)
    track = Track("a", np.array(times, float), x, None)
    card = make_card(warm_up=warm_up)
    recording = Recording(card.channel_names, ("", ""), (track,), 1.0, ())
    (found,) = score_recording(Fake(), card, recording, limits)
    return found


def test_scores_in_warm_up_are_unknown_and_raise_nothing() -> None:
    found = said_by_fake([9, 9, 9, 1, 1], range(5), limits=make_limits(), warm_up=3)
    assert np.isnan(found.score).tolist() == [True, True, True, False, False]
    assert found.edges == ()


def test_an_alarm_is_on_from_its_on_edge_to_its_off_edge() -> None:
    found = said_by_fake([1, 6, 6, 1, 1, 1], range(6), limits=make_limits(recover_s=1))
    assert [(edge.is_on, edge.time_s) for edge in found.edges] == [(True, 1), (False, 4)]
    assert found.is_on.tolist() == [False, True, True, True, False, False]


def test_a_long_gap_ends_the_alarm_and_warms_up_again() -> None:
    times = [0, 1, 2, 100, 101, 102]
    found = said_by_fake([6] * 6, times, limits=make_limits(), warm_up=1)
    edges = [(edge.is_on, edge.time_s) for edge in found.edges]
    assert edges == [(True, 1), (False, 2), (True, 101)]
    assert np.isnan(found.score).tolist() == [True, False, False, True, False, False]


def test_a_long_gap_ends_the_cool_down_as_it_does_on_the_device() -> None:
    limits = make_limits(recover_s=0, cooldown_s=1000)
    found = said_by_fake([6, 6, 6, 6], [0, 1, 100, 101], limits=limits)
    assert [(edge.is_on, edge.time_s) for edge in found.edges][-1] == (True, 100)


def test_a_short_gap_is_filled_with_rows_that_have_no_score() -> None:
    found = said_by_fake([1, 1, 1], [0, 1, 4], limits=make_limits())
    assert found.track.time_s.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(found.score).tolist() == [False, False, True, True, False]


def test_channels_are_found_by_name_in_any_order() -> None:
    card = make_card(warm_up=0)
    x = np.array([[1.0, 2.0, 3.0]] * 4, np.float32)
    track = Track("a", np.arange(4.0), x, None)
    recording = Recording(("heat", "other", "flow"), ("", "", ""), (track,), 1.0, ())
    (found,) = score_recording(Fake(), card, recording, make_limits())
    assert found.score.tolist() == [3.0] * 4


def test_a_missing_channel_is_named() -> None:
    track = Track("a", np.arange(4.0), np.ones((4, 2), np.float32), None)
    recording = Recording(("flow", "cold"), ("", ""), (track,), 1.0, ())
    with pytest.raises(EdgernnError) as caught:
        score_recording(Fake(), make_card(), recording, make_limits())
    assert str(caught.value) == (
        "channel heat is missing: the detector has flow, heat, the recording flow, cold"
    )


def test_a_trained_detector_finds_a_leak_and_raises_no_false_alarm(trained_run: "Run") -> None:
    recording = simulate_pump(hours=0.5, seed=3, faults=[parse_fault("leak@15m")])
    limits = Limits.from_rule(trained_run.card.alarm, trained_run.card)
    scored = score_recording(trained_run.detector, trained_run.card, recording, limits)
    found = measure(scored, aftermath_s=60)
    (fault,) = found.faults
    assert (fault.label, found.false_alarms) == ("leak", 0)
    assert 0 < (fault.delay_s or 0) < 300
