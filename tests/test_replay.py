"""Replay against a real Mosquitto: what is sent, when, and that record gets it all back."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mosquitto import Mosquitto

from edgernn.errors import EdgernnError
from edgernn.recording import read_recording, write_recording
from edgernn.simulate.pump import simulate_pump
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.link import Link, Message
from edgernn_device.record import Recorded, record
from edgernn_device.replay import replay

Inbox = queue.Queue[Any]
WAIT_S = 10.0
START_S = 1_780_000_000.0
TABLE = """\
time,flow [l/h],pressure,label
2026-05-28T20:26:40.000Z,1.5,2,0
2026-05-28T20:26:41.000Z,,nan,1
2026-05-28T20:26:42.250Z,-3e-5,4,1
"""


def access_to(broker: Mosquitto) -> Access:
    return Access(address=BrokerAddress.parse(broker.address))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "pump-7.csv"
    path.write_text(TABLE)
    return path


@contextmanager
def listening(broker: Mosquitto, topic: str = "sensors/+/telemetry") -> Iterator[Inbox]:
    """(topic, JSON) of what is published meanwhile."""
    inbox: Inbox = queue.Queue()

    def take(message: Message) -> None:
        inbox.put((message.topic, json.loads(message.payload)))
        link.ack(message)

    link = Link(access_to(broker), client_id="b", subscriptions=[(topic, 1)], on_message=take)
    link.start()
    yield inbox
    link.stop()


def test_a_sample_is_a_json_object_without_the_label(mosquitto: Mosquitto, table: Path) -> None:
    with listening(mosquitto) as inbox:
        replayed = replay(table, access_to(mosquitto), speed=0)
        messages = [inbox.get(timeout=WAIT_S) for _ in range(3)]
    assert (replayed.samples, replayed.messages, replayed.is_complete) == (3, 3, True)
    assert messages == [
        ("sensors/pump-7/telemetry", {"time": START_S, "seq": 0, "flow": 1.5, "pressure": 2}),
        (
            "sensors/pump-7/telemetry",
            {"time": START_S + 1, "seq": 1, "flow": None, "pressure": None},
        ),
        (
            "sensors/pump-7/telemetry",
            {"time": START_S + 2.25, "seq": 2, "flow": -3e-5, "pressure": 4},
        ),
    ]


def test_blocks_are_lists_and_the_last_may_be_shorter(mosquitto: Mosquitto, table: Path) -> None:
    with listening(mosquitto) as inbox:
        replayed = replay(table, access_to(mosquitto), speed=0, block=2)
        lists = [inbox.get(timeout=WAIT_S)[1] for _ in range(2)]
    assert [[sample["seq"] for sample in samples] for samples in lists] == [[0, 1], [2]]
    assert (replayed.samples, replayed.messages) == (3, 2)


def test_one_file_can_be_several_streams(mosquitto: Mosquitto, table: Path) -> None:
    with listening(mosquitto, "plant/#") as inbox:
        replayed = replay(
            table, access_to(mosquitto), speed=0, streams=["a", "b"], pattern="plant/{stream}"
        )
        topics = [inbox.get(timeout=WAIT_S)[0] for _ in range(6)]
    assert topics == ["plant/a", "plant/b"] * 3
    assert replayed.samples == 6


def test_a_stream_column_names_the_streams(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("time,stream,x\n0,a,1\n0,b,2\n1,a,3\n")
    with listening(mosquitto) as inbox:
        replay(path, access_to(mosquitto), speed=0)
        found = [inbox.get(timeout=WAIT_S) for _ in range(3)]
    assert [(topic.split("/")[1], s["seq"], s["x"]) for topic, s in found] == [
        ("a", 0, 1),
        ("b", 0, 2),
        ("a", 1, 3),
    ]
    with pytest.raises(EdgernnError, match='its column "stream" names the streams'):
        replay(path, access_to(mosquitto), streams=["c"])


def test_speed_divides_the_time_between_samples(mosquitto: Mosquitto, table: Path) -> None:
    began_s = time.monotonic()
    replayed = replay(table, access_to(mosquitto), speed=5)
    assert time.monotonic() - began_s >= 2.25 / 5
    assert replayed.late_s < 0.45


def test_rebasing_shifts_the_first_sample_to_now(mosquitto: Mosquitto, table: Path) -> None:
    with listening(mosquitto) as inbox:
        before_s = time.time()
        replay(table, access_to(mosquitto), speed=0, rebase=True)
        times = [inbox.get(timeout=WAIT_S)[1]["time"] for _ in range(3)]
    assert before_s - 0.001 <= times[0] <= time.time()
    assert np.diff(times) == pytest.approx([1, 1.25], abs=1e-5)


def test_a_broker_restart_loses_nothing_and_keeps_the_order(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    path = tmp_path / "long.csv"
    path.write_text("time,x\n" + "".join(f"{i},{i}\n" for i in range(5000)))
    done: list[int] = []
    with listening(mosquitto) as inbox:
        thread = threading.Thread(
            target=lambda: done.append(replay(path, access_to(mosquitto), speed=0).samples)
        )
        thread.start()
        seqs = [inbox.get(timeout=WAIT_S)[1]["seq"]]
        mosquitto.restart()
        thread.join(3 * WAIT_S)
        while not inbox.empty():
            seqs.append(inbox.get()[1]["seq"])
    assert done == [5000]
    # what the broker confirmed but had not yet passed on died with it; nothing was reordered
    firsts = list(dict.fromkeys(seqs))
    assert firsts == sorted(firsts)


def test_a_stop_ends_it_early_and_says_so(mosquitto: Mosquitto, table: Path) -> None:
    stop = threading.Event()
    with listening(mosquitto) as inbox:
        results = []
        thread = threading.Thread(
            target=lambda: results.append(
                replay(table, access_to(mosquitto), speed=0.001, stop=stop)
            )
        )
        thread.start()
        inbox.get(timeout=WAIT_S)
        stop.set()
        thread.join(WAIT_S)
    assert (results[0].samples, results[0].is_complete) == (1, False)


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        (TABLE, {"speed": -1}, "speed: expected 0"),
        (TABLE, {"block": 0}, "block: expected 1 or more"),
        (TABLE, {"streams": ["a/b"]}, "stream name 'a/b' contains"),
        (TABLE, {"streams": ["a", "a"]}, "must differ"),
        (TABLE, {"pattern": "plant/+/{stream}"}, "cannot publish"),
        ("time,seq,x\n0,1,2\n", {}, "channel 'seq'"),
        ("time,x\n0,1\n1,abc\n", {"speed": 0}, 'line 3, column "x": expected a number, got "abc"'),
        ("", {}, "expected a header"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_sentence(
    mosquitto: Mosquitto, tmp_path: Path, text: str, options: dict[str, Any], why: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(EdgernnError) as caught:
        replay(path, access_to(mosquitto), **options)
    assert why in str(caught.value)


@pytest.mark.parametrize("name", ["no.csv", "no.csv.gz", "no.parquet"])
def test_a_file_that_is_not_there_is_said_in_one_sentence(mosquitto: Mosquitto, name: str) -> None:
    with pytest.raises(EdgernnError, match="No such file"):
        replay(Path(name), access_to(mosquitto))


@pytest.mark.parametrize("source", ["pump-7.csv", "pump-7.parquet"])
@pytest.mark.parametrize("target", ["back.csv", "back.parquet"])
def test_simulated_samples_come_back_from_replay_and_record(
    mosquitto: Mosquitto, tmp_path: Path, source: str, target: str
) -> None:
    original = simulate_pump(hours=0.25, seed=1)
    original.tracks[0].x[10:20, 1] = np.nan
    write_recording(tmp_path / source, original)
    results: list[Recorded] = []
    listens = threading.Event()

    def run() -> None:
        results.append(
            record(
                tmp_path / target,
                access_to(mosquitto),
                max_samples=900,
                duration_s=20,
                on_ready=listens.set,
            )
        )

    thread = threading.Thread(target=run)
    thread.start()
    assert listens.wait(WAIT_S)
    replay(tmp_path / source, access_to(mosquitto), speed=0)
    thread.join(3 * WAIT_S)
    back = read_recording(tmp_path / target)
    assert [track.stream for track in back.tracks] == ["pump"]
    assert (results[0].samples, results[0].repeated, results[0].refused) == (900, 0, {})
    assert back.channels == original.channels
    assert back.tracks[0].time_s.tolist() == original.tracks[0].time_s.tolist()
    np.testing.assert_array_equal(back.tracks[0].x, original.tracks[0].x)
