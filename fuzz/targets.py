"""What takes bytes from others, each as a function of bytes that raises nothing, whatever comes.

Refusals end in a target; any other exception is a bug. Hypothesis runs them in `make test`, atheris
in `make fuzz`.
"""

import contextlib
import functools
import sqlite3
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from edgernn.card import Card, decode_card
from edgernn.errors import EdgernnError
from edgernn.settings import to_settings
from edgernn_device.address import BrokerAddress
from edgernn_device.anatomy import dissect
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine, Floats
from edgernn_device.intake import Intake
from edgernn_device.join import Join, JoinState
from edgernn_device.mapping import Mapping
from edgernn_device.monitor import Monitor
from edgernn_device.payload import LARGEST_TIME_S, PayloadError, parse, samples_of
from edgernn_device.signature import split
from edgernn_device.store import Store, StoreError
from edgernn_device.tasks import make_task
from edgernn_device.topics import NodeTopics, TopicError, TopicPattern
from edgernn_device.trust import admit

CARD = (Path(__file__).parent / "card.json").read_bytes()
"""Of an artefact of two channels, flow and heat."""
SEPARATOR = b"\n--\n"
"""Between parts of an input."""
NOW_S = 1_767_591_600.0


def payload(data: bytes) -> None:
    """One message where all channels of a sample come together."""
    try:
        samples = samples_of(parse(data), received_s=NOW_S)
    except PayloadError:
        return
    for sample in samples:
        assert 0 <= sample.time_s < LARGEST_TIME_S
        assert all(type(value) is float for value in sample.values.values())
        with contextlib.suppress(PayloadError):
            assert len(sample.row(("flow", "heat"))) == 2


def topic(data: bytes) -> None:
    """A pattern of the file and a topic of the broker."""
    pattern_text, _, topic_text = data.decode("utf-8", "surrogateescape").partition("\n")
    with contextlib.suppress(TopicError):
        pattern = TopicPattern.parse(pattern_text)
        source = pattern.source_of(topic_text)
        if source is None:
            return
        _check_source(source.stream)
        with contextlib.suppress(TopicError):  # a pattern with wildcards
            back = pattern.source_of(pattern.topic(*source))
            assert back == source, (back, source)


def _check_source(stream: str) -> None:
    """A stream's name is safe as a level of a topic, a file's name, a label, and in a log."""
    stream.encode()  # stored as UTF-8
    assert 0 < len(stream.encode()) <= 128
    assert not set(stream) & set("+#/\0\n\r\x1b")
    alert = NodeTopics("pi").alert(stream)
    assert alert.count("/") == 3


def intake(data: bytes) -> None:
    """Messages where every sensor has its own topic, read through a map and joined."""
    one = _apart()
    now_s = 0.0
    for part in data.split(SEPARATOR):
        channel, _, content = part.partition(b"\n")
        topic_text = "home/s/" + channel.decode("utf-8", "replace")
        now_s += 1 + len(content) % 7
        with contextlib.suppress(PayloadError):
            for _, sample in one.take(topic_text, content, received_s=NOW_S + now_s, now_s=now_s):
                assert sample.time_s % 10 == 0
        one.due(now_s)


def _apart() -> Intake:
    names = {"flow": "a.data.0", "heat": "b", "time": "meta.at"}
    return Intake.for_recording(
        TopicPattern.parse("home/{stream}/{channel}"),
        Mapping.parse(names, where="input"),
        ("flow", "heat"),
        period_s=10.0,
        hold_s=60.0,
    )


def config(data: bytes) -> None:
    """An agent's file, and all that is made of it before a broker is called."""
    try:
        parsed = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return
    with contextlib.suppress(EdgernnError):
        found = to_settings(parsed, AgentConfig, where="agent.toml")
        for make in (
            lambda: found.topics,
            lambda: BrokerAddress.parse(found.broker.address),
            lambda: found.limits(_card(), where="alarm"),
            lambda: found.stream_rule(_card()),
            lambda: found.intake(_card(), where="agent.toml"),
        ):
            with contextlib.suppress(EdgernnError):
                make()


@functools.cache
def _card() -> Card:
    return decode_card(CARD, where="card.json")


def artefact(data: bytes) -> None:
    """A file that says it is an artefact, up to where ONNX Runtime would see it."""
    split(data)
    with contextlib.suppress(EdgernnError):
        assert admit(data, where="a.onnx").channels
        dissect(data)


def card(data: bytes) -> None:
    """The JSON inside an artefact."""
    with contextlib.suppress(EdgernnError):
        found = decode_card(data, where="a.onnx")
        assert found.outputs
        AgentConfig(model="a").limits(found, where="alarm")


def held(data: bytes) -> None:
    """What the store kept of values that arrive apart, then values."""
    join = _apart().join
    assert isinstance(join, Join)
    try:
        join.set_state("s", msgspec.msgpack.decode(data, type=JoinState))
    except ValueError:  # msgspec.DecodeError is one
        return
    assert len(join.due(0.0)) < 1000
    assert len(join.due(1e9)) < 1000


class NoEngine:
    """What a monitor asks of an engine, as long as no sample comes."""

    def __init__(self) -> None:
        self.card = _card()
        self.hash = "m"
        self._states: dict[int, dict[str, Floats]] = {}

    def add_stream(self) -> int:
        row = len(self._states)
        self._states[row] = {}
        return row

    def remove_stream(self, row: int) -> None:
        del self._states[row]

    def state_of(self, row: int) -> dict[str, Floats]:
        return self._states[row]

    def set_state(self, row: int, states: dict[str, Floats]) -> None:
        self._states[row] = states


def memory(data: bytes) -> None:
    """What the store kept of a stream: taken up whole and said, or refused."""
    engine = cast(Engine, NoEngine())
    file = AgentConfig(model="a", node="pi")
    task = make_task(file, engine, where="agent.toml")
    monitor = Monitor(engine, task, rule=file.stream_rule(engine.card), max_streams=5)
    try:
        monitor.recall("s", data)
    except ValueError:  # msgspec.DecodeError is one
        assert not monitor.streams
        return
    msgspec.json.encode(monitor.state_of("s"))
    stream = monitor.streams["s"]
    for step in stream.admit(NOW_S + 1e4, [1.0, 2.0], seq=None, counts=Counter()):
        stream.about(step)
    monitor.recall("r", monitor.remember("s"))
    for name in list(monitor.streams):
        monitor.forget(name)


def store(data: bytes) -> None:
    """A file where the agent keeps what outlives it: read, or set aside with its name."""
    with tempfile.TemporaryDirectory(dir=_ram()) as folder:
        path = Path(folder) / "agent.db"
        path.write_bytes(data)
        try:
            opened = Store(path, model="m")
        except StoreError:
            return
        kept = opened.read()
        assert all(isinstance(memory, bytes) for memory in kept.memories.values())
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):  # for the owner, who asks
            opened.read_poison()
        opened.close()


def _ram() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (payload, topic, intake, config, artefact, card, held, memory, store)
}
