"""The simulated house: repeatable, and with the rhythms that a forecast can learn."""

import numpy as np
import pytest

from edgernn.errors import EdgernnError
from edgernn.simulate.house import CHANNELS, DAY, simulate_house


def test_the_same_seed_gives_the_same_house_and_another_one_another() -> None:
    one, again, other = (simulate_house(hours=48, seed=seed).tracks[0].x for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_shorter_recording_is_the_beginning_of_a_longer_one() -> None:
    short, long = (simulate_house(hours=hours, seed=3).tracks[0].x for hours in (50, 200))
    assert np.array_equal(short, long[: len(short)])


def test_power_follows_the_clock_and_the_week() -> None:
    x = simulate_house(hours=24 * 7 * 8, seed=0).tracks[0].x
    power = x[:, list(CHANNELS).index("power")].reshape(8, 7, DAY)
    night, morning = power[..., 4:20].mean(), power[:, :5, 26:34].mean()
    noon_weekday, noon_weekend = (power[:, days, 44:60].mean() for days in (range(5), (5, 6)))
    assert morning > 3 * night
    assert noon_weekend > 1.5 * noon_weekday


def test_the_rooms_stay_between_the_set_points_and_the_sun_is_away_at_night() -> None:
    x = simulate_house(hours=24 * 60, seed=0).tracks[0].x
    indoor, sun = (x[:, list(CHANNELS).index(name)] for name in ("indoor", "sun"))
    assert 17 < indoor.min() < indoor.max() < 24
    assert (sun.reshape(-1, DAY)[:, :28] == 0).all()
    assert sun.max() > 300


@pytest.mark.parametrize(("hours", "seed"), [(0.1, 0), (1e9, 0), (24, -1)])
def test_a_house_that_cannot_be_is_refused(hours: float, seed: int) -> None:
    with pytest.raises(EdgernnError, match="expected"):
        simulate_house(hours=hours, seed=seed)
