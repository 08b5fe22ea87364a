"""Samples in, alerts out, with the real engine and no socket."""

import copy
import itertools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec
import numpy as np
import pytest
from agents import make_monitor
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import read_samples

from edgernn.alarm import Limits
from edgernn.steering import RISE
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

    def changed(self, start: int, stop: int, *, channel: int, to: float) -> "Machine":
        """The same with one channel's values replaced."""
        other = copy.copy(self)
        other.x = self.x.copy()
        other.x[start:stop, channel] = to
        return other

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
    assert (alerts[0].score or 0) >= (alerts[0].threshold or math.inf)


def test_an_alert_says_all_of_this_as_json(monitor: Monitor, faulty: Machine) -> None:
    alert = msgspec.json.decode(msgspec.json.encode(monitor.take(faulty.samples()).alerts[0]))
    assert list(alert) == [
        "id",
        "node",
        "stream",
        "kind",
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
    assert (state.state, state.score) == ("warming_up", None)
    monitor.take(healthy.samples(start=WARM_UP, stop=WARM_UP + 1))
    assert monitor.state_of("a").state == "off"
    assert known(monitor.state_of("a")) >= 0


def test_a_stream_says_that_it_is_warming_up(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=WARM_UP - 1))
    state = monitor.state_of("a")
    assert (state.state, state.score) == ("warming_up", None)
    assert state.since == iso(healthy.time_s[WARM_UP - 2])


def test_a_long_gap_forgets_what_was_before_but_for_the_threshold(
    artefact: Path, healthy: Machine
) -> None:
    gapped, fresh = make_monitor(artefact), make_monitor(artefact)
    before = gapped.take(healthy.samples(stop=400)).scores["a"]
    after = healthy.samples(start=400 + MAX_GAP, stop=700)
    one, other = gapped.take(after).scores["a"], fresh.take(after).scores["a"]
    assert (one.time, one.score) == (other.time, other.score)
    assert one.threshold < before.threshold
    assert gapped.counts == {"gap": 1}


def test_a_threshold_that_steers_itself_goes_on_after_a_restart(
    artefact: Path, healthy: Machine
) -> None:
    text = '[alarm]\nfalse_alarms = "1/hour"\n'
    first, second, through = (make_monitor(artefact, text=text) for _ in range(3))
    first.take(healthy.samples(stop=400))
    second.recall("a", first.remember("a"))
    assert second.state_of("a") == first.state_of("a")
    rest = healthy.samples(start=400, stop=600)
    second.take(rest)
    through.take(healthy.samples(stop=600))
    earlier, later, same = (one.state_of("a").threshold for one in (first, second, through))
    assert earlier is not None
    assert later is not None
    assert later == same
    assert earlier - later == pytest.approx(RISE * 200 / 3600, abs=1e-3)  # 200 s of an hour


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


QUICK = "[input]\nstale_after_s = 10.0"


def test_a_silent_stream_makes_room_for_a_new_one_and_one_that_speaks_does_not(
    artefact: Path, healthy: Machine
) -> None:
    monitor = make_monitor(artefact, max_streams=2, text=QUICK)
    monitor.take(healthy.samples("a", stop=5) + healthy.samples("b", stop=5), now_s=0.0)
    monitor.take(healthy.samples("b", 5, 6), now_s=8.0)
    monitor.look_at_clock(11.0)
    both = healthy.samples("c", stop=5) + healthy.samples("d", stop=5)
    outcome = monitor.take(both, now_s=11.0)
    assert (outcome.forgotten, list(monitor.streams)) == (["a"], ["b", "c"])
    assert monitor.counts == {"made_room": 1, "too_many_streams": 5}


def test_a_silent_stream_that_speaks_in_the_same_batch_does_not_make_room(
    artefact: Path, healthy: Machine
) -> None:
    monitor = make_monitor(artefact, max_streams=1, text=QUICK)
    monitor.take(healthy.samples("a", stop=5), now_s=0.0)
    monitor.look_at_clock(11.0)
    again = healthy.samples("a", 5, 6) + healthy.samples("b", stop=1)
    outcome = monitor.take(again, now_s=12.0)
    assert (outcome.forgotten, list(monitor.streams)) == ([], ["a"])


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
    assert monitor.counts["lost_memory"] == 1 and "is not finite" in monitor.remarks[-1][1]
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
    ((_, remark),) = monitor.remarks
    assert remark.endswith(f": {healthy.channels[1]} has not come once; is the key right?")


def test_a_sample_of_another_machine_is_said_with_what_it_has(monitor: Monitor) -> None:
    monitor.take([("a", RawSample(time_s=0.0, seq=None, values={"colour": 1.0}))] * 3)
    ((_, remark),) = monitor.remarks
    assert remark.startswith("a: no_channel: has colour; expected vibration, pressure")


def kinds(alerts: Sequence[Alert]) -> list[tuple[str, str]]:
    return [(alert.kind, alert.edge) for alert in alerts]


def test_a_frozen_sensor_is_stuck_and_moves_again(monitor: Monitor, healthy: Machine) -> None:
    frozen = healthy.changed(300, 500, channel=2, to=float(healthy.x[300, 2]))
    alerts = [a for a in monitor.take(frozen.samples(stop=499)).alerts if a.kind != "anomaly"]
    name = healthy.channels[2]
    (alert,) = alerts
    assert (alert.kind, alert.edge, alert.onset) == ("stuck", "on", iso(healthy.time_s[300]))
    assert alert.id == f"pi/a:{alert.onset}:stuck:{name}:on"
    assert alert.time == iso(healthy.time_s[359])
    assert alert.sentence.startswith(f"a: {name} is stuck: ")
    assert alert.sentence.endswith(" for 60 samples, 59 s; while training it always moved.")
    assert monitor.state_of("a").faults == (f"{name}: stuck",)
    alerts = monitor.take(frozen.samples(start=499, stop=510)).alerts
    assert ("stuck", "off") in kinds(alerts)
    assert monitor.state_of("a").faults == ()


def test_a_healthy_pumps_sensors_are_never_faulty(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples())
    assert monitor.streams["a"].sensors is not None
    assert (monitor.streams["a"].sensors.names, monitor.counts) == ([], {})


def test_an_impossible_value_is_missing_and_raises_no_anomaly(
    artefact: Path, healthy: Machine
) -> None:
    name = healthy.channels[1]
    monitor = make_monitor(artefact, text=f'[channels."{name}"]\nlow = -50\nhigh = 50\n')
    wild = healthy.changed(300, 310, channel=1, to=6553.5)
    alerts = monitor.take(wild.samples(stop=800)).alerts
    assert kinds(alerts) == [("range", "on"), ("range", "off")]
    assert alerts[0].sentence == (
        f"a: {name} reads 6553.5{unit_of(monitor, 1)}, which cannot be: "
        f"-50 to 50{unit_of(monitor, 1)} can."
    )
    assert alerts[0].channels[0].observed == 6553.5
    assert monitor.counts == {"out_of_range": 10}


def unit_of(monitor: Monitor, channel: int) -> str:
    unit = monitor.engine.card.channels[channel].unit
    return f" {unit}" if unit else ""


def test_a_value_far_from_all_that_was_learnt_is_scored_and_said(
    monitor: Monitor, healthy: Machine
) -> None:
    wild = healthy.changed(300, 310, channel=1, to=6553.5)
    alerts = monitor.take(wild.samples(stop=800)).alerts
    assert {("range", "on"), ("range", "off"), ("anomaly", "on")} <= set(kinds(alerts))
    assert "far outside what it learnt" in next(a for a in alerts if a.kind == "range").sentence


def test_a_channel_that_no_longer_comes_is_silent_and_no_anomaly(
    artefact: Path, healthy: Machine
) -> None:
    monitor = make_monitor(artefact, text="[sensors]\nsilent_after = 10\n")
    silent = healthy.changed(300, 320, channel=1, to=math.nan)
    alerts = monitor.take(silent.samples(stop=800)).alerts
    assert kinds(alerts) == [("silent", "on"), ("silent", "off")]
    assert alerts[0].time == iso(healthy.time_s[309])  # 10 periods after sample 299
    assert alerts[1].sentence == f"a: {healthy.channels[1]} is back after 21 s."


def test_a_stream_that_stops_is_silent_until_it_comes_again(
    monitor: Monitor, healthy: Machine
) -> None:
    monitor.take(healthy.samples(stop=100), now_s=5000.0)
    assert monitor.look_at_clock(5030.0).alerts == []
    outcome = monitor.look_at_clock(5031.0)
    (alert,) = outcome.alerts
    assert (alert.kind, alert.edge, list(outcome.streams)) == ("silent", "on", ["a"])
    assert alert.onset == iso(healthy.time_s[99])
    assert alert.sentence == "a is silent: nothing has come for 31 s."
    assert monitor.state_of("a").state == "stale"
    assert monitor.look_at_clock(5032.0).alerts == []
    (alert,) = monitor.take(healthy.samples(start=140, stop=141), now_s=5041.0).alerts
    assert (alert.edge, alert.sentence) == ("off", "a is back after 41 s of silence.")
    assert monitor.state_of("a").state == "off"


def test_a_silence_is_as_long_as_nobody_was_heard_however_old_the_samples_that_end_it(
    monitor: Monitor, healthy: Machine
) -> None:
    """A sender that kept its samples back; one heard by no process; one whose clock was set."""
    monitor.take(live(healthy, 0, 100), now_s=100.0)
    monitor.look_at_clock(140.0)
    (kept_back,) = monitor.take(healthy.samples(start=100, stop=400), now_s=173.0).alerts
    assert kept_back.sentence == "a is back after 1 min 13 s of silence."
    kept = monitor.remember("a")
    monitor.look_at_clock(240.0)
    monitor.remove_stream("a")
    monitor.recall("a", kept)
    monitor.streams["a"].silent_since_s = float(healthy.time_s[399])  # said by the process before
    (unheard,) = monitor.take(healthy.samples(start=520, stop=521), now_s=240.0).alerts
    assert unheard.sentence == "a is back after 2 min 1 s of silence."


def test_a_clock_that_is_set_while_a_stream_is_silent_makes_that_no_longer(
    monitor: Monitor, healthy: Machine
) -> None:
    to_1970 = -float(healthy.time_s[0])
    monitor.take(live(healthy, 0, 100, shift_s=to_1970), now_s=100.0)
    monitor.look_at_clock(140.0)
    (alert,) = monitor.take(live(healthy, 160, 163), now_s=160.0).alerts
    assert monitor.counts["clock_stepped_ahead"] == 1
    assert alert.sentence == "a is back after 1 min 1 s of silence."


def test_a_silent_stream_is_stale_since_its_last_sample(monitor: Monitor, healthy: Machine) -> None:
    monitor.take(healthy.samples(stop=200), now_s=0.0)
    monitor.look_at_clock(31.0)
    assert monitor.state_of("a").since == iso(healthy.time_s[199])


def test_a_state_begins_once_and_not_with_every_sample(monitor: Monitor, healthy: Machine) -> None:
    said = []
    for one in healthy.samples(stop=400):
        monitor.take([one])
        said.append(monitor.state_of("a"))
    states = [(one.state, one.since) for one in said if one.state != "warming_up"]
    assert states[0][0] == "off"
    assert all(a == b or a[0] != b[0] for a, b in itertools.pairwise(states))


def test_who_was_let_go_for_a_batch_that_fails_is_gone_all_the_same(
    artefact: Path, healthy: Machine
) -> None:
    monitor = make_monitor(artefact, max_streams=1, text=QUICK)
    monitor.take(healthy.samples("a", stop=5), now_s=0.0)
    monitor.look_at_clock(11.0)

    def fail(*_: object) -> NoReturn:
        raise RuntimeError("a fault of the model")

    monitor.engine.run = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError):
        monitor.take(healthy.samples("b", stop=5), now_s=11.0)
    partings = monitor.partings()
    assert partings.forgotten == ["a"]
    assert kinds(partings.alerts) == [("silent", "off")]
    assert monitor.partings().forgotten == []


def test_a_stream_silent_for_long_is_forgotten_and_all_that_was_on_goes_off(
    artefact: Path, faulty: Machine
) -> None:
    monitor = make_monitor(artefact, text="[input]\nforget_after_s = 3600.0\n")
    t = next(t for t, one in enumerate(faulty.samples()) if monitor.take([one]).alerts)
    monitor.look_at_clock(31.0)
    outcome = monitor.look_at_clock(3601.0)
    assert (outcome.forgotten, monitor.streams, monitor.counts) == (["a"], {}, {"forgotten": 1})
    assert kinds(outcome.alerts) == [("silent", "off"), ("anomaly", "off")]
    assert outcome.alerts[0].sentence == "a is forgotten after 1 h 0 min of silence."
    again = monitor.take(faulty.samples(start=t + 1, stop=t + 2), now_s=3602.0)
    assert (again.alerts, monitor.state_of("a").state) == ([], "warming_up")


def live(machine: Machine, start: int, stop: int, *, shift_s: float = 0.0) -> list[Sample]:
    """Samples heard as they were taken, by a clock that nobody set."""
    heard = [float(time_s) for time_s in machine.time_s[start:stop]]
    sent = machine.samples(start=start, stop=stop, shift_s=shift_s)
    return [
        Sample(one.stream, msgspec.structs.replace(one.raw, heard_s=heard_s))
        for one, heard_s in zip(sent, heard, strict=True)
    ]


def test_a_senders_clock_that_is_set_changes_no_score(artefact: Path, healthy: Machine) -> None:
    steady, stepped = make_monitor(artefact), make_monitor(artefact)
    to_1970 = -float(healthy.time_s[0])
    steady.take(live(healthy, 0, 400))
    stepped.take(live(healthy, 0, 300, shift_s=to_1970))
    outcome = stepped.take(live(healthy, 300, 400))
    assert outcome.scores["a"].score == pytest.approx(steady.state_of("a").score, abs=TOLERANCE)
    assert stepped.counts == {"before_2000": 300, "clock_stepped_ahead": 1}
    assert stepped.samples == 400


def test_an_alarm_outlives_a_step_of_the_clock(artefact: Path, faulty: Machine) -> None:
    steady, stepped = make_monitor(artefact), make_monitor(artefact)
    t = next(t for t, one in enumerate(live(faulty, 0, 1500)) if steady.take([one]).alerts)
    stepped.take(live(faulty, 0, t + 1))
    assert kinds(stepped.take(live(faulty, t + 1, t + 5, shift_s=7200.0)).alerts) == []
    assert stepped.state_of("a").state in ("on", "recovering")


def test_clocks_before_2000_are_said_once_and_refused_on_request(
    artefact: Path, healthy: Machine
) -> None:
    strict = make_monitor(artefact, text='[input]\nbefore_2000 = "refuse"\n')
    strict.take(healthy.samples(stop=50, shift_s=-float(healthy.time_s[0])))
    assert (strict.streams, strict.counts) == ({}, {"before_2000": 50})
    assert len(strict.remarks) == 1
    assert strict.remarks[0][1].startswith("a: before_2000: the sender's clock seems not to be set")


@pytest.mark.parametrize(
    ("apart_s", "said"),
    [(60.0, ["60 s"]), (0.5, ["0.5 s"]), (1.6, ["1.6 s"]), (1.4, []), (0.7, []), (1.0, [])],
)
def test_samples_in_another_period_are_said_once_and_counted(
    artefact: Path, healthy: Machine, apart_s: float, said: list[str]
) -> None:
    monitor = make_monitor(artefact)
    values = healthy.values(healthy.x[0].tolist())
    monitor.take([("a", RawSample(1e9 + apart_s * k, None, values)) for k in range(70)])
    reasons = [text for reason, text in monitor.remarks if reason == "off_period"]
    assert [text.split(",")[0] for text in reasons] == [
        f"a: samples come every {one}" for one in said
    ]
    assert monitor.counts["off_period"] == 2 * len(said)


def test_jitter_and_what_is_missing_are_no_other_period(artefact: Path, healthy: Machine) -> None:
    values, rng = healthy.values(healthy.x[0].tolist()), np.random.default_rng(0)
    times = 1e9 + np.cumsum(rng.uniform(0.6, 1.4, 300))
    monitor = make_monitor(artefact)
    came = times[rng.random(300) > 0.3]
    monitor.take([("a", RawSample(float(time_s), None, values)) for time_s in came])
    assert monitor.counts["off_period"] == 0


def test_samples_that_come_in_bunches_have_the_period_of_their_mean(
    artefact: Path, healthy: Machine
) -> None:
    monitor = make_monitor(artefact)
    values = healthy.values(healthy.x[0].tolist())
    times = [1e9 + 10 * bunch + k / 1000 for bunch in range(30) for k in range(10)]
    monitor.take([("a", RawSample(time_s, None, values)) for time_s in times])
    assert monitor.counts["off_period"] == 0


def test_samples_that_are_brought_onto_the_period_may_come_in_any(
    artefact: Path, healthy: Machine
) -> None:
    monitor = make_monitor(artefact, text='[input]\nresample = "last"\n')
    values = healthy.values(healthy.x[0].tolist())
    monitor.take([("a", RawSample(1e9 + 5 * k, None, values)) for k in range(70)])
    assert monitor.counts["off_period"] == 0


def test_text_is_a_missing_value_of_a_channel_and_nobodys_business_elsewhere(
    monitor: Monitor, healthy: Machine
) -> None:
    values = healthy.values(healthy.x[0].tolist())
    name = healthy.channels[0]
    del values[name]
    monitor.take([("a", RawSample(1e9, None, values, {name: "text", "note": "text"}))])
    assert (monitor.samples, monitor.counts) == (1, {"not_a_number": 1, "ignored": 1})
    sentence = f"{name}: expected a number or null, got text; taken as missing"
    assert monitor.remarks == [
        ("not_a_number", f"a: not_a_number: {sentence} (said once, then counted)")
    ]


def test_text_in_a_channel_refuses_the_sample_on_request(artefact: Path, healthy: Machine) -> None:
    monitor = make_monitor(artefact, text='[input]\nnot_a_number = "refuse"\n')
    values = healthy.values(healthy.x[0].tolist())
    monitor.take([("a", RawSample(1e9, None, values, {"note": "text"}))])
    monitor.take([("a", RawSample(1e9 + 1, None, values, {healthy.channels[0]: "text"}))])
    assert (monitor.samples, monitor.counts) == (1, {"not_a_number": 1, "ignored": 1})


def test_a_sensor_that_samples_faster_scores_as_its_means_do(
    artefact: Path, healthy: Machine
) -> None:
    monitor, usual = (
        make_monitor(artefact, text='[input]\nresample = "mean"\n'),
        make_monitor(artefact),
    )
    usual.take(healthy.samples(stop=400))
    fast = [
        Sample("a", RawSample(time_s - early_s, None, healthy.values(x)))
        for time_s, x in zip(healthy.time_s[:400].tolist(), healthy.x[:400].tolist(), strict=True)
        for early_s in (0.6, 0.3, 0.0)
    ]
    monitor.take(fast)
    assert (monitor.samples, monitor.counts) == (400, {})
    score = known(monitor.state_of("a"))
    assert score == pytest.approx(known(usual.state_of("a")), abs=TOLERANCE)


def test_a_silent_stream_is_still_silent_after_a_restart_and_said_once(
    artefact: Path, healthy: Machine
) -> None:
    first, second = make_monitor(artefact), make_monitor(artefact)
    first.take(healthy.samples(stop=100))
    assert kinds(first.look_at_clock(31.0).alerts) == [("silent", "on")]
    second.recall("a", first.remember("a"))
    second.begin_silence(7.0)
    assert second.state_of("a").state == "stale"
    assert second.look_at_clock(500.0).alerts == []
    alerts = second.take(healthy.samples(start=100, stop=101), now_s=600.0).alerts
    assert kinds(alerts) == [("silent", "off")]


def test_what_was_rolled_back_neither_falls_silent_nor_stops_the_clock(
    monitor: Monitor, healthy: Machine
) -> None:
    monitor.take(healthy.samples("a", stop=5) + healthy.samples("b", stop=5))
    kept = monitor.remember("a")
    for name in list(monitor.streams):
        monitor.forget(name)
    monitor.recall("a", kept)
    outcome = monitor.look_at_clock(31.0)
    assert ([alert.stream for alert in outcome.alerts], outcome.forgotten) == (["a"], ["b"])
    assert monitor.look_at_clock(1e6).forgotten == ["a"]


def test_a_silent_stream_that_was_lost_with_the_store_is_forgotten_without_an_alert(
    monitor: Monitor, healthy: Machine
) -> None:
    monitor.take(healthy.samples("a", stop=5))
    monitor.look_at_clock(31.0)
    for name in list(monitor.streams):
        monitor.forget(name)
    outcome = monitor.look_at_clock(1e6)
    assert (outcome.forgotten, outcome.alerts, monitor.counts) == (["a"], [], {})
    assert monitor.look_at_clock(2e6) == Outcome()
