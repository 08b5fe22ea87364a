"""One stream's order: each way in which samples can come wrong, and what is made of it."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.stream import CLOCK_STEPPED_AFTER, Step, Stream, StreamRule

X = (1.0, 2.0)


class Feed:
    """A stream with a period of 1 s that bridges 5 s, with everything that came of its samples."""

    def __init__(self, *, warm_up: int = 0) -> None:
        self.stream = Stream("a", 0, StreamRule(1.0, warm_up, max_gap_s=5.0))
        self.counts: Counter[str] = Counter()
        self.steps: list[Step] = []

    def send(self, times: Iterable[float], seqs: Iterable[int | None] | None = None) -> "Feed":
        times = list(times)
        for time_s, seq in zip(times, seqs or [None] * len(times), strict=True):
            self.steps += self.stream.admit(time_s, list(X), seq=seq, counts=self.counts)
        return self

    @property
    def times(self) -> list[float]:
        return [step.time_s for step in self.steps]

    @property
    def fresh(self) -> list[float]:
        return [step.time_s for step in self.steps if step.is_fresh]

    @property
    def missing(self) -> list[float]:
        return [step.time_s for step in self.steps if np.isnan(step.x).all()]


def test_the_first_sample_starts_afresh_and_the_others_follow() -> None:
    feed = Feed().send([10, 11, 12])
    assert (feed.times, feed.fresh, feed.missing, feed.counts) == ([10, 11, 12], [10], [], {})


def test_a_late_sample_is_refused_and_counted() -> None:
    feed = Feed().send([10, 12, 11, 13])
    assert feed.times == [10, 11, 12, 13]  # the 11 was bridged when 12 came
    assert feed.counts == {"late": 1, "bridged": 1}


def test_a_repeated_sample_never_counts_twice() -> None:
    feed = Feed().send([10, 11, 11, 11, 12])
    assert (feed.times, feed.counts) == ([10, 11, 12], {"repeated": 2})


def test_missing_samples_are_bridged_with_missing_rows_at_even_times() -> None:
    feed = Feed().send([10, 14.4])
    assert feed.times == pytest.approx([10, 11.1, 12.2, 13.3, 14.4])
    assert feed.missing == pytest.approx([11.1, 12.2, 13.3])
    assert (feed.counts, feed.fresh) == ({"bridged": 3}, [10])


def test_a_longer_gap_starts_afresh() -> None:
    feed = Feed().send([10, 15, 20.5])
    assert (feed.fresh, feed.counts) == ([10, 20.5], {"bridged": 4, "gap": 1})


@given(st.lists(st.floats(0.6, 1.4), max_size=100))
def test_jitter_neither_loses_nor_adds_a_row(intervals: list[float]) -> None:
    times = np.cumsum([10.0, *intervals]).tolist()
    feed = Feed().send(times)
    assert (feed.times, feed.counts) == (times, {})


@given(st.lists(st.floats(0, 200), max_size=60))
def test_rows_are_at_most_two_periods_apart_between_fresh_starts(times: list[float]) -> None:
    feed = Feed().send(times)
    for before, after in zip(feed.steps, feed.steps[1:], strict=False):
        assert after.is_fresh or 0 < after.time_s - before.time_s < 2.0


@given(st.lists(st.floats(0, 200), max_size=60))
def test_every_sample_is_a_row_or_is_counted_as_refused(times: list[float]) -> None:
    feed = Feed().send(times)
    accepted = len(feed.steps) - feed.counts["bridged"]
    assert accepted + feed.counts["late"] + feed.counts["repeated"] == len(times)


def test_a_clock_set_back_starts_afresh_once_enough_samples_agree() -> None:
    feed = Feed().send([1000])
    feed.send(range(100, 100 + CLOCK_STEPPED_AFTER + 2))
    began = 100 + CLOCK_STEPPED_AFTER - 1
    assert feed.times == [1000, began, began + 1, began + 2]
    assert feed.fresh == [1000, began]
    assert feed.counts == {"late": CLOCK_STEPPED_AFTER - 1, "clock_stepped_back": 1}


def test_late_samples_among_good_ones_never_look_like_a_clock_set_back() -> None:
    feed = Feed().send([1000])
    for k in range(3 * CLOCK_STEPPED_AFTER):
        feed.send([500 + k, 1001 + k])
    assert feed.counts == {"late": 3 * CLOCK_STEPPED_AFTER}


def test_a_sample_sent_over_and_over_never_looks_like_a_clock_set_back() -> None:
    feed = Feed().send([1000] + [500] * 5 * CLOCK_STEPPED_AFTER)
    assert feed.counts == {"late": 5 * CLOCK_STEPPED_AFTER}


def test_a_time_far_ahead_is_got_over_like_a_clock_set_back() -> None:
    feed = Feed().send([1000, 250_000_000_000])
    feed.send(range(1001, 1001 + CLOCK_STEPPED_AFTER))
    assert feed.times[-1] == 1000 + CLOCK_STEPPED_AFTER


def test_a_jump_of_the_running_number_counts_what_was_lost() -> None:
    feed = Feed().send([10, 11, 13], [1, 2, 5])
    assert feed.counts == {"lost": 2, "bridged": 1}


@pytest.mark.parametrize("seqs", [[5, 0], [5, 6], [None, 9], [5, None]])
def test_a_number_that_follows_restarts_or_is_absent_loses_nothing(seqs: list[int | None]) -> None:
    assert Feed().send([10, 11], seqs).counts == {}


def test_what_is_said_counts_once_the_warm_up_is_over() -> None:
    stream = Feed(warm_up=3).stream
    assert [stream.is_next_counted() for _ in range(5)] == [False, False, False, True, True]
    assert stream.warming_up == 0


def test_a_fresh_start_warms_up_again() -> None:
    stream = Feed(warm_up=2).stream
    for _ in range(3):
        stream.is_next_counted()
    stream.start_afresh()
    assert (stream.warming_up, stream.is_next_counted()) == (2, False)


def test_samples_refused_as_late_are_not_counted_as_lost_too() -> None:
    feed = Feed().send([1000, *range(100, 130)], range(1, 32))
    assert feed.counts["lost"] == 0


def test_samples_that_come_too_fast_are_scored_and_counted() -> None:
    feed = Feed().send([0, 0.2, 0.4, 1.4])
    assert (feed.times, feed.counts["too_fast"]) == ([0, 0.2, 0.4, 1.4], 2)
