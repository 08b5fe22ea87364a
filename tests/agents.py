"""The agent as a process of its own, and someone who listens to all it publishes."""

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from edgernn.settings import to_settings
from edgernn_device.address import Access, BrokerAddress, Credentials
from edgernn_device.alarms import Alarms
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.link import Link, Message
from edgernn_device.monitor import Monitor
from edgernn_device.replay import replay

PATIENCE_S = 30.0


class HasAddress(Protocol):
    """A broker of any kind."""

    @property
    def address(self) -> str: ...


class Listener:
    """Everything under edgernn/, by topic."""

    def __init__(self, broker: HasAddress, credentials: Credentials | None = None) -> None:
        self.messages: dict[str, list[Any]] = {}
        self._changed = threading.Condition()
        self._link = Link(
            Access(address=BrokerAddress.parse(broker.address), credentials=credentials),
            client_id="test-listener",
            subscriptions=[("edgernn/#", 1)],
            on_message=self._take,
        )

    def __enter__(self) -> "Listener":
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(is_so, PATIENCE_S), f"{what}; got {list(self.messages)}"

    def last(self, topic: str) -> Any:
        return self.messages.get(topic, [None])[-1]

    def alerts(self, stream: str) -> list[dict[str, Any]]:
        return self.messages.get(f"edgernn/pi/{stream}/alert", [])

    def wait_until_scored(self, samples: int) -> None:
        self.wait_for(lambda: _samples(self.last("edgernn/pi/health")) >= samples, "health")

    def _take(self, message: Message) -> None:
        text = message.payload.decode()
        with self._changed:
            content = json.loads(text) if text.startswith("{") else text
            self.messages.setdefault(message.topic, []).append(content)
            self._changed.notify_all()
        self._link.ack(message)


def _samples(health: dict[str, Any] | None) -> int:
    return int(health["samples"]) if health else 0


@contextmanager
def agent(
    folder: Path,
    artefact: Path,
    broker: HasAddress,
    *,
    output: str = "",
    store: str = "",
    more: str = "",
    words: tuple[str, ...] = (),
) -> Iterator["subprocess.Popen[str]"]:
    """An agent called "pi"; `output` and `store` are more lines of these tables, `more` further
    ones, `words` options of the command. What it keeps is in `folder`: the next one there goes on.
    """
    path = folder / "agent.toml"
    path.write_text(
        f'model = "{artefact}"\nnode = "pi"\n[output]\nhealth_every_s = 0.2\n{output}\n'
        f'[store]\npath = "agent.db"\n{store}\n[broker]\naddress = "{broker.address}"\n{more}'
    )
    with command("agent", str(path), *words) as process:
        yield process


@contextmanager
def command(
    *words: str, python: tuple[str, ...] = (), **how: Any
) -> Iterator["subprocess.Popen[str]"]:
    """`edgernn` with these words, killed at the end if need be; `python`: options of the
    interpreter, `how`: of the process."""
    process = subprocess.Popen(
        [sys.executable, *python, "-m", "edgernn", *words], stderr=subprocess.PIPE, text=True, **how
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def make_monitor(artefact: Path, *, max_streams: int = 100, text: str = "") -> Monitor:
    """What is inside of it, without sockets and clocks; `text`: more lines of an agent's file."""
    engine = Engine.load(artefact)
    config = to_settings(tomllib.loads(f'model = "a"\n{text}'), AgentConfig, where="a")
    return Monitor(
        engine,
        Alarms(engine, config.limits(engine.card, where="a: alarm"), node="pi"),
        rule=config.stream_rule(engine.card),
        max_streams=max_streams,
        node="pi",
        silence=config.silence(engine.card),
        odd=config.input.not_a_number,
        before_2000=config.input.before_2000,
    )


def play(broker: HasAddress, recording: Path, *streams: str) -> int:
    access = Access(address=BrokerAddress.parse(broker.address))
    return replay(recording, access, streams=streams, speed=0).samples


def online(listener: Listener) -> None:
    listener.wait_for(lambda: bool(listener.messages.get("edgernn/pi/health")), "no health report")
