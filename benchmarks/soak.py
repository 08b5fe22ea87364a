"""An agent for an hour at a steady load, with garbage mixed in and its broker restarted: what
grows, what is lost, what is invented.

`make soak`, or for less: `python -m benchmarks.soak --minutes 5`
"""

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import briefly_trained_artefact, pump, status_mb, table
from edgernn.settings import read_settings
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.times import format_time
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.broker import HOST, SYSTEM_FOLDERS
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine, Floats
from edgernn_device.link import Link, Message
from edgernn_device.monitor import Monitor
from edgernn_device.outbox import Outbox
from edgernn_device.payload import RawSample
from edgernn_device.tasks import make_task

STREAMS = 100
RESTART_EVERY_S = 300
GARBAGE_A_SECOND = 5
WARM_UP_MINUTES = 5
"""Until memory counts: streams, buffers and caches are there."""
PATIENCE_S = 60.0
SEED = 7
FAULTS = ("leak@10m+4m", "cavitation@25m+4m", "stuck:flow@40m+4m")
AGENT = """\
model = "model.onnx"
node = "soak"
[broker]
address = "mqtt://{host}:{port}"
[store]
path = "agent.db"
[output]
health_every_s = 5.0
[alarm]
false_alarms = "10/hour"
recover_s = 5.0
cooldown_s = 10.0
"""


class Look(NamedTuple):
    """The agent's process at one moment."""

    minute: float
    rss_mb: float
    descriptors: int
    threads: int


class Broker:
    """A Mosquitto that keeps sessions and queues over a restart."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self._port = int(probe.getsockname()[1])
        self._folder = folder
        user = "user root\n" if os.geteuid() == 0 else ""
        (folder / "mosquitto.conf").write_text(
            f"listener {self._port} {HOST}\nallow_anonymous true\nset_tcp_nodelay true\n"
            f"persistence true\npersistence_location {folder}/\nmax_queued_messages 100000\n{user}"
        )
        self._start()

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        return f"mqtt://{HOST}:{self._port}"

    def _start(self) -> None:
        binary = shutil.which("mosquitto") or shutil.which("mosquitto", path=SYSTEM_FOLDERS)
        if binary is None:
            raise RuntimeError("mosquitto is not installed: apt install mosquitto")
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-c", self._folder / "mosquitto.conf"], stdout=log, stderr=log
            )
        time.sleep(0.5)

    def restart(self) -> None:
        """By SIGTERM: it writes what it keeps."""
        self.stop()
        self._start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)


class Ears:
    """Every alert and the last health report."""

    def __init__(self, address: str) -> None:
        self.alerts: Counter[str] = Counter()
        self.health: dict[str, Any] = {}
        self._link = Link(
            Access(address=BrokerAddress.parse(address)),
            client_id="soak-ears",
            subscriptions=[("edgernn/soak/+/alert", 1), ("edgernn/soak/health", 1)],
            on_message=self._take,
            keep_session=True,
        )
        self._link.start()

    def _take(self, message: Message) -> None:
        content = json.loads(message.payload)
        if message.topic.endswith("/health"):
            self.health = content
        elif not message.is_again:
            self.alerts[content["id"]] += 1
        self._link.ack(message)

    def close(self) -> None:
        self._link.stop()


class Sent(NamedTuple):
    """What was driven through the agent."""

    began_s: float
    ticks: int
    """Samples of each stream."""
    garbage: int
    restarts: int


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    x = simulate_pump(hours=1, seed=SEED, faults=[parse_fault(one) for one in FAULTS]).tracks[0].x
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(briefly_trained_artefact(pump()))
        _soak(folder, x, minutes)


def _soak(folder: Path, x: Floats, minutes: float) -> None:
    broker = Broker(folder)
    (folder / "agent.toml").write_text(AGENT.format(host=HOST, port=broker.port))
    command = [sys.executable, "-m", "edgernn", "agent", str(folder / "agent.toml")]
    ears = Ears(broker.address)
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command, stderr=log)
    try:
        _wait(lambda: bool(ears.health), "no health report")
        channels = Engine.load(folder / "model.onnx").card.channel_names
        looks, sent = _drive(broker, agent.pid, x, channels, minutes)
        _wait(lambda: ears.health["samples"] >= STREAMS * sent.ticks, "samples missing")
        time.sleep(10.0)  # alerts on their way
        agent.terminate()  # in 30 s every stream would rightly be silent
        agent.wait(PATIENCE_S)
        _print(looks, _expected(folder, x, channels, sent), ears, sent)
    finally:
        agent.terminate()
        agent.wait(PATIENCE_S)
        ears.close()
        broker.stop()


def _drive(
    broker: Broker, pid: int, x: Floats, channels: tuple[str, ...], minutes: float
) -> tuple[list[Look], Sent]:
    """Send in real time, a sample a second of every stream."""
    link = Link(
        Access(address=BrokerAddress.parse(broker.address)),
        client_id="soak-sender",
        outbox=Outbox(1_000_000, 1_000_000_000),
    )
    link.start()
    generator = random.Random(SEED)
    looks, garbage, restarts, ticks = [_look(pid, 0.0)], 0, 0, round(60 * minutes)
    began_s = float(round(time.time()))
    for t in range(ticks):
        time.sleep(max(0.0, began_s + t - time.time()))
        for stream in range(STREAMS):
            values = dict(zip(channels, _row(x, t, stream).tolist(), strict=True))
            content = {"time": format_time(began_s + t), "seq": t, **values}
            link.publish(f"sensors/m{stream:02d}/telemetry", json.dumps(content).encode(), qos=1)
        for _ in range(GARBAGE_A_SECOND):
            link.publish(*_garbage(generator), qos=1)
            garbage += 1
        if t % RESTART_EVERY_S == RESTART_EVERY_S - 1:
            restarts += 1
            threading.Thread(target=broker.restart).start()
        if t % 60 == 59:
            looks.append(_look(pid, (t + 1) / 60))
            print(looks[-1], file=sys.stderr, flush=True)
    assert link.wait_until_waiting(0, timeout_s=PATIENCE_S)
    link.stop()
    return looks, Sent(began_s, ticks, garbage, restarts)


def _row(x: Floats, t: int, stream: int) -> Floats:
    row: Floats = x[(t + 36 * stream) % len(x)]
    return row


def _garbage(generator: random.Random) -> tuple[str, bytes]:
    """A message that must change nothing."""
    return generator.choice(
        [
            (f"sensors/m{generator.randrange(STREAMS):02d}/telemetry", b"{" * 1000),
            (f"sensors/m{generator.randrange(STREAMS):02d}/telemetry", generator.randbytes(200)),
            (f"sensors/m{generator.randrange(STREAMS):02d}/telemetry", b'{"time": "soon"}'),
            ("sensors/health/telemetry", b'{"pressure": 1}'),
            (f"sensors/{'x' * 500}/telemetry", b'{"pressure": 1}'),
            ("sensors/m00/telemetry", b'{"colour": 3}'),
        ]
    )


def _look(pid: int, minute: float) -> Look:
    process = Path("/proc") / str(pid)
    return Look(
        minute,
        status_mb("VmRSS", pid),
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
    )


def _expected(folder: Path, x: Floats, channels: tuple[str, ...], sent: Sent) -> set[str]:
    """Ids of the alerts that the same samples lead to without MQTT, in one process."""
    config = read_settings(folder / "agent.toml", AgentConfig)
    engine = Engine.load(folder / "model.onnx")
    monitor = Monitor(
        engine,
        make_task(config, engine, where="soak"),
        rule=config.stream_rule(engine.card),
        max_streams=STREAMS,
        node="soak",
    )
    found = set()
    for t in range(sent.ticks):
        samples = [
            (
                f"m{stream:02d}",
                RawSample(
                    sent.began_s + t,
                    t,
                    dict(zip(channels, _row(x, t, stream).tolist(), strict=True)),
                ),
            )
            for stream in range(STREAMS)
        ]
        found |= {alert.id for alert in monitor.take(samples).alerts}
    return found


def _print(looks: list[Look], expected: set[str], ears: Ears, sent: Sent) -> None:
    got = set(ears.alerts)
    warm = [look for look in looks if look.minute >= WARM_UP_MINUTES] or looks
    slope = np.polyfit([one.minute / 60 for one in warm], [one.rss_mb for one in warm], 1)[0]
    print("## Soak\n")
    print(
        f"{STREAMS} streams at 1 Hz for {sent.ticks / 60:g} minutes, {GARBAGE_A_SECOND} messages "
        f"of garbage a second, the broker restarted every {RESTART_EVERY_S / 60:g} minutes. "
        "Expected alerts: of the same samples in one process without MQTT.\n"
    )
    rows = [
        ["samples scored", f"{ears.health['samples']:,} of {STREAMS * sent.ticks:,}"],
        ["garbage, broker restarts", f"{sent.garbage:,}, {sent.restarts}"],
        ["alerts expected", f"{len(expected):,}"],
        ["lost", f"{len(expected - got):,}"],
        ["invented", _kinds(got - expected)],
        ["that came twice", f"{sum(count > 1 for count in ears.alerts.values()):,}"],
        ["memory after the start, MB", f"{warm[0].rss_mb:.1f}"],
        ["memory at the end, MB", f"{looks[-1].rss_mb:.1f}"],
        [f"slope from minute {WARM_UP_MINUTES} on, MB an hour", f"{slope:.2f}"],
        ["descriptors, start and end", f"{warm[0].descriptors}, {looks[-1].descriptors}"],
        ["threads, start and end", f"{warm[0].threads}, {looks[-1].threads}"],
        ["counted", ", ".join(f"{k} {v:,}" for k, v in sorted(ears.health["dropped"].items()))],
    ]
    print(table(["what", "measured"], rows))


def _kinds(ids: set[str]) -> str:
    """How many, and of sensors which; an id is node/stream:onset[:kind[:channel]]:edge."""
    kinds = Counter(one.partition("Z:")[2] for one in ids)
    return ", ".join([f"{len(ids):,}", *(f"{kind} {n:,}" for kind, n in kinds.most_common(5))])


def _wait(is_so: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until_s:
            raise RuntimeError(what)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
