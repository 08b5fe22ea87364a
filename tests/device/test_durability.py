"""Nothing lost, nothing invented: the agent killed, its disk full, its broker away."""

import contextlib
import itertools
import json
import random
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agents import PATIENCE_S, HasAddress, Listener, agent, make_monitor, online
from mosquitto import Mosquitto
from samples import read_samples

from edgernn.times import format_time, parse_time
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.agent import Agent
from edgernn_device.broker import TrialBroker
from edgernn_device.config import AgentConfig, BrokerConfig, OutputConfig, StoreConfig
from edgernn_device.engine import Engine
from edgernn_device.keeper import Keeper
from edgernn_device.link import Link, Message
from edgernn_device.memories import Memories
from edgernn_device.monitor import Outcome
from edgernn_device.outbox import Outbox, Parcel
from edgernn_device.payload import RawSample
from edgernn_device.store import Change, Store

STREAMS = ("a", "b")
APART = "home/{stream}/{channel}"
LIVELY = '[alarm]\nfalse_alarms = "20/hour"\nrecover_s = 2.0\ncooldown_s = 2.0\n'
"""Alarms that go on and off often: there is something to lose."""


class Sender:
    """Samples of a recording as JSON with times, at QoS 1."""

    def __init__(self, broker: HasAddress, recording: Path, channels: tuple[str, ...]) -> None:
        self.time_s, self.x = read_samples(recording)
        self._channels = channels
        self._is_apart = False
        self._link = Link(
            Access(address=BrokerAddress.parse(broker.address)),
            client_id="sender",
            outbox=Outbox(1_000_000, 1_000_000_000),
        )

    def __enter__(self) -> "Sender":
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def cut(self, samples: int, *, is_apart: bool) -> None:
        """Only the last of them; each channel on a topic of its own, or not."""
        self.time_s, self.x = self.time_s[-samples:], self.x[-samples:]
        self._is_apart = is_apart

    def send(self, start: int, stop: int, *, streams: tuple[str, ...] = STREAMS) -> None:
        for t in range(start, min(stop, len(self.x))):
            for shift, name in enumerate(streams):  # the second is a minute ahead
                row = self.x[(t + 60 * shift) % len(self.x)].tolist()
                when = {"time": format_time(float(self.time_s[t]))}
                content: dict[str, Any] = dict(zip(self._channels, row, strict=True))
                if not self._is_apart:
                    self.send_raw(name, json.dumps(content | when).encode())
                    continue
                for channel, value in content.items():
                    payload = json.dumps({"value": value} | when).encode()
                    self._link.publish(f"home/{name}/{channel}", payload, qos=1)

    def send_raw(self, stream: str, payload: bytes) -> None:
        self._link.publish(f"sensors/{stream}/telemetry", payload, qos=1)

    def wait(self) -> None:
        assert self._link.wait_until_waiting(0, timeout_s=PATIENCE_S)


@pytest.fixture
def sender(mosquitto: Mosquitto, faulty_csv: Path, artefact: Path) -> Iterator[Sender]:
    with Sender(mosquitto, faulty_csv, Engine.load(artefact).card.channel_names) as one:
        yield one


def alerts(listener: Listener) -> list[dict[str, Any]]:
    return [alert for name in STREAMS for alert in listener.alerts(name)]


def ids(listener: Listener) -> list[str]:
    return [alert["id"] for alert in alerts(listener)]


def undisturbed(
    folder: Path,
    artefact: Path,
    broker: Mosquitto,
    sender: Sender,
    *,
    store: str,
    more: str = LIVELY,
) -> list[dict[str, Any]]:
    """The alerts of one run without any mishap."""
    folder.mkdir()
    with Listener(broker) as listener, agent(folder, artefact, broker, store=store, more=more):
        online(listener)
        sender.send(0, len(sender.x))
        rows = len(sender.x) - ("resample" in more)  # the last row waits for a sample behind it
        listener.wait_until_scored(len(STREAMS) * rows)
        return alerts(listener)


def longest_calm(sender: Sender, alerts: list[dict[str, Any]]) -> tuple[int, int]:
    """The longest time without an alert of either stream: its first sample, and one behind it."""
    at = np.searchsorted(sender.time_s, [parse_time(alert["time"]) for alert in alerts]) + 1
    firsts = sorted({0, len(sender.x), *at.tolist()})
    return max(itertools.pairwise(firsts), key=lambda ends: ends[1] - ends[0])


@pytest.mark.parametrize(
    ("inputs", "samples", "kills"),
    [
        pytest.param("", 3600, 50, id="whole"),
        pytest.param(f'[input]\nsubscribe = "{APART}"\n', 1200, 10, id="apart"),
        pytest.param('[input]\nresample = "last"\n', 1200, 10, id="resampled"),
    ],
)
def test_killed_again_and_again_it_raises_the_alerts_of_an_undisturbed_run(
    tmp_path: Path,
    mosquitto: Mosquitto,
    artefact: Path,
    sender: Sender,
    inputs: str,
    samples: int,
    kills: int,
) -> None:
    store = 'durability = "sample"'
    sender.cut(samples, is_apart="{channel}" in inputs)
    more = LIVELY + inputs
    expected = undisturbed(tmp_path / "quiet", artefact, mosquitto, sender, store=store, more=more)
    ids_expected = {alert["id"] for alert in expected}
    assert len(ids_expected) > 5
    folder = tmp_path / "killed"
    folder.mkdir()
    mosquitto.restart()  # nothing retained, no session
    generator = random.Random(5)
    parts = np.linspace(0, len(sender.x), kills + 1).astype(int)
    with Listener(mosquitto) as listener:
        sender.wait()
        for k in range(kills):
            with agent(folder, artefact, mosquitto, store=store, more=more) as process:
                if k == 0:
                    online(listener)
                sender.send(parts[k], parts[k + 1])
                time.sleep(generator.uniform(0.0, 1.2))
                process.kill()
        with agent(folder, artefact, mosquitto, store=store, more=more):
            listener.wait_for(lambda: set(ids(listener)) >= ids_expected, "alerts missing")
            listener.wait_for(lambda: _is_idle(listener), "not done")
    assert set(ids(listener)) == ids_expected


def _is_idle(listener: Listener) -> bool:
    """Nothing waits in the agent."""
    health = listener.last("edgernn/pi/health")
    return (
        bool(health)
        and health["inbox"] == health["outbox"] == 0
        and health["streams"] == len(STREAMS)
    )


def test_between_checkpoints_a_kill_invents_nothing_and_the_gap_is_counted(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, sender: Sender
) -> None:
    expected = undisturbed(tmp_path / "quiet", artefact, mosquitto, sender, store="")
    folder = tmp_path / "killed"
    folder.mkdir()
    mosquitto.restart()
    start, stop = longest_calm(sender, expected)  # nothing that happens there is written at once
    assert stop - start > 20
    with Listener(mosquitto) as listener:
        sender.wait()
        with agent(folder, artefact, mosquitto, more=LIVELY) as process:
            online(listener)
            sender.send(0, start)
            listener.wait_until_scored(2 * start)
            sender.send(start, stop - 1)
            listener.wait_until_scored(2 * (stop - 1))
            listener.wait_for(lambda: _is_idle(listener), "not sent")
            reports = len(listener.messages["edgernn/pi/health"])
            listener.wait_for(  # after the next, all is acknowledged, too: nothing comes again
                lambda: len(listener.messages["edgernn/pi/health"]) > reports + 1, "no report"
            )
            process.kill()
            listener.wait_for(  # all that it said has come
                lambda: listener.last("edgernn/pi/availability") == "offline", "still online"
            )
        before = ids(listener)
        listener.messages.clear()
        with agent(folder, artefact, mosquitto, more=LIVELY):
            sender.send(stop - 1, len(sender.x))
            listener.wait_until_scored(2 * (len(sender.x) - stop + 1))
            dropped = listener.last("edgernn/pi/health")["dropped"]
        assert len(before) == len(set(before))
        assert set(before) == {
            a["id"] for a in expected if parse_time(a["time"]) < sender.time_s[stop - 1]
        }
        assert dropped.keys() & {"gap", "bridged"}


def test_a_stopped_agent_goes_on_where_it_ended(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, sender: Sender
) -> None:
    expected = undisturbed(tmp_path / "quiet", artefact, mosquitto, sender, store="")
    folder = tmp_path / "stopped"
    folder.mkdir()
    mosquitto.restart()
    third = len(sender.x) // 3
    with Listener(mosquitto) as listener:
        sender.wait()
        for k in range(3):
            listener.messages.pop("edgernn/pi/health", None)
            with agent(folder, artefact, mosquitto, more=LIVELY) as process:
                online(listener)
                sender.send(k * third, (k + 1) * third if k < 2 else len(sender.x))
                sender.wait()
                process.send_signal(signal.SIGTERM)  # the rest waits at the broker
                assert process.wait(PATIENCE_S) == 0
        with agent(folder, artefact, mosquitto, more=LIVELY):
            listener.wait_for(
                lambda: set(ids(listener)) >= {alert["id"] for alert in expected}, "alerts missing"
            )
    assert sorted(ids(listener)) == sorted(alert["id"] for alert in expected)


def test_ten_thousand_alerts_wait_for_a_broker_and_arrive_once_in_order(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """Written by a process that found no broker, sent by the next."""
    parcels = [Parcel(f"n{i}", "edgernn/pi/a/alert", b'{"n":%d}' % i, 1) for i in range(10_000)]
    mosquitto.stop()
    store = Store(tmp_path / "agent.db", model="m")
    for i in range(0, len(parcels), 10):
        store.write(Change(parcels=parcels[i : i + 10]))
    store.close()
    mosquitto.start()
    store = Store(tmp_path / "agent.db", model="m")
    confirmed: list[str] = []
    with Listener(mosquitto) as listener:
        link = Link(
            Access(address=BrokerAddress.parse(mosquitto.address)),
            client_id="pi",
            on_delivered=lambda key: confirmed.append(str(key)),
        )
        for parcel in store.read().parcels:
            link.publish(parcel.topic, parcel.payload, qos=1, parcel_id=parcel.id)
        link.start()
        listener.wait_for(lambda: len(listener.alerts("a")) >= len(parcels), "alerts")
        link.stop()
    store.write(Change(gone=confirmed))
    assert [alert["n"] for alert in listener.alerts("a")] == list(range(10_000))
    assert store.read().parcels == []
    store.close()


def test_behind_a_broker_that_enforces_its_window_every_sample_is_scored_and_written(
    tmp_path: Path, artefact: Path, faulty_csv: Path
) -> None:
    """rumqttd sends no more than 100 unacknowledged messages; Mosquitto 2.0.11 sends 20 more with
    each acknowledgement, so that a slow commit does not show."""
    pytest.importorskip("iotcore")
    channels = Engine.load(artefact).card.channel_names
    with (
        TrialBroker(port=0, kind="iotcore") as broker,
        Sender(broker, faulty_csv, channels) as one,
        Listener(broker) as listener,
        agent(tmp_path, artefact, broker, store='durability = "sample"'),
    ):
        online(listener)
        one.send(0, 1000)
        listener.wait_until_scored(2000)
        listener.wait_for(lambda: _is_idle(listener), "not done")
        assert listener.last("edgernn/pi/health")["dropped"] == {}
    store = Store(tmp_path / "agent.db", model=Engine.load(artefact).hash)
    assert set(store.read().memories) == set(STREAMS)
    store.close()


def test_on_a_full_disk_alerts_still_go_out_and_health_says_so(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, sender: Sender
) -> None:
    half, whole = len(sender.x) // 2, len(sender.x)
    with (
        Listener(mosquitto) as listener,
        agent(tmp_path, artefact, mosquitto, store='durability = "sample"', more=LIVELY) as process,
    ):
        online(listener)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        sender.send(0, half)
        listener.wait_until_scored(2 * half)
        listener.wait_for(lambda: bool(listener.last("edgernn/pi/health")["store"]), "no problem")
        assert ids(listener)
        assert listener.last("edgernn/pi/health")["store_failures"] > 0
        resource.prlimit(
            process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        sender.send(half, whole)
        listener.wait_until_scored(2 * whole)
        listener.wait_for(lambda: not listener.last("edgernn/pi/health")["store"], "still full")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    store = Store(tmp_path / "agent.db", model=Engine.load(artefact).hash)
    assert (set(store.read().memories), store.read().parcels) == ({"a", "b"}, [])
    store.close()


def test_while_the_broker_is_away_no_stream_is_said_to_be_silent(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, sender: Sender
) -> None:
    """Nobody could be heard: a thousand streams would else raise a thousand alerts, all untrue."""
    stale = "[input]\nstale_after_s = 3.0\n"
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, more=stale):
        online(listener)
        sender.send(0, 100)
        listener.wait_until_scored(200)
        mosquitto.stop()
        time.sleep(4.0)
        listener.messages.clear()
        mosquitto.start()
        online(listener)
        sender.send(100, 101)
        listener.wait_until_scored(202)
        assert ids(listener) == []
        listener.wait_for(lambda: len(ids(listener)) == 2, "not silent in earnest")


@contextlib.contextmanager
def running(
    folder: Path, artefact: Path, broker: Mosquitto, *, durability: str = "sample"
) -> Iterator[Agent]:
    """An agent in a thread of this process."""
    config = AgentConfig(
        model=str(artefact),
        node="pi",
        broker=BrokerConfig(address=broker.address),
        store=StoreConfig(path="agent.db", durability=durability),
        output=OutputConfig(health_every_s=0.2),
    )
    stop, ready, made = threading.Event(), threading.Event(), list[Agent]()

    def work() -> None:
        made.append(Agent(config, Engine.load(artefact), base=folder, where="test"))
        ready.set()
        made[0].run(stop)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield made[0]
    finally:
        stop.set()
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("durability", ["sample", "checkpoint"])
def test_a_message_that_cannot_be_handled_is_set_aside_and_all_others_count(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, sender: Sender, durability: str
) -> None:
    """One value makes the engine fail, in whatever batch it is; "c" is in none with it."""
    with (
        Listener(mosquitto) as listener,
        running(tmp_path, artefact, mosquitto, durability=durability) as victim,
    ):
        online(listener)
        sender.send(0, 100, streams=("c",))
        listener.wait_until_scored(100)
        engine = victim._monitor.engine
        run = engine.run

        def fragile(rows: Any, x: Any, times_s: Any = ()) -> Any:
            if (x == 666.0).any():
                raise RuntimeError("a fault of the model")
            return run(rows, x, times_s)

        engine.run = fragile  # type: ignore[method-assign]
        sender.send(0, 100)
        sender.send_raw("a", b'{"time": "2037-01-01T00:00:00Z", "pressure": 666.0}')
        sender.send(100, 200)
        listener.wait_for(lambda: victim._reporter.counts()["poison"] > 0, "not refused")
        listener.wait_for(lambda: _has_all(victim, sender), "not all")
        assert victim._reporter.counts()["poison"] == 1
        if durability == "sample":  # nobody is set back: each sample counts once
            assert victim._monitor.samples == 500
            assert victim._reporter.counts() == {"poison": 1}
        others = victim._monitor.streams["c"]
        assert (others.last_s, others.warming_up) == (float(sender.time_s[99]), 0)
    store = Store(tmp_path / "agent.db", model=Engine.load(artefact).hash)
    (found,) = store.read_poison()
    assert found[0] == "sensors/a/telemetry"
    assert found[2] == "RuntimeError('a fault of the model')"
    store.close()


def test_a_stream_that_is_back_in_the_batch_that_forgot_it_is_still_said(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    with Listener(mosquitto) as listener, running(tmp_path, artefact, mosquitto) as victim:
        online(listener)
        outcome = Outcome(streams={"a": None}, forgotten=["a"])
        victim._monitor.take([("a", RawSample(1e9, None, {"pressure": 5.0}))])
        victim._voice.say_state("a")
        victim._voice.publish(outcome)
        victim._link.publish("edgernn/pi/end", b"{}", qos=1)
        listener.wait_for(lambda: "edgernn/pi/end" in listener.messages, "no end")
        listener.wait_for(  # the end may overtake it
            lambda: (listener.last("edgernn/pi/a/state") or {}).get("state") == "warming_up",
            "its state stayed cleared",
        )


def test_a_batch_that_is_taken_message_by_message_is_no_worker_that_hangs(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    with Listener(mosquitto) as listener, running(tmp_path, artefact, mosquitto) as victim:
        online(listener)
    beats = []
    victim._beat_s = 0.0
    victim._take = lambda messages: beats.append(victim._beat_s)  # type: ignore[method-assign]
    victim._take_one_by_one([Message("t", b"", 0.0, False, 1, n, 1) for n in range(3)])
    assert 0.0 < beats[0] < beats[1] < beats[2]


def _has_all(victim: Agent, sender: Sender) -> bool:
    last_s = float(sender.time_s[199])
    streams = victim._monitor.streams
    return all(name in streams and streams[name].last_s == last_s for name in STREAMS)


def test_samples_without_a_time_that_the_broker_sends_again_count_once(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    """Handled, then the process ends before it acknowledges: they come again, marked as such."""
    message = Message("sensors/a/telemetry", b'{"pressure": 5.0}', 0.0, False, 1, 1, 1)
    again = message._replace(is_again=True)
    monitor = make_monitor(artefact)
    keeper = Keeper(
        tmp_path / "agent.db",
        Memories(monitor, None),
        durability="sample",
        checkpoint_s=300.0,
        now_s=0.0,
    )
    alike = again._replace(mid=2)  # not handled before, though it says the same
    assert keeper.without_repeats([message, again, alike]) == [message, alike]
    monitor.take([("a", RawSample(0.0, None, {"pressure": 5.0}))])
    keeper.keep(["a"], [], [message])
    keeper._store.close()  # as a kill would
    keeper = Keeper(
        tmp_path / "agent.db",
        Memories(make_monitor(artefact), None),
        durability="sample",
        checkpoint_s=300.0,
        now_s=0.0,
    )
    keeper.recall()
    assert keeper.without_repeats([again, message]) == [message]
    keeper.close(0.0)
