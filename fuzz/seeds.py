"""Begins the corpus: one ordinary input of each kind, from which the fuzzer goes on.

`python fuzz/seeds.py` adds what is not there yet; needed only for a new target.
"""

import sqlite3
import sys
import tempfile
from collections import Counter
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cards import make_limits
from corpus import read_corpus, write_corpus
from targets import CARD, NOW_S, SEPARATOR
from wire_format import LOCATION, field, in_graph, node, tensor

from edgernn.alarm import Alarm
from edgernn_device.join import Cell, JoinState
from edgernn_device.monitor import Memory
from edgernn_device.outbox import Parcel
from edgernn_device.payload import RawSample
from edgernn_device.store import Change, Store
from edgernn_device.stream import Stream, StreamRule

LIMITS = make_limits()
PAYLOADS = [
    b'{"time": "2026-01-05T05:40:18Z", "seq": 1042, "flow": 2.34, "heat": null}',
    b'[{"ts": 1767591600000, "flow": 1}, {"timestamp": 1767591601.5, "flow": "x", "b": true}]',
    b'{"flow": NaN, "heat": -Infinity, "a": {"b": [1, 2]}, "c": 123456789012345678901234567890}',
    b'{"time": "2026-01-05 05:40:18+02:00", "flow": 1e308}',
]
TOPICS = [
    "sensors/{stream}/telemetry\nsensors/pump 7/telemetry",
    "home/{stream}/{channel}\nhome/kitchen/temperature",
    "+/{stream}/#\nhall/泵/a/b",
    "$share/g/{stream}\na",
    "{stream}\navailability",
]
MESSAGES = [
    [b"a\n" + b'{"data": [21.5], "meta": {"at": 1767591605}}', b'b\n"on"', b"heat\n20"],
    [b"a\n[1, 2]", b"b\n" + b'{"value": 3, "time": 1767591611, "seq": 4}', b"c\nOFF"],
    [b"time\n5", b"flow\n1", b"\n\xff", b"flow\n" + b'{"flow": "2", "heat": 1e999}'],
]
CONFIGS = [
    (Path(__file__).parents[1] / "device" / "agent.example.toml").read_text(),
    'model = "a"\n[broker]\naddress = "mqtts://u@h:8883"\n[alarm]\nfalse_alarms = "2/day"\n',
    'model = "a"\n[input]\nsubscribe = "h/{stream}/{channel}"\nhold_s = 9.0\nwait_s = 1\n'
    'samples = "d.0"\nwords = { open = 1 }\n[input.map]\nflow = "a.b"\nheat = ["c.d", "e"]\n',
]
STATE = JoinState(
    slot=int(NOW_S) // 10,
    clock_s=NOW_S + 5,
    held={"flow": Cell(NOW_S - 5, 1.5, 7)},
    pending={int(NOW_S) // 10 + 1: {"heat": Cell(NOW_S + 5, 2.5, None)}},
    ahead=[RawSample(time_s=NOW_S + 9e5, seq=None, values={"flow": 2.0})],
    late=3,
)


def artefacts() -> list[bytes]:
    """Small ones: a card, and a graph with what is let through and what is not."""
    entry = field(14, field(1, "edgernn") + field(2, CARD))
    graph = in_graph(field(1, node("Add", "")), field(5, tensor(field(9, b"1234"))))
    elsewhere = in_graph(field(5, tensor(LOCATION)), field(1, node("Any", "com.evil")))
    return [graph + entry, elsewhere + entry, graph]


def memories() -> list[bytes]:
    """Of a stream that is new, and of one whose alarm is on."""
    found = []
    for absent, alarm in ((1, Alarm(LIMITS)), (0, Alarm(LIMITS))):
        stream = Stream("s", 0, StreamRule(period_s=1.0, warm_up=3, max_gap_s=60.0))
        stream.absent = set(range(absent))
        counts: Counter[str] = Counter()
        for n in range(4):
            list(stream.admit(NOW_S + n, [1.0, 2.0], seq=n, counts=counts))
            alarm.update(NOW_S + n, 9.0)
        task = msgspec.msgpack.encode((alarm.remember(), 9.0))
        found.append(msgspec.msgpack.encode(Memory(stream.remember(), task, bytes(16))))
    return found


def stores() -> list[bytes]:
    """An ordinary file, one of another format, and one with a damaged page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.db"
        store = Store(path, model="m")
        parcel = Parcel("id", "edgernn/pi/a/alert", b"{}", 1)
        store.write(Change(memories={"a": b"memory"}, parcels=[parcel], digests=[b"12345678"]))
        store.set_poison_aside("t", b"p", "why")
        store.close()
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        whole = path.read_bytes()
    damaged = whole[:5000] + bytes(100) + whole[5100:]
    return [whole, whole[:60] + b"\0\0\0\x09" + whole[64:], damaged, b"SQLite format 3\0"]


SEEDS: dict[str, list[bytes]] = {
    "payload": PAYLOADS,
    "topic": [text.encode() for text in TOPICS],
    "intake": [SEPARATOR.join(parts) for parts in MESSAGES],
    "config": [text.encode() for text in CONFIGS],
    "artefact": artefacts(),
    "card": [CARD],
    "held": [msgspec.msgpack.encode(STATE)],
    "memory": memories(),
    "store": stores(),
}

if __name__ == "__main__":
    for target, seeds in SEEDS.items():
        write_corpus(target, [*read_corpus(target), *seeds])
