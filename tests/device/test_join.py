"""Values that arrive apart become samples on the grid: held, expired, late, repeated, far ahead."""

import itertools
import math
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn.errors import EdgernnError
from edgernn_device.join import STEPPED_AFTER, Join, Joined, JoinRule, JoinState
from edgernn_device.payload import RawSample

T0_S = 1_767_591_600.0
RULE = JoinRule(period_s=10.0, hold_s=25.0, wait_s=2.0, max_gap_s=100.0)

Row = tuple[float, dict[str, float]]
"""Seconds after `T0_S`, and values by channel."""


class Bench:
    """A join of channels a, b, c and all that it gave out."""

    def __init__(self, rule: JoinRule = RULE, *, max_streams: int = 3) -> None:
        self.join = Join(rule, ("a", "b", "c"), max_streams=max_streams)
        self.rows: list[Row] = []
        self.names: list[str] = []

    def say(
        self,
        at: float,
        now: float | None = None,
        *,
        stream: str = "s",
        seq: int | None = None,
        **values: float,
    ) -> None:
        """Values with a time `at`, that arrive at `now`."""
        self.tell(at, values, now=now, stream=stream, seq=seq)

    def tell(
        self,
        at: float,
        values: dict[str, float],
        *,
        now: float | None = None,
        stream: str = "s",
        seq: int | None = None,
    ) -> None:
        sample = RawSample(time_s=T0_S + at, seq=seq, values=values)
        self._take(self.join.add(stream, sample, now_s=at if now is None else now))

    def wait(self, until: float) -> None:
        self._take(self.join.due(until))

    def _take(self, joined: Sequence[Joined]) -> None:
        for name, sample in joined:
            assert sample.seq is None
            self.names.append(name)
            self.rows.append((sample.time_s - T0_S, sample.values))

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.rows]


def test_values_become_a_sample_at_the_next_multiple_of_the_period() -> None:
    bench = Bench()
    bench.say(1, a=1.0)
    bench.say(9.9, b=2.0)
    bench.say(13, a=3.0)
    assert bench.rows == [(10, {"a": 1.0, "b": 2.0})]


def test_a_value_at_a_point_of_the_grid_is_of_that_point_in_spite_of_rounding() -> None:
    rule = JoinRule(period_s=0.1, hold_s=0.1, wait_s=0.0, max_gap_s=6.0)
    bench = Bench(rule)
    for k in range(1000):
        bench.say(k / 10, a=float(k))
    assert [values["a"] for _, values in bench.rows] == list(range(999))
    assert bench.times == pytest.approx([k / 10 for k in range(999)], abs=1e-5)


def test_of_several_values_in_a_period_the_last_counts() -> None:
    bench = Bench()
    for at in (1, 4, 10, 11):
        bench.say(at, a=float(at))
    bench.say(13, b=0.0)
    assert bench.rows == [(10, {"a": 10.0})]


def test_a_value_is_held_as_long_as_it_may_and_is_missing_then() -> None:
    bench = Bench()
    bench.say(5, a=1.0)
    for at in (15, 25, 35, 45):
        bench.say(at, b=float(at))
    bench.wait(52.1)
    assert [(at, "a" in values) for at, values in bench.rows] == [
        (10, True), (20, True), (30, True), (40, False), (50, False),
    ]  # fmt: skip


def test_without_further_values_samples_come_by_the_clock_until_nothing_is_held() -> None:
    bench = Bench()
    bench.say(5, now=1000, a=1.0)
    for now in range(1000, 1100):
        bench.wait(now)
    assert bench.rows == [(10, {"a": 1.0}), (20, {"a": 1.0}), (30, {"a": 1.0})]
    assert len(bench.join) == 0


def test_by_the_clock_a_sample_comes_once_the_wait_is_over_and_not_before() -> None:
    bench = Bench()
    bench.say(5, now=1000, a=1.0)
    bench.wait(1006.99)
    assert bench.rows == []
    bench.wait(1007.1)
    assert bench.times == [10]


def test_a_value_that_comes_within_the_wait_is_still_in_its_sample() -> None:
    bench = Bench()
    bench.say(5, a=1.0)
    bench.say(11.5, a=2.0)
    bench.say(9.5, now=11.6, b=3.0)
    bench.wait(22.1)
    assert bench.rows == [(10, {"a": 1.0, "b": 3.0}), (20, {"a": 2.0, "b": 3.0})]


def test_a_value_that_comes_too_late_for_its_sample_is_in_the_next() -> None:
    bench = Bench()
    bench.say(5, a=1.0)
    bench.wait(12.1)
    bench.say(9.5, now=12.5, b=3.0)
    bench.wait(25.1)
    assert bench.rows == [(10, {"a": 1.0}), (20, {"a": 1.0, "b": 3.0})]
    assert not bench.join.counts


def test_a_value_older_than_the_channels_last_is_left_out_and_counted() -> None:
    bench = Bench()
    bench.say(5, a=1.0)
    bench.say(4, now=6, a=9.0)
    bench.say(1, now=7, a=9.0, b=2.0)
    bench.wait(12.1)
    assert bench.rows == [(10, {"a": 1.0, "b": 2.0})]
    assert bench.join.counts == {"late_value": 2}


def test_a_value_too_old_to_be_held_is_left_out_and_counted() -> None:
    bench = Bench()
    bench.say(50, a=1.0)
    bench.say(1, now=50, b=1.0)
    bench.wait(52.1)
    assert bench.rows == [(50, {"a": 1.0})]
    assert bench.join.counts == {"late_value": 1}


def test_the_same_time_again_is_a_repeat_and_changes_nothing() -> None:
    bench = Bench()
    bench.say(5, a=1.0)
    bench.say(5, now=6, a=2.0)
    bench.wait(12.1)
    bench.say(5, now=13, a=3.0)
    bench.wait(22.1)
    assert [values["a"] for _, values in bench.rows] == [1.0, 1.0]
    assert bench.join.counts == {"repeated_value": 2}


def test_null_ends_what_was_held() -> None:
    bench = Bench()
    bench.say(5, a=1.0, b=1.0)
    bench.say(15, a=math.nan)
    bench.wait(22.1)
    assert [math.isnan(values["a"]) for _, values in bench.rows] == [False, True]


def test_lost_messages_of_a_channel_are_counted_by_their_running_numbers() -> None:
    bench = Bench()
    for at, seq in ((1, 7), (2, 8), (11, 11), (12, 3), (13, 4)):
        bench.say(at, a=1.0, b=2.0, seq=seq)
    assert bench.join.counts == {"lost": 2}


def test_streams_have_nothing_to_do_with_each_other() -> None:
    bench = Bench()
    bench.say(5, a=1.0, stream="s")
    bench.say(500, now=6, a=2.0, stream="r")
    bench.wait(14)
    assert sorted(zip(bench.names, bench.rows, strict=True)) == [
        ("r", (500, {"a": 2.0})),
        ("s", (10, {"a": 1.0})),
    ]


def test_other_channels_are_left_out_and_counted() -> None:
    bench = Bench()
    bench.say(5, a=1.0, colour=3.0)
    bench.say(6, size=3.0)
    bench.wait(12.1)
    assert bench.rows == [(10, {"a": 1.0})]
    assert bench.join.counts == {"unknown_channel": 2}


def test_what_is_no_number_in_a_channel_is_a_missing_value_and_counted() -> None:
    bench = Bench()
    bench.say(5, a=1.0, b=1.0)
    odd = RawSample(T0_S + 6, None, {"b": 2.0}, odd={"a": "text", "unit": "text"})
    bench.join.add("s", odd, now_s=6.0)
    bench.wait(12.1)
    ((_, values),) = bench.rows
    assert math.isnan(values["a"])
    assert (values["b"], bench.join.counts) == (2.0, {"not_a_number": 1})


def test_more_streams_than_allowed_are_refused_until_others_are_silent() -> None:
    bench = Bench(max_streams=2)
    for name in ("p", "q", "r"):
        bench.say(5, a=1.0, stream=name)
    assert (len(bench.join), bench.join.counts) == (2, {"too_many_streams": 1})
    assert bench.join.touched() == ["p", "q"]
    for now in range(6, 60):
        bench.wait(now)
    bench.say(60, a=1.0, stream="r")
    assert len(bench.join) == 1


def test_one_sensor_whose_clock_is_wrong_does_not_move_the_stream() -> None:
    bench = Bench()
    for at in range(0, 100, 5):
        bench.say(at, a=1.0)
        bench.say(at + 1e6, now=at, b=1.0)
    assert bench.times == list(range(0, 100, 10))
    assert all(values == {"a": 1.0} for _, values in bench.rows)


def test_a_second_value_far_ahead_makes_the_stream_begin_anew_there_and_none_is_lost() -> None:
    bench = Bench()
    bench.say(5, a=1.0, b=1.0)
    bench.say(1e6 + 1, now=6, a=2.0)
    bench.say(1e6 + 2, now=6, b=3.0)
    bench.wait(17)
    assert bench.rows == [(10, {"a": 1.0, "b": 1.0}), (1e6 + 10, {"a": 2.0, "b": 3.0})]


def test_a_single_value_far_ahead_is_believed_once_all_else_is_silent() -> None:
    bench = Bench()
    bench.say(5, now=5, a=1.0)
    bench.say(1e6 + 5, now=6, a=2.0)
    for now in range(7, 100):
        bench.wait(now)
    assert bench.times == [10, 20, 30, 1e6 + 10, 1e6 + 20, 1e6 + 30]


def test_a_first_sensor_whose_clock_is_ahead_is_outvoted() -> None:
    bench = Bench()
    bench.say(1e6, now=0, c=9.0)
    for at in range(200):
        bench.say(at, a=1.0)
        bench.say(at, b=1.0)
        if at % 10 == 0:
            bench.say(1e6 + at, now=at, c=9.0)
    assert bench.rows[-1] == (190, {"a": 1.0, "b": 1.0})
    assert bench.join.counts["clock_stepped_back"] == 1


def test_a_clock_set_back_is_believed_after_a_while() -> None:
    bench = Bench(msgspec.structs.replace(RULE, hold_s=1e6))
    bench.say(1e6, now=0, a=1.0)
    for k in range(STEPPED_AFTER + 20):
        bench.say(k, now=k, a=float(k))
        bench.wait(k)
    assert bench.join.counts["clock_stepped_back"] == 1
    assert bench.times[-1] == 40


def test_a_gap_no_longer_than_bridged_is_filled_with_what_is_held() -> None:
    bench = Bench(msgspec.structs.replace(RULE, hold_s=1e5))
    bench.say(5, now=5, a=1.0)
    bench.say(95, now=95, b=1.0)
    assert bench.times == [10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_one_message_never_leads_to_more_samples_than_fit_into_the_longest_gap() -> None:
    bench = Bench(msgspec.structs.replace(RULE, hold_s=2e6))
    bench.say(5, now=0, a=1.0)
    for at in (1e6, 1e6 + 1):
        bench.say(at, now=1, b=1.0)
    bench.wait(1e6)
    assert len(bench.rows) < 2 * 12


def test_after_a_long_sleep_of_the_agent_nothing_old_is_held() -> None:
    bench = Bench(msgspec.structs.replace(RULE, hold_s=2e6))
    bench.say(5, now=0, a=1.0)
    bench.wait(1e5)
    bench.say(1e5 + 8, now=1e5 + 3, b=1.0)
    bench.wait(1e5 + 10)
    assert bench.rows == [(10, {"a": 1.0}), (1e5 + 10, {"b": 1.0})]


def test_a_recording_sent_value_by_value_comes_back_row_by_row_at_any_speed() -> None:
    for speed in (1.0, 1e6):
        bench = Bench()
        for k in range(100):
            for name in "abc":
                bench.tell(10 * k, {name: k + ord(name) / 1000}, now=10 * k / speed)
                bench.wait(10 * k / speed)
        expected = [(10.0 * k, {name: k + ord(name) / 1000 for name in "abc"}) for k in range(99)]
        assert bench.rows == expected


MESSAGES = st.lists(
    st.tuples(
        st.floats(-1e4, 1e5) | st.integers(0, 100).map(float),
        st.sampled_from(["a", "b", "c", "x"]),
        st.floats(allow_nan=True, allow_infinity=False),
        st.floats(0, 50),
        st.none() | st.integers(0, 9),
    ),
    max_size=60,
)


@given(MESSAGES, st.sampled_from([0.0, 25.0, 1e9]), st.sampled_from([0.0, 2.0, 30.0]))
def test_whatever_comes_samples_are_on_the_grid_rise_in_time_and_memory_is_bounded(
    messages: list[tuple[float, str, float, float, int | None]], gap_s: float, wait_s: float
) -> None:
    rule = JoinRule(period_s=10.0, hold_s=25.0, wait_s=wait_s, max_gap_s=min(gap_s, 500.0))
    bench, now, is_one_run = Bench(rule), 0.0, True
    for at, name, value, later, seq in messages:
        before = len(bench.rows)
        bench.tell(at, {name: value}, now=now, seq=seq)
        now += later
        bench.wait(now)
        assert len(bench.rows) - before <= 2 * (max(rule.max_gap_s, 10) + wait_s + 25) / 10 + 6
        state = bench.join.state_of("s")
        is_one_run &= state is not None or not bench.rows
        if state is not None:
            assert len(state.pending) <= (wait_s + 10) / 10 + 2
            assert len(state.held) <= 3
    assert all(at % 10 == 0 for at in bench.times)
    if is_one_run and not bench.join.counts["clock_stepped_back"]:
        assert all(earlier < later for earlier, later in itertools.pairwise(bench.times))


@given(MESSAGES, st.integers(0, 60))
def test_going_on_from_a_remembered_state_is_the_same_as_never_having_stopped(
    messages: list[tuple[float, str, float, float, int | None]], cut: int
) -> None:
    through, stopped = Bench(), Bench()
    for k, (at, name, value, _, seq) in enumerate(messages):
        if k == cut and (state := stopped.join.state_of("s")) is not None:
            kept = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=JoinState)
            stopped.join = Join(RULE, ("a", "b", "c"), max_streams=3)
            stopped.join.set_state("s", kept)
        for bench in (through, stopped):
            bench.tell(at, {name: value}, now=0.0, seq=seq)
    for bench in (through, stopped):
        bench.wait(1e4)
    assert repr(stopped.rows) == repr(through.rows)


def test_of_a_stream_that_is_forgotten_nothing_comes_and_it_begins_anew() -> None:
    bench = Bench()
    bench.say(5, a=1.0)
    bench.say(5, b=1.0, stream="r")
    assert set(bench.join.touched()) == {"s", "r"}
    bench.join.forget("s")
    assert bench.join.touched() == ["s"]
    bench.say(6, b=2.0)
    bench.wait(12.1)
    assert sorted(zip(bench.names, bench.rows, strict=True)) == [
        ("r", (10, {"b": 1.0})),
        ("s", (10, {"b": 2.0})),
    ]


def test_defaults_follow_from_the_period() -> None:
    rule = JoinRule.for_period(1.0, max_gap_s=60.0, where="input")
    assert rule == JoinRule(period_s=1.0, hold_s=5.0, wait_s=0.5, max_gap_s=60.0)
    assert JoinRule.for_period(900.0, max_gap_s=60.0, where="input").wait_s == 2.0


def test_a_hold_shorter_than_the_period_is_refused() -> None:
    with pytest.raises(EdgernnError) as caught:
        JoinRule.for_period(10.0, hold_s=5.0, max_gap_s=60.0, where="agent.toml: input")
    assert str(caught.value) == (
        "agent.toml: input.hold_s: expected at least the period, 10 s, and at most 2592000 s, got 5"
    )
