"""The detector that is not trained: its equations, the checks, and its graph for any channels."""

from functools import cache

import general_by_hand
import numpy as np
import pytest
import torch
from cards import make_card
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from runners import CHANNELS, NAMES, SPREAD, EngineRunner, healthy, samples

from edgernn.card import Channel
from edgernn.nets import levels, ranking
from edgernn.nets.checks import (
    Runner,
    TorchRunner,
    check_causality,
    check_chunk_invariance,
    check_fault_stands_out,
    check_independence,
    check_missing_is_defined,
    check_same_detector,
)
from edgernn.nets.general import ACCEPTED, General
from edgernn.times import DAY_S
from edgernn.training.begin import ALARM
from edgernn_device.engine import Engine
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph

Floats = NDArray[np.float32]

PERIOD_S = 346.0
"""So that 900 samples are more than three days, and none but the first is where a half hour begins,
to the last bit."""

several = settings(max_examples=8, deadline=None)


@cache
def general() -> General:
    return General(CHANNELS, period_s=PERIOD_S)


@cache
def engine() -> Engine:
    named = tuple(Channel(name, "", 0.0, 1.0) for name in NAMES)
    card = make_card(channels=named, states=general().states, warm_up=0)
    return Engine(with_card(build_graph(general()), card))


@pytest.fixture(scope="module", params=["torch", "engine"])
def runner(request: pytest.FixtureRequest) -> Runner:
    return TorchRunner(general()) if request.param == "torch" else EngineRunner(engine())


def scores(runner: Runner, x: Floats) -> Floats:
    """x (T, C) → (T,)"""
    said, _ = runner.run(x[:, None], runner.fresh(1))
    return said["score"][:, 0]


def test_the_score_is_what_its_description_says(runner: Runner) -> None:
    x = healthy(900, 1, seed=4)[:, 0]
    x[600:630, 1] += 5 * SPREAD[1]
    x[200:220, 0] = np.nan
    x[410:415] = np.nan
    x[750, 2] = 1e9
    expected = general_by_hand.scores(x.astype(np.float64), day=DAY_S / PERIOD_S)
    np.testing.assert_allclose(scores(runner, x), expected, atol=5e-3)
    assert np.nanmax(expected[600:630]) > np.nanmax(expected[200:600]) + 0.5


@given(x=samples(), data=st.data())
@several
def test_any_split_of_the_samples_gives_the_same_scores(
    runner: Runner, x: Floats, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(x) - 1), max_size=5))
    check_chunk_invariance(runner, x, cuts)


def test_one_sample_at_a_time_gives_the_same_scores(runner: Runner) -> None:
    x = healthy(400, 2, seed=1)
    x[250:270, 0, 1] = np.nan
    check_chunk_invariance(runner, x, range(1, len(x)))


@given(x=samples(), data=st.data())
@several
def test_a_stream_does_not_depend_on_its_neighbours(
    runner: Runner, x: Floats, data: st.DataObject
) -> None:
    check_independence(runner, x, data.draw(st.permutations(range(x.shape[1]))))


@given(x=samples(), data=st.data())
@several
def test_the_future_changes_nothing_that_was_said(
    runner: Runner, x: Floats, data: st.DataObject
) -> None:
    check_causality(runner, x, data.draw(st.integers(1, len(x) - 1)))


@given(x=samples())
@several
def test_missing_values_have_a_defined_result(runner: Runner, x: Floats) -> None:
    check_missing_is_defined(runner, x)


def test_infinite_readings_are_surprising_and_not_learnt(runner: Runner) -> None:
    x = healthy(400, 2, seed=5)
    x[200:202, 0, 0], x[300, 1, 2] = np.inf, -np.inf
    check_missing_is_defined(runner, x)
    said, _ = runner.run(x, runner.fresh(2))
    assert said["score"][200, 0] > 2 > said["score"][350:, 0].max()


def test_a_stream_that_begins_with_an_infinite_reading_recovers(runner: Runner) -> None:
    x = healthy(400, 1, seed=5)[:, 0]
    wild = x.copy()
    wild[0] = np.inf
    np.testing.assert_allclose(scores(runner, wild)[200:], scores(runner, x)[200:], atol=0.5)


def test_a_shifted_channel_stands_out(runner: Runner) -> None:
    shift = np.array([0.0, 8.0, 0.0], np.float32) * SPREAD
    check_fault_stands_out(runner, healthy(2000, 2, seed=6), lambda x: x + shift)


def test_the_shifted_channel_is_blamed(runner: Runner) -> None:
    x = healthy(1000, 1, seed=6)
    x[900:, :, 1] += 8 * SPREAD[1]
    said, _ = runner.run(x, runner.fresh(1))
    assert (said["contribution"][900:, 0].argmax(-1) == 1).all()


def test_a_fault_that_lasts_is_not_learnt_while_it_lasts(runner: Runner) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3000, 3)).astype(np.float32)
    x[2000:, 1] += 12
    assert scores(runner, x)[2000:].min() > 1.3


@pytest.mark.parametrize("channels", [1, 3])
def test_an_alarm_lasts_as_long_as_the_fault(channels: int) -> None:
    x = noise(9000, channels)
    x[5000:8000, 0] += 12
    y = score_of(x)
    assert y[5000] > 5
    assert y[5000:8000].min() > ALARM.leave > np.quantile(y[8100:], 0.99)


def test_what_has_been_so_for_long_is_how_it_is_now() -> None:
    x = torch.from_numpy(noise(12_000, 3))[:, None]
    x[3000:, :, 0] += 12
    model = General(3)
    _, _, _, *state = model(x[:4000], *model.fresh_state(1))
    guarded, *_ = model(x[4000:], *state)
    state[-1][..., ranking.BINS] = 2 * ACCEPTED  # as after so long an excursion
    accepted, *_ = model(x[4000:], *state)
    assert guarded.min() > ALARM.leave
    assert accepted[-1000:].mean() < 1


def test_units_and_offsets_change_nothing() -> None:
    torch_runner = TorchRunner(general())
    x = np.random.default_rng(1).standard_normal((800, 3)).astype(np.float32)
    moved = x * np.array([1e-3, 50, 1e4], np.float32) + np.array([0.5, 100, 1e5], np.float32)
    np.testing.assert_allclose(scores(torch_runner, moved), scores(torch_runner, x), atol=0.1)


def test_a_level_far_from_zero_is_followed() -> None:
    """101,325 ± 10 with steps of a level of 0.002 would be lost in a float32 of 101,325."""
    generator = np.random.default_rng(2)
    x = 101_325 + 10 * generator.standard_normal((60_000, 1, 1)).astype(np.float32)
    x[20_000:] += 15
    moments = np.zeros((1, levels.rows(levels.SCALES), 1), np.float32)
    for sample in x:
        _, _, _, level, moments = levels.step(sample, moments)
    assert float(level[0, 0]) == pytest.approx(101_340, abs=1.5)


@given(x=samples())
@several
def test_the_engine_says_what_torch_says(x: Floats) -> None:
    check_same_detector(TorchRunner(general()), EngineRunner(engine()), x)


def noise(samples: int, channels: int) -> Floats:
    """(T, C) independent, standard normal."""
    return np.random.default_rng(3).standard_normal((samples, channels)).astype(np.float32)


def score_of(x: Floats, *, day: float = 1000) -> Floats:
    """x (T, C) → (T,)"""
    return scores(TorchRunner(General(x.shape[1], period_s=DAY_S / day)), x)


def test_what_is_usual_at_one_hour_is_not_at_another() -> None:
    day = 96
    step = np.arange(14 * day)
    at_work = (step % day >= 32) & (step % day < 64)
    x = noise(len(step), 1)
    x[at_work] += 10
    idle = slice(12 * day + 40, 12 * day + 48)  # at noon, as it is every night
    x[idle] -= 10
    y = score_of(x, day=day)
    assert y[idle].max() > 1.2 * y[6 * day : 12 * day].max()
    blind = score_of(x, day=1)
    assert blind[idle].max() < blind[6 * day : 12 * day].max()


def test_days_that_are_no_whole_number_of_samples_are_kept() -> None:
    day = 50.5
    wave = 10 * np.sin(2 * np.pi * np.arange(4000) / day)
    x = noise(4000, 2) + wave[:, None].astype(np.float32)
    x[3900, 0] = -wave[3900]
    assert abs(wave[3900]) > 8
    assert score_of(x, day=day)[3900] > 2 > score_of(x, day=50)[3900]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_shift_smaller_than_the_noise_is_found_because_it_lasts(channels: int) -> None:
    x = noise(1500, channels)
    x[1200:1400, 0] += 2.5
    y = score_of(x)
    assert np.median(y[1220:1400]) > np.quantile(y[400:1200], 0.99)


def test_a_missing_channel_neither_alarms_nor_hides_a_fault() -> None:
    x = noise(1500, 3)
    x[900:, 2] = np.nan
    x[1400:1440, 0] += 12
    y = score_of(x)
    assert y[900:1400].max() < 4
    assert y[1400:1410].max() > 3.5


def test_a_long_excursion_counts_about_once() -> None:
    surprise = 1 + np.random.default_rng(0).exponential(size=5400).astype(np.float32)
    surprise[5000:] = 30
    known, counts = np.ones((1, 1), np.float32), np.zeros((1, 1, ranking.BINS + 1), np.float32)
    said = []
    for one in surprise:
        y, counts = ranking.step(np.full((1, 1), one), known, counts)
        said.append(float(y[0, 0]))
    assert said[5000] > 4
    assert said[-1] > 2.8  # 1 + 1/2 + … + 1/400 = 6.6 of 5,000; 400 of them would be 1.1
