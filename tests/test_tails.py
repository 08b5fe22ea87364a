"""Tails fitted to surprise whose law is known, and what is made of too little."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import genpareto

from edgernn.card import KNOTS, Tail
from edgernn.errors import EdgernnError
from edgernn.nets.detector import TailScores
from edgernn.training.tails import FEWEST_SAMPLES, SHAPE_RANGE, extremal_index, fit_tail

Series = NDArray[np.float64]


def pareto(shape: float, *, samples: int, seed: int) -> Series:
    found: Series = genpareto.rvs(shape, size=samples, random_state=seed)
    return found


def moving_maximum(width: int, *, samples: int, seed: int) -> Series:
    """(T,) the largest of the last `width` of independent values: θ = 1/width."""
    fresh = np.random.default_rng(seed).exponential(size=samples + width - 1)
    found: Series = np.lib.stride_tricks.sliding_window_view(fresh, width).max(axis=1)
    return found


def score(tail: Tail, surprise: Sequence[float] | Series) -> Series:
    """−log10 p as the card defines it."""
    s = np.asarray(surprise, np.float64)
    excess = np.maximum(s - tail.knots[-1], 0)
    beyond = np.log1p(tail.shape * excess / tail.scale) / (tail.shape * math.log(10))
    found: Series = np.interp(s, tail.knots, tail.scores) + beyond
    return found


@pytest.mark.parametrize("shape", [0.1, 0.2, 0.4])
def test_the_tail_of_pareto_surprise_has_its_shape_and_scale(shape: float) -> None:
    tails = [fit_tail("a", [pareto(shape, samples=10_000, seed=seed)]) for seed in range(8)]
    assert np.mean([tail.shape for tail in tails]) == pytest.approx(shape, abs=0.1)
    # above u, a Pareto tail is one of scale σ + ξ·u (Coles 2001, ch. 4)
    ratio = [tail.scale / (1 + shape * tail.knots[-1]) for tail in tails]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.1)


def test_ten_times_beyond_the_fitted_tail_the_score_is_right_within_half() -> None:
    tail = fit_tail("a", [pareto(0.1, samples=20_000, seed=3)])
    far = float(genpareto.isf(1e-5, 0.1))
    assert score(tail, [far])[0] == pytest.approx(5.0, abs=0.5)


def test_half_of_all_samples_are_above_the_first_knot_after_0() -> None:
    surprise = pareto(0.2, samples=5_000, seed=4)
    tail = fit_tail("a", [surprise])
    assert tail.scores[1] == pytest.approx(math.log10(2))
    assert np.mean(surprise > tail.knots[1]) == pytest.approx(0.5, abs=0.001)


def test_a_score_of_two_is_one_sample_in_a_hundred() -> None:
    surprise = pareto(0.2, samples=20_000, seed=5)
    assert np.mean(score(fit_tail("a", [surprise]), surprise) > 2) == pytest.approx(0.01, abs=0.003)


def test_a_bounded_surprise_gets_the_smallest_allowed_shape() -> None:
    tail = fit_tail("a", [np.random.default_rng(6).random(20_000)])
    assert tail.shape == pytest.approx(SHAPE_RANGE[0], abs=0.01)


def test_a_short_recording_gets_a_heavier_tail_than_a_long_one() -> None:
    bounded = np.random.default_rng(7).random(20_000)
    short, long = fit_tail("a", [bounded[:300]]), fit_tail("a", [bounded])
    assert short.shape > 3 * long.shape


@given(st.integers(0, 1000), st.sampled_from(["pareto", "ties", "zeros", "bounded"]))
def test_scores_rise_with_surprise_whatever_it_was_fitted_to(seed: int, kind: str) -> None:
    generator = np.random.default_rng(seed)
    surprise = generator.pareto(2.0, size=400)
    if kind == "ties":
        surprise = np.round(surprise)
    elif kind == "zeros":
        surprise[generator.random(400) < 0.9] = 0.0
    elif kind == "bounded":
        surprise = np.minimum(surprise, 1.0)
    tail = fit_tail("a", [surprise])
    grid = np.concatenate([tail.knots, tail.knots[-1] + np.geomspace(1e-3, 1e6, 50)])
    assert np.all(np.diff(score(tail, np.sort(grid))) >= 0)
    assert np.all(np.diff(tail.knots) > 0)
    assert np.all(np.diff(tail.scores) > 0)
    assert len(tail.knots) == len(tail.scores) == KNOTS


def test_surprise_that_never_moved_makes_any_other_a_surprise() -> None:
    tail = fit_tail("a", [np.zeros(1000)])
    assert score(tail, [1.0])[0] > 10


def test_missing_samples_do_not_count() -> None:
    surprise = pareto(0.2, samples=2_000, seed=8)
    gaps = np.full(500, np.nan)
    assert fit_tail("a", [surprise, gaps]) == fit_tail("a", [surprise])


@pytest.mark.parametrize(
    "series",
    [[], [np.zeros(FEWEST_SAMPLES - 1)], [np.r_[np.zeros(FEWEST_SAMPLES - 1), np.nan]]],
)
def test_too_few_samples_are_refused(series: list[Series]) -> None:
    with pytest.raises(EdgernnError, match=rf"healthy samples, at least {FEWEST_SAMPLES} are need"):
        fit_tail("a", series)


def test_lone_exceedances_have_an_extremal_index_near_one() -> None:
    surprise = pareto(0.1, samples=50_000, seed=9)
    assert extremal_index([surprise], float(np.quantile(surprise, 0.98))) > 0.9


@pytest.mark.parametrize("width", [2, 5, 20])
def test_a_moving_maximum_has_an_extremal_index_of_one_over_its_width(width: int) -> None:
    surprise = moving_maximum(width, samples=200_000, seed=10)
    theta = extremal_index([surprise], float(np.quantile(surprise, 0.99)))
    assert theta * width == pytest.approx(1.0, abs=0.2)


def test_the_extremal_index_is_the_intervals_estimator_of_ferro_and_segers() -> None:
    surprise = np.zeros(30)
    surprise[[2, 3, 4, 9, 10, 19]] = 1.0  # intervals 1, 1, 5, 1, 9
    by_hand = 2 * (4 + 8) ** 2 / (5 * (4 * 3 + 8 * 7))
    assert extremal_index([surprise], 0.5) == pytest.approx(by_hand)


def test_the_gap_between_two_series_is_no_gap_between_exceedances() -> None:
    surprise = moving_maximum(5, samples=100_000, seed=11)
    threshold = float(np.quantile(surprise, 0.99))
    parts = np.split(surprise, 20)
    whole = extremal_index([surprise], threshold)
    assert extremal_index(parts, threshold) == pytest.approx(whole, rel=0.1)
    assert extremal_index(parts[::-1], threshold) == extremal_index(parts, threshold)


@pytest.mark.parametrize("exceedances", [[], [5], [5, 9]])
def test_too_few_exceedances_to_say_count_as_lone(exceedances: list[int]) -> None:
    surprise = np.zeros(100)
    surprise[exceedances] = 1.0
    assert extremal_index([surprise], 0.5) == 1.0


def test_the_graph_scores_what_the_card_says_where_knots_almost_coincide() -> None:
    generator = np.random.default_rng(0)
    surprise = np.where(generator.random(4000) < 0.9, 0.0, generator.exponential(size=4000))
    tail = fit_tail("a", [surprise])
    scores = TailScores(1)
    scores.load([tail])
    beyond = math.log1p(tail.shape * (500 - tail.knots[-1]) / tail.scale)
    expected = tail.scores[-1] + beyond / (tail.shape * math.log(10))
    found = float(scores(torch.tensor([[[500.0]]]))[0, 0, 0])
    assert found == pytest.approx(expected, rel=1e-3)


def test_one_long_cluster_is_not_taken_for_lone_exceedances() -> None:
    series = np.zeros(2000)
    series[100:200] = 1.0
    assert extremal_index([series], 0.5) == pytest.approx(0.01)
