"""A recording scored as the device would score it: streams, gaps, blocks, delays."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from cards import make_card, make_limits

from edgernn.alarm import Limits
from edgernn.errors import EdgernnError
from edgernn.evaluation import evaluate
from edgernn.evaluation.evaluate import ScoredTrack, score_recording
from edgernn.evaluation.metrics import measure
from edgernn.nets import Detector, NetworkConfig
from edgernn.nets.heads import HeadConfig
from edgernn.recording import Recording, Track
from edgernn.simulate.pump import parse_fault, simulate_pump

if TYPE_CHECKING:
    from edgernn.run import Run


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


class Late(Fake):
    """Says two samples later what Fake says at once."""

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        said = torch.cat([torch.zeros_like(x[:2]), x])[: len(x)]
        return (said[..., 0].clone(), said.clone(), said.clone(), *state)


def said_late(scores: Sequence[float], times: Sequence[float], *, limits: Limits) -> ScoredTrack:
    x = np.stack([scores, np.arange(len(scores))], axis=1).astype(np.float32)
    card = make_card(warm_up=3, delay=2, period_s=1.0)
    track = Track("a", np.array(times, float), x, None)
    recording = Recording(card.channel_names, ("", ""), (track,), 1.0, ())
    (found,) = score_recording(Late(), card, recording, limits)
    return found


def test_what_comes_late_stands_beside_the_sample_that_it_is_about() -> None:
    found = said_late([1, 2, 3, 4, 5, 6], range(6), limits=make_limits(enter=90))
    np.testing.assert_array_equal(found.score, [np.nan, 2, 3, 4, np.nan, np.nan])
    np.testing.assert_array_equal(found.expected[:4], found.track.x[:4])
    assert np.isnan(found.expected[4:]).all() and np.isnan(found.contribution[4:]).all()


def test_every_piece_ends_with_samples_that_a_late_detector_never_spoke_of() -> None:
    found = said_late([1] * 8, [0, 1, 2, 3, 100, 101, 102, 103], limits=make_limits())
    assert np.isfinite(found.score).tolist() == [False, True, False, False] * 2


def test_a_late_alarm_has_its_samples_time_and_its_delay_on_top() -> None:
    found = said_late([1, 1, 6, 6, 1, 1, 1, 1], range(8), limits=make_limits(recover_s=0))
    assert [(edge.is_on, edge.time_s) for edge in found.edges] == [(True, 2), (False, 4)]
    assert found.lag_s == 2.0


def test_a_piece_shorter_than_the_delay_has_no_score() -> None:
    found = said_late([9], [0], limits=make_limits())
    assert np.isnan(found.score).all() and len(found.score) == 1


@pytest.mark.parametrize("block", [1, 7, 100])
def test_scores_are_the_same_in_blocks_of_any_length(
    block: int, trained_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = simulate_pump(hours=0.1, seed=3)
    limits = Limits.from_rule(trained_run.card.alarm, trained_run.card)
    (whole,) = score_recording(trained_run.detector, trained_run.card, recording, limits)
    monkeypatch.setattr(evaluate, "BLOCK", block)
    (cut,) = score_recording(trained_run.detector, trained_run.card, recording, limits)
    # float32 in another order; scores reach 3 here, expected values 3,000
    np.testing.assert_allclose(cut.score, whole.score, atol=2e-4)
    np.testing.assert_allclose(cut.expected, whole.expected, rtol=1e-4)
    assert cut.edges == whole.edges


@pytest.mark.parametrize("block", [5, 64])
def test_a_detector_that_looks_ahead_says_the_same_in_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = HeadConfig(kinds=("encoder-decoder",), window=8)
    detector = Detector(("a", "b"), NetworkConfig(hidden=4), head, span=5, seed=0).eval()
    card = make_card(warm_up=5 + detector.delay, delay=detector.delay)
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    recording = Recording(
        card.channel_names, ("", ""), (Track("a", np.arange(200.0), x, None),), 1.0, ()
    )
    (whole,) = score_recording(detector, card, recording, make_limits())
    monkeypatch.setattr(evaluate, "BLOCK", block)
    (cut,) = score_recording(detector, card, recording, make_limits())
    assert np.isfinite(whole.score).sum() == 200 - card.warm_up
    np.testing.assert_allclose(cut.score, whole.score, rtol=1e-4, atol=1e-5)


def test_a_trained_detector_finds_a_leak_and_raises_no_false_alarm(trained_run: "Run") -> None:
    recording = simulate_pump(hours=0.5, seed=3, faults=[parse_fault("leak@15m")])
    limits = Limits.from_rule(trained_run.card.alarm, trained_run.card)
    scored = score_recording(trained_run.detector, trained_run.card, recording, limits)
    found = measure(scored, aftermath_s=60)
    (fault,) = found.faults
    assert (fault.label, found.false_alarms) == ("leak", 0)
    assert 0 < (fault.delay_s or 0) < 600  # a few epochs of a small network
