"""Times in every form that senders use, and steps of a period between them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn.times import MILLISECONDS_FROM, format_time, parse_time, steps_between

MOMENT_S = 1_795_256_100.0  # 2026-11-21T10:15:00Z


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-21T10:15:00Z",
        "2026-11-21T10:15:00.000Z",
        "2026-11-21T11:15:00+01:00",
        "2026-11-21 10:15:00",
        " 2026-11-21T10:15 ",
        "1795256100",
        "1795256100000",
        1_795_256_100,
        1_795_256_100.0,
        1_795_256_100_000,
    ],
)
def test_one_moment_is_the_same_time_in_every_form(value: str | float) -> None:
    assert parse_time(value) == MOMENT_S


def test_a_text_without_a_zone_is_utc() -> None:
    assert parse_time("1970-01-02T00:00:00") == 86_400.0


def test_a_bare_number_is_milliseconds_from_the_stated_size_on() -> None:
    below = math.nextafter(MILLISECONDS_FROM, 0)
    assert parse_time(below) == below
    assert parse_time(MILLISECONDS_FROM) == MILLISECONDS_FROM / 1000


@pytest.mark.parametrize(
    "value", ["", "yesterday", "2026-13-01", "nan", "inf", "-inf", math.nan, math.inf, "12 s"]
)
def test_what_is_no_time_is_a_value_error(value: str | float) -> None:
    with pytest.raises(ValueError):
        parse_time(value)


@given(st.text(max_size=40))
def test_any_text_is_a_finite_time_or_a_value_error(text: str) -> None:
    try:
        time_s = parse_time(text)
    except ValueError:
        return
    assert math.isfinite(time_s)


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_in_milliseconds_survives_writing_and_reading(milliseconds: int) -> None:
    time_s = milliseconds / 1000
    assert parse_time(format_time(time_s)) == pytest.approx(time_s, abs=0.0011)


def test_a_written_time_has_milliseconds_and_a_z() -> None:
    assert format_time(MOMENT_S + 0.25) == "2026-11-21T10:15:00.250Z"


@given(st.lists(st.floats(0.6, 1.4), min_size=1, max_size=200))
def test_jitter_below_half_a_period_never_loses_a_sample(intervals: list[float]) -> None:
    time_s = 0.0
    for interval in intervals:
        assert steps_between(time_s, time_s + interval, period_s=1.0) == 1
        time_s += interval


@given(st.integers(1, 10_000), st.floats(0.001, 1000))
def test_whole_periods_are_counted(steps: int, period_s: float) -> None:
    assert steps_between(0.0, steps * period_s, period_s=period_s) == steps


def test_two_samples_that_almost_coincide_are_one_step_apart() -> None:
    assert steps_between(0.0, 0.001, period_s=1.0) == 1
