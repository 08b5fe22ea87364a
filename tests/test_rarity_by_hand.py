"""What the adaptive score promises, asked of its reference: every twin of it must pass the same."""

import numpy as np
import pytest
from numpy.typing import NDArray
from rarity_by_hand import Rarity, Recipe

Array = NDArray[np.float64]

LEARNT = 400
"""Samples that are learnt without a guard."""


def noise(samples: int, channels: int, seed: int = 0) -> Array:
    """(T, C) independent, standard normal."""
    return np.random.default_rng(seed).normal(size=(samples, channels))


def scores(x: Array) -> Array:
    """(T, C), a sample a minute → (T,)."""
    recipe = Recipe(x.shape[1])
    each = [recipe(row, t / 1440 % 1, learns=t < LEARNT) for t, row in enumerate(x)]
    return np.array(each)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_score_of_three_is_seldom_on_noise_and_a_fault_is_far_above_it(channels: int) -> None:
    x = noise(2000, channels)
    x[1600:1650, 0] += 12.0
    y = scores(x)
    assert (y[LEARNT:1600] > 3.0).mean() < 0.005
    assert y[1600:1604].max() > 3.5


def test_a_shift_smaller_than_the_noise_is_found_because_it_lasts() -> None:
    x = noise(1500, 3)
    x[1200:1400, 1] += 2.5
    y = scores(x)
    assert np.median(y[1220:1400]) > np.quantile(y[LEARNT:1200], 0.99)


def test_a_long_anomaly_is_not_learnt_away() -> None:
    x = noise(2000, 2)
    x[1000:1800, 0] += 8.0
    y = scores(x)
    assert y[1700:1800].min() > np.quantile(y[LEARNT:1000], 0.99)
    assert np.median(y[1900:]) < 1.0


def test_a_missing_channel_neither_alarms_nor_hides_a_fault() -> None:
    x = noise(1500, 3)
    x[900:, 2] = np.nan
    x[1400:1440, 0] += 12.0
    y = scores(x)
    assert y[900:1400].max() < 4.0
    assert y[1400:1410].max() > 3.5


def test_a_sample_without_any_value_is_unknown_and_changes_nothing() -> None:
    x = noise(1200, 2)
    gap = np.insert(x, 800, np.full((5, 2), np.nan), axis=0)
    here, there = Recipe(2), Recipe(2)
    plain = [here(row, 0.3, learns=t < LEARNT) for t, row in enumerate(x)]
    gappy = np.array([there(row, 0.3, learns=t < LEARNT) for t, row in enumerate(gap)])
    assert np.isnan(gappy[800:805]).all()
    np.testing.assert_array_equal(np.delete(gappy, slice(800, 805)), plain)


def test_what_is_usual_at_an_hour_is_unusual_at_another() -> None:
    step, day = np.arange(14 * 96), 96  # 14 days of 15 min
    at_work = (step % day >= 32) & (step % day < 64)
    x = 10.0 * at_work[:, None] + noise(len(step), 1, seed=1)
    idle = slice(12 * day + 40, 12 * day + 48)  # at noon, as it is every night
    x[idle] -= 10.0
    recipe = Recipe(1)
    y = np.array([recipe(row, t / day % 1, learns=t < LEARNT) for t, row in enumerate(x)])
    assert y[idle].max() > 1.2 * y[6 * day : 12 * day].max()


def test_a_long_excursion_counts_about_once() -> None:
    rarity, rng = Rarity(), np.random.default_rng(0)
    for surprise in rng.exponential(size=5000):
        rarity(1.0 + surprise)
    assert rarity(30.0) > 4.0
    for _ in range(399):
        last = rarity(30.0)
    assert last > 2.8  # 1 + 1/2 + … + 1/400 = 6.6 of 5,000; 400 of them would be 1.1
