"""One stream's order: each way in which samples can come wrong, and what is made of it."""

from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.stream import (
    CLOCK_STEPPED_AFTER,
    REMEMBERED,
    Step,
    Stream,
    StreamMemory,
    StreamRule,
)

X = (1.0, 2.0)


class Feed:
    """A stream with a period of 1 s that bridges 5 s, with everything that came of its samples."""

    def __init__(self, *, warm_up: int = 0, resample: str = "off", max_gap_s: float = 5.0) -> None:
        rule = StreamRule(1.0, warm_up, max_gap_s=max_gap_s, resample=resample, hold_s=2.0)
        self.stream = Stream("a", 0, rule)
        self.counts: Counter[str] = Counter()
        self.steps: list[Step] = []

    def send(self, times: Iterable[float], seqs: Iterable[int | None] | None = None) -> "Feed":
        times = list(times)
        for time_s, seq in zip(times, seqs or [None] * len(times), strict=True):
            self.steps += self.stream.admit(time_s, list(X), seq=seq, counts=self.counts)
        return self

    def hear(
        self, *sent: tuple[float, float], is_again: bool = False, seqs: Iterable[int] | None = None
    ) -> "Feed":
        """Samples as they came: (their time, when they were heard)."""
        numbers: Iterable[int | None] = seqs or [None] * len(sent)
        for (time_s, heard_s), seq in zip(sent, numbers, strict=True):
            self.steps += self.stream.admit(
                time_s, list(X), seq=seq, counts=self.counts, is_again=is_again, heard_s=heard_s
            )
        return self

    def live(self, begin_s: float, heard_s: float, samples: int = 10) -> "Feed":
        """Samples a period apart, heard as they were sent."""
        return self.hear(*((begin_s + k, heard_s + k) for k in range(samples)))

    @property
    def shifts(self) -> list[float]:
        return [step.shift_s for step in self.steps if step.shift_s]

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


YEAR_2026 = 1_795_256_100.0


def test_a_clock_set_from_1970_to_now_is_no_gap() -> None:
    feed = Feed(warm_up=5).live(12.0, 500.0).live(YEAR_2026, 510.0)
    assert (feed.fresh, feed.missing) == ([12.0], [])
    assert feed.shifts == [YEAR_2026 - 22.0]
    assert feed.counts == {"clock_stepped_ahead": 1}
    assert len(feed.steps) == 20


def test_a_clock_set_back_goes_on_after_three_samples_if_the_stream_is_heard_live() -> None:
    feed = Feed().live(YEAR_2026, 500.0).live(12.0, 510.0)
    assert (feed.fresh, feed.counts) == (
        [YEAR_2026],
        {"late": 2, "clock_stepped_back": 1, "bridged": 2},
    )
    assert feed.times[9:15] == [YEAR_2026 + 9, *range(12, 17)]
    assert feed.shifts == [12.0 - 10 - YEAR_2026]


def test_a_clock_set_ahead_and_back_again_neither_resets_nor_bridges_the_difference() -> None:
    feed = Feed().live(1000, 0).live(4010, 10).live(1020, 20).live(1035, 30).live(1040, 40)
    assert feed.fresh == [1000]
    assert feed.counts["clock_stepped_ahead"] == 2  # by 3000 s, and by 5 s
    assert feed.counts["clock_stepped_back"] == 1
    refused = feed.counts["repeated"] + feed.counts["late"]
    assert len(feed.steps) - feed.counts["bridged"] + refused == 50


def test_a_single_wild_time_among_live_ones_resets_nothing() -> None:
    feed = Feed().live(1000, 0).hear((250_000_000_000, 10)).live(1011, 11)
    assert feed.fresh == [1000]
    assert feed.times[-1] == 1020


def test_a_real_gap_is_a_gap_however_regular_the_stream_was() -> None:
    feed = Feed().live(1000, 0).live(1109, 109)
    assert (feed.fresh, feed.counts) == ([1000, 1109], {"gap": 1})


def test_samples_that_a_broker_dropped_while_others_waited_are_a_gap() -> None:
    queued = [(1010 + k, 300.0 + k / 1000) for k in range(20)]  # at once, after an outage
    feed = Feed().live(1000, 0).hear(*queued).live(1300, 300.5)
    assert (feed.fresh, feed.counts) == ([1000, 1300], {"gap": 1})


def test_a_running_number_that_jumped_with_the_time_is_a_gap() -> None:
    feed = Feed().hear(*((k, k) for k in range(10)), seqs=range(10))
    feed.hear((400, 10), seqs=[400])
    assert feed.counts == {"lost": 390, "gap": 1}


def test_late_samples_that_come_at_once_are_late_and_no_clock() -> None:
    stored = [(500 + k, 10.0) for k in range(CLOCK_STEPPED_AFTER - 1)]
    feed = Feed().live(1000, 0).hear(*stored).live(1010, 10.5)
    assert feed.counts == {"late": CLOCK_STEPPED_AFTER - 1}


def test_redelivered_samples_never_look_like_a_clock_set_back() -> None:
    again = [(1000.0 + k, 200.0 + k) for k in range(100)]
    feed = Feed().live(1000, 0, 100).hear(*again, is_again=True).live(1100, 300)
    assert feed.counts == {"repeated": REMEMBERED, "late": 100 - REMEMBERED}
    assert (feed.fresh, len(feed.steps)) == ([1000], 110)


def test_a_redelivered_sample_that_was_never_seen_is_a_sample() -> None:
    feed = Feed().live(1000, 0).hear((1010, 10), is_again=True)
    assert (feed.times[-1], feed.counts) == (1010, {})


def test_a_redelivered_number_is_a_repeat_whatever_its_time_says() -> None:
    feed = Feed().hear((1, 1), (2, 2), seqs=[7, 8]).hear((3, 3), is_again=True, seqs=[8])
    assert (feed.times, feed.counts) == ([1, 2], {"repeated": 1})


def test_exact_repeats_are_no_evidence_of_a_clock_set_back() -> None:
    feed = Feed().live(1000, 0, 40)
    feed.live(1010, 40, 30)
    assert feed.counts == {"repeated": 30}


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 3)), max_size=60))
def test_no_row_is_before_the_one_before_it_but_for_a_step_of_the_clock(
    sent: list[tuple[float, float]],
) -> None:
    heard_s, pairs = 0.0, []
    for time_s, after_s in sent:
        heard_s += after_s
        pairs.append((time_s, heard_s))
    feed = Feed().hear(*pairs)
    for before, after in zip(feed.steps, feed.steps[1:], strict=False):
        assert after.is_fresh or 0 < after.time_s - before.time_s - after.shift_s < 2.0


def test_samples_without_times_are_never_late() -> None:
    feed = Feed()
    for time_s in (10.0, 11.0, 10.8, 12.0):  # arrival less a period each, in a list
        feed.steps += feed.stream.admit(
            time_s, list(X), seq=None, counts=feed.counts, is_stamped=True
        )
    assert (feed.times, feed.counts) == ([10.0, 11.0, 11.5, 12.0], {})


def test_resampled_rows_are_bridged_and_begun_anew_like_samples() -> None:
    feed = Feed(resample="mean").send([0.3, 0.7, 1.5, 4.5, 20.5, 21.5])
    assert feed.times == [1, 2, 3, 4, 5, 21]
    assert (feed.missing, feed.fresh) == ([3, 4], [1, 21])
    assert feed.counts == {"bridged": 2, "gap": 1}


def test_what_a_resampled_row_is_made_of_ends_with_a_step_of_the_clock() -> None:
    feed = Feed(resample="mean").live(1000.5, 0).live(5000.5, 10)
    assert (feed.fresh, feed.shifts) == ([1001], [3990.0])
    assert feed.times == [*range(1001, 1010), *range(5000, 5010)]
    assert feed.missing == [5000]  # what the row of 1010 was to be made of


@pytest.mark.parametrize("resample", ["off", "last", "mean"])
@given(
    intervals=st.lists(st.sampled_from([0.0, 0.4, 1.0, 1.0, 1.0, 3.0, 9.0, -20.0]), max_size=60),
    cut=st.integers(0, 60),
)
def test_a_stream_goes_on_from_its_memory_as_if_it_had_never_stopped(
    resample: str, intervals: list[float], cut: int
) -> None:
    times = np.cumsum([1000.0, *intervals]).tolist()
    whole, first = Feed(resample=resample), Feed(resample=resample)
    whole.send(times)
    first.send(times[:cut])
    kept = msgspec.msgpack.encode(first.stream.remember())
    second = Feed(resample=resample)
    second.stream.recall(msgspec.msgpack.decode(kept, type=StreamMemory))
    second.send(times[cut:])
    assert first.times + second.times == whole.times
    refused = Counter({"repeated": 0, "late": 0})
    for feed in (first, second):
        refused.update(feed.counts)
    at_all = refused["repeated"] + refused["late"]  # which of the two is forgotten
    assert at_all == whole.counts["repeated"] + whole.counts["late"]
