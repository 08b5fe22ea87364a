"""Messages in, samples out: topics, payloads and joining together, then over a real Mosquitto."""

import csv
import json
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from agents import Listener, agent, online
from hypothesis import given
from hypothesis import strategies as st
from mosquitto import Mosquitto

from edgernn.errors import EdgernnError
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.agent import Agent
from edgernn_device.config import (
    AgentConfig,
    BrokerConfig,
    InputConfig,
    OutputConfig,
    StoreConfig,
)
from edgernn_device.engine import Engine
from edgernn_device.intake import Intake
from edgernn_device.link import Link
from edgernn_device.mapping import Mapping
from edgernn_device.payload import PayloadError
from edgernn_device.record import record
from edgernn_device.replay import replay
from edgernn_device.topics import TopicPattern

NOW_S = 1_767_591_600.0
APART = "home/{stream}/{channel}"


def intake(
    pattern: str = APART,
    names: dict[str, Any] | None = None,
    *,
    samples: str = "",
    hold_s: float = 60,
) -> Intake:
    parsed = TopicPattern.parse(pattern)
    return Intake.for_recording(
        parsed,
        Mapping.parse(names or {}, samples=samples, where="input"),
        ("temperature", "window", "power"),
        period_s=10.0 if parsed.has_channel else None,
        hold_s=hold_s if parsed.has_channel else None,
    )


def rows(
    one: Intake, messages: Sequence[tuple[float, str, bytes]]
) -> list[tuple[str, float, dict[str, float]]]:
    """(stream, seconds, values) of messages (seconds, topic, payload), and of a long silence."""
    joined = []
    for at, topic, payload in messages:
        joined += one.take(topic, payload, received_s=NOW_S + at, now_s=at)
        joined += one.due(at)
    joined += one.due(messages[-1][0] + 15)
    return [(name, sample.time_s - NOW_S, sample.values) for name, sample in joined]


def refusal(one: Intake, topic: str, payload: bytes) -> str:
    with pytest.raises(PayloadError) as caught:
        one.take(topic, payload, received_s=NOW_S, now_s=0.0)
    return caught.value.reason


def test_bare_values_of_many_topics_become_one_sample_a_period() -> None:
    found = rows(
        intake(),
        [
            (1, "home/kitchen/temperature", b"21.5"),
            (2, "home/kitchen/window", b"OFF"),
            (3, "home/kitchen/power", b'" 184 "'),
            (4, "home/hall/temperature", b"19"),
            (14, "home/kitchen/window", b"true\n"),
        ],
    )
    kitchen = [(at, values) for name, at, values in found if name == "kitchen"]
    assert kitchen[:2] == [
        (10, {"temperature": 21.5, "window": 0.0, "power": 184.0}),
        (20, {"temperature": 21.5, "window": 1.0, "power": 184.0}),
    ]
    assert ("hall", 10, {"temperature": 19.0}) in found


def test_a_value_may_bring_its_time() -> None:
    payload = json.dumps({"value": 21.5, "time": NOW_S - 95}).encode()
    assert rows(intake(), [(0, "home/kitchen/temperature", payload)])[0][1] == -90


def test_zigbee2mqtt_devices_of_one_room_become_one_stream() -> None:
    names = {"temperature": "climate.temperature", "window": "window.contact"}
    found = rows(
        intake("zigbee2mqtt/{stream}/{channel}", names),
        [
            (1, "zigbee2mqtt/kitchen/climate", b'{"temperature":21.5,"humidity":44,"battery":97}'),
            (2, "zigbee2mqtt/kitchen/window", b'{"contact":true,"linkquality":120,"voltage":3000}'),
        ],
    )
    assert found[0] == ("kitchen", 10, {"temperature": 21.5, "window": 1.0})


def test_tasmota_and_shelly_messages_are_read_through_a_map() -> None:
    tasmota = intake(
        "tele/{stream}/SENSOR",
        {"temperature": "DS18B20.Temperature", "power": "ENERGY.Power", "time": "Time"},
    )
    payload = {
        "Time": "2026-01-05T05:40:00",
        "ENERGY": {"Power": 184},
        "DS18B20": {"Id": "03", "Temperature": 38.4},
    }
    ((stream, sample),) = tasmota.take(
        "tele/plug/SENSOR", json.dumps(payload).encode(), received_s=0.0, now_s=0.0
    )
    assert (stream, sample.time_s) == ("plug", NOW_S)
    assert sample.values == {"temperature": 38.4, "power": 184.0}

    shelly = intake(
        "{stream}/status/switch:0", {"temperature": "temperature.tC", "power": "apower"}
    )
    ((stream, sample),) = shelly.take(
        "shelly-1/status/switch:0",
        b'{"apower": 58.5, "temperature": {"tC": 41.2, "tF": 106.2}}',
        received_s=7.0,
        now_s=0.0,
    )
    assert (stream, sample.time_s) == ("shelly-1", 7.0)
    assert sample.values == {"temperature": 41.2, "power": 58.5}


def test_a_list_of_samples_under_a_key_is_as_many_samples() -> None:
    one = intake("{stream}", {"temperature": "fields.t"}, samples="metrics")
    payload = b'{"metrics": [{"fields": {"t": 1}, "ts": 5}, {"fields": {"t": 2}, "ts": 6}]}'
    found = one.take("a", payload, received_s=0.0, now_s=0.0)
    assert [(sample.time_s, sample.values) for _, sample in found] == [
        (5, {"temperature": 1.0}),
        (6, {"temperature": 2.0}),
    ]


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("home/kitchen", b"1", "wrong_topic"),
        ("home/kitchen/a/b", b"1", "wrong_topic"),
        ("home//temperature", b"1", "bad_stream_name"),
        ("home/kitchen/", b"1", "bad_stream_name"),
        ("home/kitchen/a\x07", b"1", "bad_stream_name"),
        ("home/" + "k" * 129 + "/a", b"1", "bad_stream_name"),
        ("home/kitchen/" + "k" * 65_000, b"1", "bad_stream_name"),
        ("home/kitchen/time", b"1", "no_channel"),
        ("home/kitchen/temperature", b"", "not_json"),
        ("home/kitchen/temperature", b"\xff", "not_json"),
        ("home/kitchen/temperature", b"x" * 65, "not_json"),
        ("home/kitchen/temperature", b"{", "not_a_number"),
        ("home/kitchen/temperature", b"21,5", "not_a_number"),
        ("home/kitchen/temperature", b"unavailable", "not_a_number"),
        ("home/kitchen/temperature", b"[]", "not_samples"),
        ("home/kitchen/temperature", b"[[1]]", "not_a_number"),
        ("home/kitchen/temperature", b'{"value": {}}', "not_a_number"),
        ("home/kitchen/temperature", b'{"value": 1, "time": "noon"}', "bad_time"),
        ("home/kitchen/temperature", b"1" * (1 << 20) + b"1", "too_large"),
    ],
)
def test_what_is_no_value_is_refused_for_its_reason(
    topic: str, payload: bytes, reason: str
) -> None:
    assert refusal(intake(), topic, payload) == reason


def test_nothing_where_the_samples_should_stand_is_said() -> None:
    assert refusal(intake("{stream}", samples="data.list"), "a", b'{"data": {}}') == "not_samples"


REASONS = {
    "too_large",
    "not_json",
    "not_samples",
    "not_a_number",
    "bad_time",
    "bad_seq",
    "no_channel",
    "wrong_topic",
    "bad_stream_name",
}
TOPICS = st.text(max_size=30) | st.sampled_from(["home/k/power", "home/k/time", "home/k/window"])
VALUES = st.sampled_from([b"1", b"ON", b'{"value": 2, "time": 5}', b"[1, 2]", b"1e400"])


@given(st.lists(st.tuples(TOPICS, st.binary(max_size=40) | VALUES), max_size=20))
def test_any_topics_and_bytes_are_samples_or_a_reason(messages: list[tuple[str, bytes]]) -> None:
    one = intake()
    for k, (topic, payload) in enumerate(messages):
        try:
            one.take(topic, payload, received_s=NOW_S + k, now_s=float(k))
        except PayloadError as error:
            assert error.reason in REASONS


def test_a_join_without_channels_in_the_pattern_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="only there"):
        Intake(TopicPattern.parse(APART), Mapping(), None)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pattern": "{stream}", "period_s": 1}, "period: only with {channel} in the topic"),
        ({"pattern": "{stream}", "hold_s": 1}, "hold: only with {channel} in the topic"),
        ({"channels": ["a"]}, "period: expected 0.001–86400 s, as the pattern has {channel}"),
        ({"channels": ["a"], "period_s": float("nan")}, "period: expected 0.001–86400 s"),
        ({"period_s": 1}, "channels: expected all of them by name"),
        ({"channels": ["a"], "period_s": 2, "hold_s": 1}, "recording.hold_s: expected at least"),
    ],
)
def test_a_recording_that_cannot_be_joined_is_said_before_it_starts(
    options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    access = Access(address=BrokerAddress("127.0.0.1", 1))
    with pytest.raises(EdgernnError) as caught:
        record(tmp_path / "a.csv", access, **{"pattern": APART, **options})
    assert str(caught.value).startswith(why)


def access_to(broker: Mosquitto) -> Access:
    return Access(address=BrokerAddress.parse(broker.address))


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_recording_played_value_by_value_is_recorded_row_by_row(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    source, copy = tmp_path / "kitchen.csv", tmp_path / "copy.csv"
    values = [["21.5", "0.0"], ["", "1.0"], ["22.0", "1.0"], ["22.5", ""]]
    times = [f"2026-01-05T05:40:{10 * k:02d}.000000Z" for k in range(4)]
    lines = [["time", "stream", "temperature", "window"]]
    lines += [[at, "kitchen", *row] for at, row in zip(times, values, strict=True)]
    source.write_text("\n".join(",".join(line) for line in lines) + "\n")
    ready = threading.Event()
    thread = threading.Thread(
        target=lambda: record(
            copy,
            access_to(mosquitto),
            pattern=APART,
            channels=("temperature", "window"),
            period_s=10.0,
            max_samples=4,
            duration_s=20,
            on_ready=ready.set,
        )
    )
    thread.start()
    assert ready.wait(10)
    played = replay(source, access_to(mosquitto), pattern=APART, speed=0)
    thread.join(30)
    assert (played.samples, played.messages) == (4, 8)
    assert table(copy) == lines


def test_values_that_arrive_apart_lead_to_the_same_alerts_as_whole_samples(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, faulty_csv: Path
) -> None:
    edges = []
    for pattern in ("sensors/{stream}/telemetry", APART):
        more = f'[input]\nsubscribe = "{pattern}"\n'
        with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, more=more):
            online(listener)
            played = replay(
                faulty_csv, access_to(mosquitto), streams=["a"], pattern=pattern, speed=0
            )
            listener.wait_until_scored(played.samples)
            dropped = Counter(listener.last("edgernn/pi/health")["dropped"])
            assert not dropped
            mosquitto.restart()  # and forget what was retained
            edges.append([(x["edge"], x["time"], x["score"]) for x in listener.alerts("a")])
    assert edges[0] == edges[1] != []


def test_a_map_to_a_channel_the_artefact_has_not_ends_the_agent_with_one_sentence(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    more = '[input.map]\npresure = "data.p"\n'
    with agent(tmp_path, artefact, mosquitto, more=more) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "agent.toml: input.map.presure: no such channel; expected " in said


def test_a_joined_sample_that_cannot_be_scored_is_left_out_and_others_go_on(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    """Given out by the clock, no message is to blame, and the agent must not end for it."""
    config = AgentConfig(
        model=str(artefact),
        node="pi",
        broker=BrokerConfig(address=mosquitto.address),
        input=InputConfig(subscribe=APART, hold_s=1.0),
        store=StoreConfig(path="agent.db", durability="sample"),
        output=OutputConfig(health_every_s=0.2),
    )
    victim = Agent(config, Engine.load(artefact), base=tmp_path, where="test")
    run = victim._monitor.engine.run

    def fragile(rows: Any, x: Any, times_s: Any = ()) -> Any:
        if (x == 666.0).any():
            raise RuntimeError("a fault of the model")
        return run(rows, x, times_s)

    victim._monitor.engine.run = fragile  # type: ignore[method-assign]
    stop = threading.Event()
    thread = threading.Thread(target=victim.run, args=(stop,))
    link = Link(access_to(mosquitto), client_id="sender")
    with Listener(mosquitto) as listener:
        thread.start()
        try:
            online(listener)
            link.start()
            link.publish("home/a/pressure", b"666", qos=1)
            listener.wait_for(lambda: victim._reporter.counts()["poison"] > 0, "not noticed")
            link.publish("home/a/pressure", b"2.5", qos=1)
            listener.wait_until_scored(1)
            assert thread.is_alive()
        finally:
            stop.set()
            link.stop()
            thread.join(30)
