"""Samples at any times become rows a period apart that know nothing of later samples."""

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.resample import Resampler

Row = tuple[float, float]
NAN = math.nan
TIMES = st.lists(st.floats(1e-3, 5.0), max_size=60)


def rows(
    samples: Iterable[tuple[float, float]],
    rule: str = "mean",
    *,
    period_s: float = 1.0,
    hold_s: float = 2.0,
) -> list[Row]:
    """One channel's rows: (time, value)."""
    resampler = Resampler(rule, period_s=period_s, hold_s=hold_s)
    found = [row for time_s, value in samples for row in resampler.add(time_s, [value])]
    return [(time_s, x[0]) for time_s, x in found]


def test_samples_on_the_period_are_rows_at_once() -> None:
    samples = [(1000.0 + k, float(k)) for k in range(10)]
    assert rows(samples, "mean") == rows(samples, "last") == samples


@pytest.mark.parametrize("period_s", [0.1, 0.3, 1.0, 900.0])
def test_times_that_floats_cannot_say_exactly_are_on_the_period_all_the_same(
    period_s: float,
) -> None:
    begin = round(1.7e9 / period_s)
    samples = [(round((begin + k) * period_s, 6), float(k)) for k in range(100)]
    assert [value for _, value in rows(samples, period_s=period_s)] == list(range(100))


def test_a_fast_stream_is_averaged_over_the_period_before_each_row() -> None:
    samples = [(k / 4, float(k)) for k in range(1, 13)]
    assert rows(samples, "mean") == [(1, 2.5), (2, 6.5), (3, 10.5)]


def test_a_fast_streams_last_values_are_taken() -> None:
    samples = [(k / 4, float(k)) for k in range(1, 13)]
    assert rows(samples, "last") == [(1, 4), (2, 8), (3, 12)]


def test_a_last_value_stands_while_it_is_held_and_no_longer() -> None:
    found = rows([(0.5, 7.0), (9.5, 8.0)], "last", hold_s=3.0)
    assert found == [(1, 7), (2, 7), (3, 7)]  # 4 would be 3.5 s later; 10 is not complete


def test_a_mean_of_nothing_is_no_row() -> None:
    assert rows([(0.5, 7.0), (9.5, 8.0), (10.5, 9.0)], "mean") == [(1, 7), (10, 8)]


def test_each_channel_stands_for_itself() -> None:
    resampler = Resampler("last", period_s=1.0, hold_s=1.0)
    found = []
    for time_s, x in ((0.2, [1.0, NAN]), (0.4, [NAN, 2.0]), (1.5, [3.0, NAN]), (3.0, [4.0, NAN])):
        found += resampler.add(time_s, x)
    assert found[0] == (1.0, [1.0, 2.0])
    assert found[1][1][0] == 3.0 and math.isnan(found[1][1][1])
    assert [row[0] for row in found] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("rule", ["last", "mean"])
@given(intervals=TIMES, cut=st.integers(0, 60))
def test_a_row_depends_on_no_later_sample(rule: str, intervals: list[float], cut: int) -> None:
    samples, time_s = [], 100.0
    for k, interval in enumerate(intervals):
        time_s += interval
        samples.append((time_s, float(k)))
    early = rows(samples[:cut], rule)
    whole = rows(samples, rule)
    assert whole[: len(early)] == early
    for row_s, value in whole:
        assert samples[int(value)][0] <= row_s + 0.01


@pytest.mark.parametrize("rule", ["last", "mean"])
@given(intervals=TIMES)
def test_rows_rise_by_whole_periods_and_miss_no_sample(rule: str, intervals: list[float]) -> None:
    time_s, samples = 100.0, []
    for interval in intervals:
        time_s += interval
        samples.append((time_s, 1.0))
    found = [row_s for row_s, _ in rows(samples, rule)]
    assert all(row_s == round(row_s) for row_s in found)
    assert found == sorted(set(found))
    if found:
        wanted = {math.ceil(s - 1e-3) for s, _ in samples if math.ceil(s - 1e-3) <= found[-1]}
        assert wanted <= set(found)


def test_after_a_reset_nothing_stands() -> None:
    resampler = Resampler("last", period_s=1.0, hold_s=9.0)
    resampler.add(0.5, [7.0])
    resampler.reset()
    assert resampler.add(0.7, [8.0]) == []
    assert resampler.add(1.0, [NAN]) == [(1.0, [8.0])]
