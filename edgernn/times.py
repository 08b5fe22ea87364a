"""Sample times: ISO 8601 or epoch in, seconds since 1970 everywhere inside, steps of a period."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

MILLISECONDS_FROM = 1e11
"""A bare number from here on is milliseconds: as seconds it would be after the year 5138."""

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
YEAR_S = 365 * DAY_S
"""Times before the end of 1970 are seconds from a beginning, or of a clock that was never set."""
CLOCK_OFF_S = 60.0
"""By how much a clock that goes on by itself may be wrong at most: a thirtieth of a half hour."""
FIRST_MONDAY_S = 4 * DAY_S
"""1970-01-05; the epoch was a Thursday."""
SHOWN = 40
"""Characters of what is no time that its sentence shows."""

LAST_S = 253402300800.0
"""The year 10000: from there on a time cannot be written as ISO 8601."""


def seconds_of_week(time_s: float) -> float:
    """Since Monday 00:00 UTC."""
    return (time_s - FIRST_MONDAY_S) % WEEK_S


def in_step(times_s: Sequence[float] | NDArray[np.float64], step_s: float) -> int:
    """How many times, from the first on, a clock is right at that goes on by the step: to within
    `CLOCK_OFF_S`. At least 1: at the first it is set."""
    times = np.asarray(times_s)
    off = np.abs(times - times[0] - step_s * np.arange(len(times)))
    wrong = np.flatnonzero(off > CLOCK_OFF_S)
    return int(wrong[0]) if len(wrong) else len(times)


def is_kept_time(time_s: float) -> bool:
    """Whether a time that was written down can be one: in the years 1970 to 9999, or none yet."""
    return time_s == -math.inf or 0 <= time_s < LAST_S


def parse_time(value: str | float) -> float:
    """ISO 8601 text (UTC where it names no zone) or epoch seconds or milliseconds → seconds.

    Raises ValueError for anything else, NaN and infinity included.
    """
    if isinstance(value, str) and "_" in value:  # Python reads 2026_01 as a number
        raise ValueError(f"not a time: {value}")
    try:
        number = float(value)
    except ValueError:
        return _parse_iso(str(value).strip())
    if not math.isfinite(number):
        raise ValueError(f"not a time: {value}")
    return number / 1000.0 if abs(number) >= MILLISECONDS_FROM else number


def format_time(time_s: float) -> str:
    """Seconds since 1970 → "2026-11-21T10:15:00.000Z"."""
    moment = datetime.fromtimestamp(time_s, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def steps_between(earlier_s: float, later_s: float, *, period_s: float) -> int:
    """Whole periods from one sample to the next, at least 1: the rule for irregular times.

    Counted from sample to sample, not on a grid, so that a clock that runs 1 % slow never "loses"
    a sample. More than 1 means that samples are missing in between. `later_s` must be later.
    """
    return max(1, round((later_s - earlier_s) / period_s))


def _parse_iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(
            f"expected ISO 8601, or seconds or milliseconds since 1970, got {text[:SHOWN]!r}"
        ) from exc
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
