"""Faults of sensors: each begins when it has lasted, ends when it is over, and is said once."""

import math
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.sensors import (
    RANGE,
    SILENT,
    STUCK,
    ChannelRule,
    Fault,
    SensorRule,
    Sensors,
    SensorsMemory,
)

NAN = math.nan
VALUES = st.sampled_from([0.0, 1.0, 2.0, 9.0, -9.0, NAN, math.inf])


class Pair:
    """Two channels with a period of 1 s; the second only keeps the stream going."""

    def __init__(self, *, range_recover: int = 4, **rule: float) -> None:
        channels = [ChannelRule(**rule), ChannelRule()]  # type: ignore[arg-type]
        self.sensors = Sensors(
            SensorRule.of(channels, period_s=1.0, range_after=2, range_recover=range_recover)
        )
        self.counts: Counter[str] = Counter()
        self.time_s = 0.0
        self.scored: list[float] = []

    def send(self, values: Sequence[float], *, every_s: float = 1.0) -> "Pair":
        for value in values:
            self.time_s += every_s
            x = [value, self.time_s]
            self.sensors.look(self.time_s, x, self.counts)
            self.scored.append(x[0])
        return self

    @property
    def edges(self) -> list[tuple[str, bool, float, float]]:
        """(kind, is_on, time, onset)."""
        return [(f.kind, f.is_on, f.time_s, f.onset_s) for f in self.sensors.faults]


def test_a_value_that_stands_still_for_long_enough_is_stuck_until_it_moves() -> None:
    pair = Pair(stuck_after=5).send([1, 2, 2, 2, 2])
    assert pair.edges == []
    pair.send([2, 2, 2])
    assert pair.edges == [(STUCK, True, 6, 2)]
    assert pair.sensors.names == [(0, STUCK)]
    pair.send([2.5])
    assert pair.edges[1:] == [(STUCK, False, 9, 2)]
    assert pair.sensors.names == []


def test_a_value_that_always_moves_is_never_stuck() -> None:
    assert Pair(stuck_after=2).send([1, 2] * 50).edges == []


def test_a_channel_that_may_stand_still_is_never_stuck() -> None:
    assert Pair(stuck_after=0).send([1] * 1000).edges == []


def test_missing_values_neither_prove_nor_disprove_that_a_sensor_is_stuck() -> None:
    pair = Pair(stuck_after=4).send([1, 1, NAN, NAN, 1, NAN, 1])
    assert [edge[:3] for edge in pair.edges] == [(STUCK, True, 7)]


def test_samples_that_come_faster_than_the_period_are_not_stuck_sooner() -> None:
    pair = Pair(stuck_after=10).send([1] * 95, every_s=0.1)
    (fault,) = pair.sensors.faults
    assert 8.0 < fault.time_s < 9.5


def test_an_impossible_value_is_missing_and_counted_and_said_when_it_comes_again() -> None:
    pair = Pair(low=0.0, high=5.0).send([1, 9, 2])
    assert (pair.edges, pair.counts) == ([], {"out_of_range": 1})
    pair.send([-9, 9])
    assert pair.edges == [(RANGE, True, 5, 4)]
    assert [value != value for value in pair.scored] == [False, True, False, True, True]


def test_a_range_fault_ends_once_the_values_have_stayed_in_range() -> None:
    pair = Pair(low=0.0, high=5.0).send([9, 9, 1, 2, 3, 9, 1, 2, 3])
    assert len(pair.edges) == 1
    pair.send([1])
    assert pair.edges[1:] == [(RANGE, False, 10, 1)]


def test_values_at_the_ends_of_a_range_are_in_it() -> None:
    pair = Pair(low=0.0, high=5.0).send([0, 5] * 10)
    assert (pair.edges, pair.counts) == ([], {})


def test_a_value_far_from_what_was_learnt_is_said_and_scored_all_the_same() -> None:
    pair = Pair(usual_low=0.0, usual_high=5.0).send([9, 9])
    assert (pair.scored, pair.counts) == ([9, 9], {"far_off": 2})
    (fault,) = pair.sensors.faults
    assert (fault.kind, fault.is_firm, fault.value) == (RANGE, False, 9)


def test_an_infinite_value_is_missing_in_any_range() -> None:
    pair = Pair().send([math.inf, -math.inf])
    assert (all(map(math.isnan, pair.scored)), pair.counts) == (True, {"out_of_range": 2})


def test_a_channel_that_no_longer_comes_is_silent_until_it_comes() -> None:
    pair = Pair(silent_after=10).send([1] + [NAN] * 20 + [2])
    assert pair.edges == [(SILENT, True, 11, 1), (SILENT, False, 22, 1)]


def test_a_channel_that_never_came_is_silent_from_the_first_sample_on() -> None:
    assert Pair(silent_after=5).send([NAN] * 9).edges == [(SILENT, True, 6, 1)]


def test_a_pause_of_the_whole_stream_is_no_silence_of_one_channel() -> None:
    pair = Pair(silent_after=10).send([1, NAN, NAN])
    pair.time_s += 36_000.0
    assert pair.send([NAN] * 4).edges == []
    pair.send([NAN] * 10)
    assert [edge[:2] for edge in pair.edges] == [(SILENT, True)]


def test_an_impossible_value_ends_silence() -> None:
    pair = Pair(silent_after=5, high=5.0).send([NAN] * 9 + [9, 9])
    assert [edge[:2] for edge in pair.edges] == [(SILENT, True), (SILENT, False), (RANGE, True)]


def test_a_slow_channel_is_not_silent_between_fast_ones() -> None:
    pair = Pair(silent_after=10).send(([1] + [NAN] * 50) * 4, every_s=0.1)
    assert pair.edges == []


def test_a_clock_that_is_set_makes_no_duration_longer_or_negative() -> None:
    pair = Pair(stuck_after=5).send([1, 2, 2])
    pair.sensors.shift(-1000.0)
    pair.time_s -= 1000.0
    pair.send([2, 2, 2])
    assert pair.edges == [(STUCK, True, -994, -998)]


def test_what_is_wrong_ends_when_the_stream_is_forgotten() -> None:
    pair = Pair(stuck_after=3, silent_after=3)
    pair.send([1] * 5)
    pair.sensors.end()
    assert [(f.kind, f.is_on, f.is_forgotten) for f in pair.sensors.faults[1:]] == [
        (STUCK, False, True)
    ]
    assert pair.sensors.names == []


@given(st.lists(VALUES, max_size=80))
def test_edges_of_each_kind_take_turns_and_never_run_backwards(values: list[float]) -> None:
    pair = Pair(low=-5.0, usual_high=5.0, stuck_after=3, silent_after=4).send(values)
    of: dict[str, list[Fault]] = {}
    for fault in pair.sensors.faults:
        assert fault.onset_s <= fault.time_s
        of.setdefault(fault.kind, []).append(fault)
    for faults in of.values():
        assert [f.is_on for f in faults] == [k % 2 == 0 for k in range(len(faults))]
    on = sorted((0, kind) for kind, faults in of.items() if faults[-1].is_on)
    assert pair.sensors.names == on


@given(st.lists(VALUES, max_size=40))
def test_a_scored_value_is_the_one_sent_or_missing_for_a_counted_reason(
    values: list[float],
) -> None:
    pair = Pair(low=-5.0, usual_high=5.0).send(values)
    refused = sum(s != v for s, v in zip(pair.scored, values, strict=True) if v == v)
    assert refused == pair.counts["out_of_range"]


@pytest.mark.parametrize("stuck_after", [2, 3, 60])
def test_a_sensor_is_stuck_with_the_sample_that_makes_it_so(stuck_after: int) -> None:
    pair = Pair(stuck_after=stuck_after).send([7] * (stuck_after - 1))
    assert pair.edges == []
    assert Pair(stuck_after=stuck_after).send([7] * stuck_after).edges == [
        (STUCK, True, stuck_after, 1)
    ]


@given(st.lists(VALUES, max_size=80), st.integers(0, 80))
def test_sensors_go_on_from_their_memory(values: list[float], cut: int) -> None:
    rule = {"low": -5.0, "usual_high": 5.0, "stuck_after": 3, "silent_after": 4}
    whole, first, second = (Pair(**rule) for _ in range(3))  # type: ignore[arg-type]
    whole.send(values)
    first.send(values[:cut])
    kept = msgspec.msgpack.encode(first.sensors.remember())
    second.sensors.recall(
        msgspec.msgpack.decode(kept, type=SensorsMemory), time_s=first.time_s or -math.inf
    )
    second.time_s = first.time_s
    second.send(values[cut:])
    said = [(kind, is_on) for kind, is_on, *_ in first.edges + second.edges]
    expected = [(kind, is_on) for kind, is_on, *_ in whole.edges]
    assert [one for one in said if one[0] != STUCK] == [one for one in expected if one[0] != STUCK]
    assert abs(len(said) - len(expected)) <= 2  # a value's first sample may be forgotten


def test_a_stuck_sensor_is_still_stuck_after_a_restart_and_said_once() -> None:
    first, second = Pair(stuck_after=3).send([7] * 5), Pair(stuck_after=3)
    second.sensors.recall(first.sensors.remember(), time_s=5.0)
    second.time_s = 5.0
    second.send([7, 7, 8])
    assert second.edges == [(STUCK, False, 8, 1)]
