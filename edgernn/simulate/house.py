"""A house with a heat pump: energy use that follows clock, week, weather and people.

A sample is a quarter of an hour, as most meters give it. What drives the house is people (when they
sleep, leave, cook and wash, drawn anew for each day) and weather (fronts that last days, clouds,
the sun); the heat pump holds the rooms at a set point that is lower at night.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track

Array = NDArray[np.float64]

PERIOD_S = 900.0
START_S = 1_767_571_200.0
"""2026-01-05 00:00 UTC, a Monday."""
DAY = 96
"""Samples of a day."""
MAX_HOURS = 24 * 366 * 3
"""More than three years is a slip of the keyboard."""

CHANNELS = {"power": "kW", "indoor": "°C", "outdoor": "°C", "sun": "W/m²"}

# Weather.
MEAN_OUTDOOR = 6.0
"""°C."""
SWING = 3.5
"""K, half of what a clear day warms and a clear night cools."""
FRONT = 3.5
"""K, standard deviation of what lasts days."""
FRONT_H = 48.0
CLOUD_H = 10.0
"""How long fronts and clouds remember."""
CLEAR_SUN = 500.0
"""W/m² at noon."""
DAYLIGHT_H = (7.5, 17.0)

# Rooms and heating.
SET_POINT = (21.0, 18.5)
"""°C by day and by night."""
LOSS_H = 60.0
"""Hours in which the rooms would follow the weather."""
HEAT_RATE = 0.9
"""K that one electrical kW of the heat pump warms the rooms by in an hour."""
SUN_RATE = 0.25
"""K in an hour of clear sun through the windows."""
GAIN = 1.2
"""kW for each K below the set point."""
LARGEST_HEATING = 3.0
"""kW, electrical."""

# People.
STANDBY = 0.18
"""kW that never goes off: fridge, router, standby."""
LIGHTS = 0.25
"""kW while someone is awake and it is dark."""
WAKE_H, LEAVE_H, RETURN_H, SLEEP_H = 6.5, 8.0, 17.0, 22.75
WEEKEND_WAKE_H = 8.5
UNREST_H = 0.4
"""Standard deviation of each of them from day to day."""
BREAKFAST, DINNER, WASHING = (1.0, 0.5), (1.8, 0.75), (1.2, 1.5)
"""kW, and hours that it takes."""


def simulate_house(*, hours: float, seed: int, stream: str = "house") -> Recording:
    """A recording of one house, a sample every 15 minutes, without labels.

    Same arguments, same bytes; a shorter recording is the beginning of a longer one. Raises
    EdgernnError for a length or seed that cannot be.
    """
    if not PERIOD_S / 3600 <= hours <= MAX_HOURS:
        raise EdgernnError(f"hours: expected a quarter of an hour to {MAX_HOURS}, got {hours}")
    if seed < 0:
        raise EdgernnError(f"seed: expected 0 or more, got {seed}")
    length = round(hours * 3600 / PERIOD_S)
    weather_rng, people_rng, sensor_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)
    )
    hour = (np.arange(length) % DAY * (24.0 / DAY)).astype(np.float64)  # (T,) of the day
    outdoor, sun = _weather(hour, weather_rng)
    is_awake, use = _people(length, hour, sun, people_rng)
    power, indoor = _heat(is_awake, use, outdoor, sun)
    noise = sensor_rng.standard_normal((length, 4)) * [0.02, 0.05, 0.1, 3.0]
    x = np.column_stack([power, indoor, outdoor, sun]) + noise  # (T, C)
    x[:, 3] = np.where(sun > 0, np.maximum(x[:, 3], 0), 0)
    x[:, 0] = np.maximum(x[:, 0], 0.02)
    time_s = START_S + PERIOD_S * np.arange(length, dtype=np.float64)
    return Recording(
        channels=tuple(CHANNELS),
        units=tuple(CHANNELS.values()),
        tracks=(Track(stream, time_s, x.astype(np.float32), None),),
        period_s=PERIOD_S,
        notes=(),
    )


def _weather(hour: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """hour (T,) of the day → outdoor temperature and sun, (T,)."""
    noise = rng.standard_normal((len(hour), 2))
    front = FRONT * _wander(noise[:, 0], FRONT_H)
    clear = 1 / (1 + np.exp(-1.5 * _wander(noise[:, 1], CLOUD_H)))  # 0 = overcast, 1 = clear
    rise, fall = DAYLIGHT_H
    height = np.maximum(np.sin(np.pi * np.clip((hour - rise) / (fall - rise), 0, 1)), 0)
    daily = -np.cos(2 * np.pi * (hour - 3) / 24)  # coldest at three
    return MEAN_OUTDOOR + front + SWING * (0.3 + 0.7 * clear) * daily, CLEAR_SUN * height * clear


def _people(
    length: int, hour: Array, sun: Array, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Array]:
    """Whether someone is up, and what they use besides heating in kW; both (T,)."""
    days = math.ceil(length / DAY)
    unrest = rng.standard_normal((days, 8)) * UNREST_H
    chance = rng.random((days, 2))
    is_awake = np.zeros(length, bool)
    use = np.full(length, STANDBY)
    for day in range(days):
        rows = slice(day * DAY, min((day + 1) * DAY, length))
        h, mine = hour[rows], use[rows]
        is_weekend = day % 7 >= 5
        wake = (WEEKEND_WAKE_H if is_weekend else WAKE_H) + unrest[day, 0]
        sleep = SLEEP_H + unrest[day, 1]
        leave, back = LEAVE_H + unrest[day, 2], RETURN_H + unrest[day, 3]
        is_out = (h >= leave) & (h < back) & (not is_weekend)
        is_up = (h >= wake) & (h < sleep) & ~is_out
        is_awake[rows] = is_up
        mine += LIGHTS * (is_up & (sun[rows] < 60))
        mine += _appliance(h, wake + 0.25, *BREAKFAST)
        mine += _appliance(h, 18.25 + unrest[day, 4], *DINNER)
        if chance[day, 0] < (0.8 if is_weekend else 0.15):
            mine += _appliance(h, (10.5 if is_weekend else 19.5) + 2 * unrest[day, 5], *WASHING)
    return is_awake, use


def _heat(
    is_awake: NDArray[np.bool_], use: Array, outdoor: Array, sun: Array
) -> tuple[Array, Array]:
    """The whole house's power and the rooms' temperature, (T,); a step is a quarter of an hour."""
    step_h = PERIOD_S / 3600
    day, night = SET_POINT
    room = day
    power, indoor = use.copy(), np.empty(len(use))
    for t in range(len(use)):
        wanted = day if is_awake[t] else night
        heating = min(max(GAIN * (wanted - room), 0.0), LARGEST_HEATING)
        rate = (outdoor[t] - room) / LOSS_H + HEAT_RATE * heating + SUN_RATE * sun[t] / CLEAR_SUN
        room += rate * step_h
        power[t] += heating
        indoor[t] = room
    return power, indoor


def _appliance(hour: Array, start: float, kilowatts: float, hours: float) -> Array:
    """Its mean power in each quarter of an hour, (T,)."""
    step_h = PERIOD_S / 3600
    overlap = np.minimum(hour + step_h, start + hours) - np.maximum(hour, start)
    used: Array = kilowatts * np.maximum(overlap, 0) / step_h
    return used


def _wander(noise: Array, lag_h: float) -> Array:
    """White noise (T,) of variance 1 → noise that remembers for `lag_h`, of variance 1."""
    keep = math.exp(-PERIOD_S / 3600 / lag_h)
    share = math.sqrt(1 - keep**2)
    y, values = 0.0, []
    for value in noise.tolist():
        y = keep * y + share * value
        values.append(y)
    return np.array(values)
