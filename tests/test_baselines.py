"""The plain methods: one suite of checks for all of them, and each against its definition."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.benchmark.baselines import (
    BASELINES,
    MEMORY,
    RECENT,
    SHRINKAGE,
    ExponentialZScore,
    Mahalanobis,
    Pca,
    Persistence,
    RecentMean,
    ZScore,
    score_series,
)
from edgernn.benchmark.series import Samples, Series
from edgernn.errors import MissingExtraError

FIT, ROWS, CHANNELS = 150, 120, 3
SUMMED = 1e-9
"""Sums of a matrix product may be taken in another order where there are fewer rows."""

every = pytest.mark.parametrize("name", BASELINES)
judging = pytest.mark.parametrize("name", sorted(BASELINES.keys() - {"always-on", "random"}))


def samples(values: object) -> Samples:
    return np.asarray(values, np.float32)


def healthy(rows: int, seed: int) -> Samples:
    """Channels of different sizes that go together."""
    noise = np.random.default_rng(seed).standard_normal((rows, CHANNELS))
    mixing = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 20.0], [0.0, 0.0, 30.0]])
    return samples(noise @ mixing + [5.0, -3.0, 400.0])


def with_holes(x: Samples, seed: int) -> Samples:
    """Single values, one channel for a while, and whole rows missing."""
    x = np.where(np.random.default_rng(seed).random(x.shape) < 0.1, np.float32(np.nan), x)
    x[30:45, 1] = np.nan
    x[60:63] = np.nan
    return x


def scored(name: str, learnt: Samples, *pieces: Samples) -> NDArray[np.float64]:
    baseline = BASELINES[name](7)
    baseline.fit(learnt)
    return np.concatenate([baseline.score(piece) for piece in pieces])


@every
@settings(max_examples=8)
@given(cut=st.integers(0, ROWS), other=st.floats(-1e4, 1e4, width=32))
def test_a_later_sample_never_changes_an_earlier_score(name: str, cut: int, other: float) -> None:
    learnt, x = healthy(FIT, 0), with_holes(healthy(ROWS, 1), 2)
    later = x.copy()
    later[cut:] = other
    before, after = scored(name, learnt, x), scored(name, learnt, later)
    np.testing.assert_allclose(before[:cut], after[:cut], rtol=SUMMED)


@every
def test_sample_by_sample_is_the_same_as_all_at_once(name: str) -> None:
    learnt, x = with_holes(healthy(FIT, 0), 3), with_holes(healthy(ROWS, 1), 2)
    one_by_one = scored(name, learnt, *np.split(x, ROWS))
    np.testing.assert_allclose(one_by_one, scored(name, learnt, x), rtol=SUMMED)
    np.testing.assert_allclose(
        scored(name, learnt, x[:50], x[:0], x[50:]), scored(name, learnt, x), rtol=SUMMED
    )


@every
def test_fitting_again_forgets_what_was_scored(name: str) -> None:
    baseline = BASELINES[name](7)
    learnt, x = healthy(FIT, 0), healthy(ROWS, 1)
    baseline.fit(learnt)
    first = baseline.score(x)
    baseline.fit(learnt)
    np.testing.assert_array_equal(baseline.score(x), first)


@judging
def test_a_row_without_a_value_has_no_score_and_all_others_have_one(name: str) -> None:
    x = healthy(ROWS, 1)
    x[40:50, :2] = np.nan
    x[60:63] = np.nan
    score = scored(name, healthy(FIT, 0), healthy(1, 4), x)[1:]
    expected = np.zeros(ROWS, bool)
    expected[60:63] = True
    np.testing.assert_array_equal(np.isnan(score), expected)
    assert (score[~expected] >= 0).all()


@judging
def test_a_planted_fault_scores_above_everything_healthy(name: str) -> None:
    x = healthy(ROWS, 1)
    x[80:] += samples([40.0, 40.0, 2_000.0])
    score = scored(name, healthy(FIT, 0), healthy(1, 4), x)[1:]
    assert score[80:83].max() > 1.05 * score[:80].max()


@judging
def test_channels_without_values_or_without_movement_do_not_stop_it(name: str) -> None:
    learnt, x = healthy(FIT, 0), healthy(ROWS, 1)
    learnt[:, 0], x[:, 0] = np.nan, 1.0
    learnt[:, 1], x[:, 1] = 7.0, 7.0
    x[100, 1] = 50.0
    score = scored(name, learnt, healthy(1, 4), x)[1:]
    assert np.isfinite(score).all()


@pytest.mark.parametrize("name", ["z-score", "mahalanobis", "pca", "persistence"])
def test_who_learnt_from_missing_values_alone_does_not_call_the_first_row_healthy(
    name: str,
) -> None:
    score = scored(name, np.full((9, CHANNELS), np.nan, np.float32), healthy(ROWS, 1))
    assert np.isnan(score[0])


def test_the_z_score_is_the_largest_distance_in_standard_deviations() -> None:
    learnt, x = healthy(FIT, 0), healthy(ROWS, 1)
    z = np.abs((x - learnt.mean(0, dtype=float)) / learnt.std(0, dtype=float))
    np.testing.assert_allclose(scored("z-score", learnt, x), z.max(1), rtol=1e-6)


def test_a_channel_that_never_moved_is_measured_in_its_own_unit() -> None:
    baseline = ZScore()
    baseline.fit(np.full((9, 1), 0.1, np.float32))
    np.testing.assert_allclose(baseline.score(samples([[0.1], [2.1]])), [0.0, 2.0], atol=1e-6)


def test_mahalanobis_is_the_distance_by_the_definition_over_the_channels_that_are_there() -> None:
    learnt, x = healthy(FIT, 0), with_holes(healthy(ROWS, 1), 2)
    mean, spread = learnt.mean(0, dtype=float), learnt.std(0, dtype=float)
    covariance = np.corrcoef(learnt.T.astype(float)) + SHRINKAGE * np.eye(CHANNELS)
    expected = []
    for row in (x - mean) / spread:
        there = ~np.isnan(row)
        part = row[there]
        square = part @ np.linalg.solve(covariance[np.ix_(there, there)], part)
        expected.append(np.sqrt(square) if there.any() else np.nan)
    baseline = Mahalanobis()
    baseline.fit(learnt)
    np.testing.assert_allclose(baseline.score(x), expected, rtol=1e-6)


def test_pca_sees_what_breaks_the_relation_though_every_channel_is_usual() -> None:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((500, 1))
    learnt = (shared + 0.01 * rng.standard_normal((500, CHANNELS))).astype(np.float32)
    z_score, pca = ZScore(), Pca()
    odd, usual = samples([[1.0, -1.0, 1.0]]), samples([[1.0, 1.0, 1.0]])
    for baseline in (z_score, pca):
        baseline.fit(learnt)
    assert z_score.score(odd)[0] < 2
    assert pca.score(usual)[0] < 1  # T² and Q, each well below its limit
    assert pca.score(odd)[0] > 1_000


def test_pca_of_a_usual_row_is_below_the_two_limits_and_of_a_far_one_above() -> None:
    learnt = healthy(2_000, 0)
    pca = Pca()
    pca.fit(learnt)
    assert 0.95 < np.mean(pca.score(learnt) < 2) <= 1.0
    assert pca.score(learnt[:1] + samples([0, 0, 5_000]))[0] > 100


def test_persistence_measures_steps_from_the_last_value_there_was() -> None:
    baseline = Persistence()
    baseline.fit(samples([[0], [2], [0], [2]]))  # steps of 2
    nan = np.nan
    score = baseline.score(samples([[1], [5], [nan], [nan], [6]]))
    np.testing.assert_allclose(score, [nan, 2.0, nan, nan, 0.5])


def test_the_recent_mean_is_of_the_scores_that_there_are() -> None:
    baseline = RecentMean(ZScore())
    baseline.fit(samples([[-1], [1]]))
    x = samples([[1], [3], [np.nan], *[[0]] * RECENT])
    expected = [1, 2, np.nan, 4 / 3, *(4 / n for n in range(4, RECENT)), 3 / (RECENT - 1), 0]
    np.testing.assert_allclose(baseline.score(x)[: len(expected)], expected[: len(x)], rtol=1e-9)


def test_the_exponential_z_score_follows_its_recurrence() -> None:
    learnt, x = healthy(FIT, 0)[:, :1], with_holes(healthy(ROWS, 1), 2)[:, :1]
    gain = 1 - np.exp(-1 / MEMORY)
    mean, variance = learnt.mean(dtype=float), learnt.var(dtype=float)
    expected = []
    for value in x[:, 0].astype(float):
        expected.append(abs(value - mean) / np.sqrt(variance))
        if not np.isnan(value):
            away = value - mean
            mean += gain * away
            variance = (1 - gain) * (variance + gain * away**2)
    baseline = ExponentialZScore()
    baseline.fit(learnt)
    np.testing.assert_allclose(baseline.score(x), expected, rtol=1e-6)


def test_the_exponential_z_score_gets_used_to_a_new_level() -> None:
    baseline = ExponentialZScore()
    baseline.fit(healthy(FIT, 0))
    level = baseline.score(healthy(2_000, 1) + samples([40, 0, 0]))
    assert level[0] > 20
    assert level[-100:].max() < 6


def test_chance_is_the_seed_s_alone() -> None:
    x = healthy(ROWS, 1)
    assert (scored("random", x, x) == scored("random", x[:9], x + 1)).all()
    other = BASELINES["random"](8)
    other.fit(x)
    assert (scored("random", x, x) != other.score(x)).any()


def test_the_isolation_forest_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingExtraError, match=r"isolation-forest needs pip install 'edgernn\["):
        BASELINES["isolation-forest"](0).fit(healthy(9, 0))


def series(*, before: Samples, first_rows: int) -> Series:
    return Series("a.csv", ("a", "b", "c"), 1.0, None, healthy(ROWS, 1), before, first_rows)


def test_first_rows_are_learnt_from_and_scored_again_in_their_place() -> None:
    of = series(before=np.empty((0, CHANNELS), np.float32), first_rows=50)
    found = score_series(Persistence(), of)
    np.testing.assert_array_equal(found.learnt, found.score[:50])
    np.testing.assert_array_equal(found.score, scored("persistence", of.x[:50], of.x))


def test_a_training_part_is_learnt_from_and_its_end_is_what_the_first_row_follows() -> None:
    before = healthy(FIT, 0)
    found = score_series(Persistence(), series(before=before, first_rows=0))
    together = scored("persistence", before, np.concatenate([before, healthy(ROWS, 1)]))
    np.testing.assert_array_equal(np.concatenate([found.learnt, found.score]), together)
    assert np.isfinite(found.score[0])
