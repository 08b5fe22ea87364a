"""Samples in, alerts out, with the real engine and no socket."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from agents import make_monitor
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import read_samples

from edgernn.alarm import Limits
from edgernn.times import format_time
from edgernn_device.alert import Alert
from edgernn_device.engine import Engine
from edgernn_device.monitor import LONGEST_CHUNK, Monitor, Outcome, Scored, StreamState
from edgernn_device.payload import RawSample
from edgernn_device.stream import CLOCK_STEPPED_AFTER

TOLERANCE = 5e-3
"""Of published scores, which are rounded to 0.001, between two orders of the same float32 sums."""
LEAK_FROM = 900
"""Sample of faulty.csv."""
WARM_UP, MAX_GAP = 60, 60
"""Of the artefact, in samples of 1 s."""


class Sample(NamedTuple):
    stream: str
    raw: RawSample


class Machine:
    """Recorded samples of one pump, as many senders would send them."""

    def __init__(self, path: Path, channels: Sequence[str]) -> None:
        self.time_s, self.x = read_samples(path)
        self.channels = channels

    def samples(
        self, stream: str = "a", start: int = 0, stop: int | None = None, *, shift_s: float = 0.0
    ) -> list[Sample]:
        return [
            Sample(stream, RawSample(time_s + shift_s, None, self.values(x)))
            for time_s, x in zip(
                self.time_s[start:stop].tolist(), self.x[start:stop].tolist(), strict=True
            )
        ]

    def values(self, x: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.channels, x, strict=True))


@pytest.fixture
def monitor(artefact: Path) -> Monitor:
    return make_monitor(artefact)


@pytest.fixture(scope="module")
def channels(artefact: Path) -> tuple[str, ...]:
    return Engine.load(artefact).card.channel_names


@pytest.fixture(scope="module")
def healthy(healthy_csv: Path, channels: tuple[str, ...]) -> Machine:
    return Machine(healthy_csv, channels)


@pytest.fixture(scope="module")
def faulty(faulty_csv: Path, channels: tuple[str, ...]) -> Machine:
    return Machine(faulty_csv, channels)


def known(scored: Scored | StreamState) -> float:
    """A score to compare, NaN where there is none."""
    return math.nan if scored.score is None else scored.score


def iso(time_s: float) -> str:
    return format_time(float(time_s))


@st.composite
def backlogs(draw: st.DrawFn) -> list[tuple[str, int, int, int, int]]:
    """Streams, each with the part of a recording that it sends, and a gap in it."""
    number = draw(st.integers(1, 5))
    return [
        (
            f"s{i}",
            draw(st.integers(LEAK_FROM - 100, LEAK_FROM)),
            draw(st.integers(1, 2 * LONGEST_CHUNK)),
            draw(st.integers(0, 400)),
            draw(st.sampled_from([0, 0, 3, MAX_GAP + 1])),
        )
        for i in range(number)
    ]


@settings(max_examples=12)
@given(backlogs(), st.integers(0, 1000), st.integers(1, 6))
def test_many_ragged_backlogs_lead_to_what_one_sample_at_a_time_does(
    artefact: Path,
    faulty: Machine,
    parts: list[tuple[str, int, int, int, int]],
    seed: int,
    batches: int,
) -> None:
    together, single = make_monitor(artefact), make_monitor(artefact)
    order = []
    sent = {}
    for name, start, length, gap_at, gap in parts:
        samples = faulty.samples(name, start, start + length)
        sent[name] = iter(samples[:gap_at] + samples[gap_at + gap :])
        order += [name] * (len(samples) - len(samples[gap_at : gap_at + gap]))
    np.random.default_rng(seed).shuffle(order)
    arrived = [next(sent[name]) for name in order]

    alerts: list[Alert] = []
    alone: list[Alert] = []
    scores: dict[str, Scored] = {}
    last: dict[str, Scored] = {}
    for batch in np.array_split(np.arange(len(arrived)), batches):
        outcome = together.take(arrived[i] for i in batch)
        alerts += outcome.alerts
        scores |= outcome.scores
    for sample in arrived:
        outcome = single.take([sample])
        alone += outcome.alerts
        last |= outcome.scores
    assert sorted((a.id, a.time) for a in alerts) == sorted((a.id, a.time) for a in alone)
    assert (together.counts, together.samples) == (single.counts, single.samples)
    assert scores.keys() == last.keys()
    for name, score in scores.items():
        assert score.time == last[name].time
        assert known(score) == pytest.approx(known(last[name]), abs=TOLERANCE, nan_ok=True)
        here, there = together.state_of(name), single.state_of(name)
        assert (here.state, here.since) == (there.state, there.since)


def test_a_backlog_of_half_an_hour_raises_the_alerts_of_a_live_stream(
    artefact: Path, faulty: Machine
) -> None:
    at_once, live = make_monitor(artefact), make_monitor(artefact)
    backlog = at_once.take(faulty.samples()).alerts
    alerts = [alert for sample in faulty.samples() for alert in live.take([sample]).alerts]
    assert [(a.id, a.time) for a in backlog] == [(a.id, a.time) for a in alerts]
    assert len(alerts) >= 1


def test_a_leak_raises_an_alert_within_five_minutes(monitor: Monitor, faulty: Machine) -> None:
    assert monitor.take(faulty.samples(stop=LEAK_FROM)).alerts == []
    alerts = monitor.take(faulty.samples(start=LEAK_FROM, stop=LEAK_FROM + 300)).alerts
    assert alerts[0].edge == "on"
    assert alerts[0].score >= alerts[0].threshold


def test_an_alert_says_all_of_this_as_json(monitor: Monitor, faulty: Machine) -> None:
    alert = msgspec.json.decode(msgspec.json.encode(monitor.take(faulty.samples()).alerts[0]))
    assert list(alert) == [
        "id",
        "node",
        "stream",
        "edge",
        "onset",
        "time",
        "score",
        "threshold",
        "severity",
        "channels",
        "model",
        "sentence",
    ]
    assert list(alert["channels"][0]) == ["name", "unit", "observed", "expected", "contribution"]
    assert alert["model"] == {"name": "pump", "hash": monitor.engine.hash}


def test_an_alert_shows_the_sample_that_raised_it(monitor: Monitor, faulty: Machine) -> None:
    alert = monitor.take(faulty.samples()).alerts[0]
    (t,) = np.flatnonzero([iso(time_s) == alert.time for time_s in faulty.time_s])
    sent = faulty.values(faulty.x[t].tolist())
    assert {part.name: part.observed for part in alert.channels}.items() <= sent.items()


def test_a_healthy_pump_raises_no_alert(monitor: Monitor, healthy: Machine) -> None:
    assert monitor.take(healthy.samples()).alerts == []


def test_ids_of_alerts_are_stable_over_a_restart(artefact: Path, faulty: Machine) -> None:
    first, second = (make_monitor(artefact).take(faulty.samples()).alerts for _ in range(2))
    ids = [alert.id for alert in first]
    assert [alert.id for alert in second] == ids
    assert len(set(ids)) == len(ids) > 0


def test_a_new_stream_warms_up_without_a_score(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=WARM_UP))
    state = monitor.state_of("a")
    assert (state.state, state.score) == ("off", None)
    monitor.take(healthy.samples(start=WARM_UP, stop=WARM_UP + 1))
    assert known(monitor.state_of("a")) >= 0


def test_a_stream_says_that_it_is_warming_up(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=WARM_UP - 1))
    state = monitor.state_of("a")
    assert (state.state, state.score) == ("warming_up", None)
    assert state.since == iso(healthy.time_s[WARM_UP - 2])


def test_a_long_gap_forgets_what_was_before(artefact: Path, healthy: Machine) -> None:
    gapped, fresh = make_monitor(artefact), make_monitor(artefact)
    gapped.take(healthy.samples(stop=400))
    after = healthy.samples(start=400 + MAX_GAP, stop=700)
    assert gapped.take(after).scores == fresh.take(after).scores
    assert gapped.counts == {"gap": 1}


def test_a_long_gap_warms_up_again(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=400))
    outcome = monitor.take(healthy.samples(start=400 + MAX_GAP, stop=400 + MAX_GAP + 10))
    assert outcome.scores["a"].score is None
    assert monitor.state_of("a").state == "warming_up"


def test_a_short_gap_is_bridged_without_warming_up(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=400))
    outcome = monitor.take(healthy.samples(start=400 + MAX_GAP - 1, stop=400 + MAX_GAP))
    assert known(outcome.scores["a"]) >= 0
    assert (monitor.counts, monitor.samples) == ({"bridged": MAX_GAP - 1}, 401 + MAX_GAP - 1)


def test_a_long_gap_ends_an_alarm_that_is_on(monitor: Monitor, faulty: Machine) -> None:
    t = next(t for t, one in enumerate(faulty.samples()) if monitor.take([one]).alerts)
    alerts = monitor.take(faulty.samples(start=t + 1, stop=t + 2, shift_s=1000.0)).alerts
    assert [alert.edge for alert in alerts] == ["off"]
    assert alerts[0].time == iso(faulty.time_s[t])


def test_a_clock_set_back_starts_afresh(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=400))
    monitor.take(healthy.samples(start=400, stop=400 + CLOCK_STEPPED_AFTER, shift_s=-86_400.0))
    assert monitor.counts == {"late": CLOCK_STEPPED_AFTER - 1, "clock_stepped_back": 1}
    assert monitor.state_of("a").state == "warming_up"


def test_repeated_and_late_samples_change_nothing(artefact: Path, healthy: Machine) -> None:
    once, again = make_monitor(artefact), make_monitor(artefact)
    take = partial(healthy.samples, stop=100)
    score = once.take(take()).scores["a"].score
    again.take(take())
    assert again.take(take()[::-1]).scores == {}
    assert (again.state_of("a").score, again.samples) == (score, 100)


def test_a_stream_too_many_is_counted_and_the_others_go_on(
    artefact: Path, healthy: Machine
) -> None:
    monitor = make_monitor(artefact, max_streams=2)
    for name in ("a", "b", "c"):
        monitor.take(healthy.samples(name, stop=5))
    outcome = monitor.take(healthy.samples("a", 5, 6) + healthy.samples("c", 5, 6))
    assert (set(outcome.scores), list(monitor.streams)) == ({"a"}, ["a", "b"])
    assert monitor.counts == {"too_many_streams": 6}


def test_a_stream_that_was_removed_makes_room_and_begins_anew(
    artefact: Path, healthy: Machine
) -> None:
    monitor, fresh = make_monitor(artefact, max_streams=1), make_monitor(artefact)
    monitor.take(healthy.samples("a", stop=100))
    row = monitor.streams["a"].row
    monitor.remove_stream("a")
    assert monitor.take(healthy.samples("b", stop=100)).scores.keys() == {"b"}
    assert monitor.streams["b"].row == row
    assert monitor.take(healthy.samples("b", 100, 101)) == fresh_after(fresh, healthy, 100)


def fresh_after(monitor: Monitor, healthy: Machine, samples: int) -> Outcome:
    """What the next sample leads to in a stream that saw `samples` before it."""
    monitor.take(healthy.samples("b", stop=samples))
    return monitor.take(healthy.samples("b", samples, samples + 1))


def test_a_sample_without_a_channel_of_the_detector_makes_no_stream(monitor: Monitor) -> None:
    outcome = monitor.take([("a", RawSample(1.0, None, {"other": 1.0}))])
    assert (outcome.scores, monitor.streams, monitor.counts) == ({}, {}, {"no_channel": 1})


def test_a_sample_with_no_value_has_no_score(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=100))
    nothing = RawSample(float(healthy.time_s[100]), None, {"flow": float("nan")})
    outcome = monitor.take([("a", nothing)])
    assert outcome.scores["a"].score is None
    assert monitor.state_of("a").score is None


def test_infinite_readings_leave_later_scores_defined(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=100))
    wild = RawSample(float(healthy.time_s[100]), None, {"flow": 1e300, "pressure": -1e300})
    monitor.take([("a", wild)])
    scored = monitor.take(healthy.samples(start=101, stop=400)).scores["a"]
    card = monitor.engine.card
    assert 0 <= known(scored) < Limits.from_rule(card.alarm, card).enter


def test_a_memory_that_is_not_finite_is_begun_anew(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=100))
    row = monitor.streams["a"].row
    state = monitor.engine.state_of(row)
    monitor.engine.set_state(row, {name: np.full_like(v, np.nan) for name, v in state.items()})
    monitor.take(healthy.samples(start=100, stop=101))
    assert monitor.counts["lost_memory"] == 1 and "is not finite" in monitor.remarks[-1]
    scored = monitor.take(healthy.samples(start=101, stop=300)).scores["a"]
    assert math.isfinite(known(scored))
    assert monitor.counts["lost_memory"] == 1


def test_no_samples_lead_to_nothing(monitor: Monitor) -> None:
    outcome = monitor.take([])
    assert (outcome.alerts, outcome.scores) == ([], {})


def test_a_channel_that_never_comes_is_said_once_when_the_stream_has_warmed_up(
    monitor: Monitor, healthy_csv: Path, channels: tuple[str, ...]
) -> None:
    healthy = Machine(healthy_csv, channels)
    healthy.x[:, 1] = np.nan
    monitor.take(healthy.samples(stop=200))
    (remark,) = monitor.remarks
    assert remark.endswith(f": {healthy.channels[1]} has not come once; is the key right?")


def test_a_sample_of_another_machine_is_said_with_what_it_has(monitor: Monitor) -> None:
    monitor.take([("a", RawSample(time_s=0.0, seq=None, values={"colour": 1.0}))] * 3)
    (remark,) = monitor.remarks
    assert remark.startswith("a: no_channel: has colour; expected vibration, pressure")
