"""Watching alerts: a line each, nothing that a terminal would obey, twice-delivered ones once."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mosquitto import Mosquitto, free_port

from edgernn.errors import EdgernnError
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.lines import printable
from edgernn_device.link import Link
from edgernn_device.watch import Watched, watch

WAIT_S = 10.0

ALERT = {
    "id": "a1",
    "stream": "p7",
    "node": "pi",
    "edge": "on",
    "onset": "2026-05-28T20:26:38.000Z",
    "time": "2026-05-28T20:26:40.000Z",
    "score": 6.5,
    "threshold": 4.2,
    "severity": "critical",
    "channels": [
        {"name": "flow", "unit": "l/h", "observed": 1, "expected": 2, "contribution": 0.9}
    ],
    "model": {"name": "pump", "hash": "abc"},
    "sentence": "Flow is far below what is expected.",
}
LINE = "2026-05-28T20:26:40.000Z  pi/p7  ON   critical  Flow is far below what is expected."


@contextmanager
def watching(
    broker: Mosquitto, *, complaints: list[str] | None = None, **options: Any
) -> Iterator[tuple[list[str], Callable[..., None]]]:
    """The lines printed so far, and a function that publishes an alert."""
    access = Access(address=BrokerAddress.parse(broker.address))
    lines: list[str] = []
    ready = threading.Event()
    options = {"timeout_s": 20, "on_ready": ready.set, **options}
    results: list[Watched] = []
    complain: list[str] = [] if complaints is None else complaints

    def run() -> None:
        results.append(watch(access, lines.append, complain.append, **options))

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(WAIT_S)
    link = Link(access, client_id="agent")
    link.start()

    def publish(alert: Any, topic: str = "edgernn/pi/p7/alert") -> None:
        payload = alert if isinstance(alert, bytes) else json.dumps(alert).encode()
        link.publish(topic, payload, qos=1)

    yield lines, publish
    assert link.stop() == 0
    thread.join(2 * WAIT_S)
    assert results


def test_an_alert_is_one_line(mosquitto: Mosquitto) -> None:
    with watching(mosquitto, count=2) as (lines, publish):
        publish(ALERT)
        publish(ALERT | {"id": "a2", "edge": "off", "severity": "warning", "time": 1780000000})
    assert lines == [LINE, LINE.replace("ON ", "off").replace("critical", "warning ")]


def test_a_sensors_alert_says_its_kind(mosquitto: Mosquitto) -> None:
    with watching(mosquitto, count=1) as (lines, publish):
        publish(ALERT | {"kind": "stuck", "severity": "warning", "sentence": "p7: flow is stuck."})
    assert lines == ["2026-05-28T20:26:40.000Z  pi/p7  ON   warning   stuck   p7: flow is stuck."]


def test_json_lines_are_what_was_sent_on_one_line(mosquitto: Mosquitto) -> None:
    with watching(mosquitto, count=1, as_json=True) as (lines, publish):
        publish(json.dumps(ALERT | {"sentence": "\x9b2J é"}, indent=2, ensure_ascii=False).encode())
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert json.loads(lines[0]) == ALERT | {"sentence": "\x9b2J é"}


def test_an_alert_delivered_twice_is_printed_once(mosquitto: Mosquitto) -> None:
    with watching(mosquitto, count=2) as (lines, publish):
        for key in ("a1", "a1", "a2"):
            publish(ALERT | {"id": key})
    assert lines == [LINE, LINE]


def test_classes_and_forecasts_are_printed_beside_alerts(mosquitto: Mosquitto) -> None:
    said = {"time": ALERT["time"], "since": ALERT["onset"], "class": "leak", "probability": 0.5}
    told = {
        "time": ALERT["time"],
        "period_s": 900.0,
        "channels": [{"name": "power", "unit": "kW", "mean": [1, 2.5], "spread": [0.1, 0.2]}],
    }
    with watching(mosquitto, count=4) as (lines, publish):
        publish(said, "edgernn/pi/p7/class")
        publish(told, "edgernn/pi/p7/forecast")
        publish(told, "edgernn/pi/p7/forecast")
        publish(said | {"class": None, "probability": None, "time": 7}, "edgernn/pi/p7/class")
        publish(ALERT)
    assert lines == [
        "2026-05-28T20:26:40.000Z  pi/p7  class  leak  0.50 since 2026-05-28T20:26:38.000Z",
        "2026-05-28T20:26:40.000Z  pi/p7  forecast  power 1 … 2.5 ± 0.2 kW in 30 min",
        "1970-01-01T00:00:07.000Z  pi/p7  class  unknown  starts afresh after a gap",
        LINE,
    ]


def test_what_is_no_alert_is_said_and_passed_over(mosquitto: Mosquitto) -> None:
    complaints: list[str] = []
    with watching(mosquitto, complaints=complaints, count=1, as_json=True) as (lines, publish):
        publish(b"\xff")
        publish(b"[1]")
        publish(b"[" * 60_000)
        publish({"id": "x"})
        publish(b" " * 1_100_000)
        publish(ALERT)
    assert len(complaints) == 5
    assert all(one.startswith("edgernn/pi/p7/alert: unreadable alert: ") for one in complaints)
    assert [json.loads(line) for line in lines] == [ALERT]


def test_what_is_retained_is_not_shown_as_new(mosquitto: Mosquitto) -> None:
    said = {"time": ALERT["time"], "since": ALERT["onset"], "class": "leak", "probability": 0.5}
    link = Link(Access(address=BrokerAddress.parse(mosquitto.address)), client_id="before")
    link.start()
    link.publish("edgernn/pi/p7/class", json.dumps(said).encode(), qos=1, retain=True)
    assert link.stop() == 0
    with watching(mosquitto, count=1) as (lines, _):
        pass
    with watching(mosquitto, count=2, as_json=True) as (objects, publish):
        publish(said | {"time": 7}, "edgernn/pi/p7/class")
    assert lines[0].split("  ")[2:4] == ["class, still", "leak"]
    assert [json.loads(one).get("retained", False) for one in objects] == [True, False]


def test_a_hostile_publisher_cannot_drive_the_terminal(mosquitto: Mosquitto) -> None:
    with watching(mosquitto, count=1) as (lines, publish):
        publish(ALERT | {"sentence": "\x1b[2J\r\nFAKE\u202e\u2028" + "x" * 10_000, "edge": "\x07"})
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert len(lines[0]) < 700


@given(st.text())
def test_printed_text_is_always_printable(text: str) -> None:
    assert "\n" not in printable(text)
    assert all(char.isprintable() or char.isspace() for char in printable(text))
    assert "\x1b" not in printable(text)


def test_it_ends_at_its_timeout_and_when_stopped(mosquitto: Mosquitto) -> None:
    access = Access(address=BrokerAddress.parse(mosquitto.address))
    nothing = Watched(printed=0, repeated=0, unreadable=0)
    assert watch(access, print, print, timeout_s=0) == nothing
    stop = threading.Event()
    stop.set()
    assert watch(access, print, print, stop=stop) == nothing


def test_no_broker_is_said_in_one_sentence() -> None:
    with pytest.raises(EdgernnError, match="nothing listens there"):
        watch(Access(address=BrokerAddress("127.0.0.1", free_port())), print, print)
