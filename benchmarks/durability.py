"""What durability costs: bytes written in a day, time of a transaction, time until the first score.

Alone: `python -m benchmarks.durability`
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.agent_process import MODEL, STORE, observed, running_agent, wait_for
from benchmarks.measure import briefly_trained_artefact, pump, table
from benchmarks.traffic import TIMEOUT_S
from edgernn.alarm import Limits
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.alarms import Alarms
from edgernn_device.broker import TrialBroker
from edgernn_device.config import AgentConfig
from edgernn_device.connection import Message
from edgernn_device.engine import Engine, Floats
from edgernn_device.keeper import Keeper
from edgernn_device.link import Link
from edgernn_device.monitor import Monitor
from edgernn_device.outbox import Parcel
from edgernn_device.payload import RawSample

STREAMS = 100
MINUTES = {"checkpoint": 240, "sample": 10}
"""Simulated, of a day's 1440."""
ALERT_EVERY_S = 3000
"""Of all streams: an "on" and an "off" a week each."""
RESTARTS = 5


def main() -> None:
    """Print the tables."""
    recording = pump()
    model, x = briefly_trained_artefact(recording), recording.tracks[0].x
    print("## Durability\n")
    print(
        f"{STREAMS} streams at 1 Hz, the default network on {x.shape[1]} channels, simulated; "
        "bytes as the kernel counts them for the process (`write_bytes`). A batch is one sample of "
        f"every stream; an alert every {ALERT_EVERY_S} s.\n"
    )
    days = [("checkpoint", 60.0), ("checkpoint", 300.0), ("sample", 300.0)]
    titles = ["durability", "MB a day", "transactions a day", "ms each, median", "99 %"]
    print(table(titles, [_day(model, x, *day) for day in days]))
    first = [_restart(model, recording.channels, x) for _ in range(RESTARTS)]
    print(
        f"From the start of `edgernn agent`, with {STREAMS} streams in its store, to its first "
        f"score: median {statistics.median(first):.2f} s, at most {max(first):.2f} s "
        f"of {RESTARTS}.\n"
    )


def _day(model: bytes, x: Floats, durability: str, checkpoint_s: float) -> list[str]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        monitor = _monitor(model)
        keeper = Keeper(
            Path(name) / STORE,
            monitor,
            durability=durability,
            checkpoint_s=checkpoint_s,
            now_s=0.0,
        )
        names = [f"machine-{i:03d}" for i in range(STREAMS)]
        before, times = _written(), []
        seconds = 60 * MINUTES[durability]
        for t in range(seconds):
            monitor.take((one, _sample(monitor, x, t, i)) for i, one in enumerate(names))
            is_alert = t % ALERT_EVERY_S == 0
            alerts = [(names[0], Parcel(f"alert {t}", "t", b"x" * 600, 1))] if is_alert else []
            messages = [Message(one, b"%d" % t, 0.0, False, 1, 1, 1) for one in names]
            began_s = time.perf_counter()
            keeper.keep(names, alerts, messages)
            keeper.tick(float(t))
            took_s = time.perf_counter() - began_s
            if durability == "sample" or is_alert or t % checkpoint_s == 0:
                times.append(took_s)
            if is_alert:
                keeper.done_with(f"alert {t}")
        keeper.close(float(seconds))
        share = 86_400 / seconds
        return [
            durability if durability == "sample" else f"{durability}, every {checkpoint_s:g} s",
            f"{(_written() - before) * share / 1e6:,.0f}",
            f"{len(times) * share:,.0f}",
            f"{1e3 * statistics.median(times):.1f}",
            f"{1e3 * float(np.quantile(times, 0.99)):.1f}",
        ]


def _monitor(model: bytes) -> Monitor:
    engine = Engine(model)
    return Monitor(
        engine,
        Alarms(engine, Limits.from_rule(engine.card.alarm, engine.card), node="bench"),
        rule=AgentConfig(model="").stream_rule(engine.card),
        max_streams=STREAMS,
    )


def _sample(monitor: Monitor, x: NDArray[np.float32], t: int, stream: int) -> RawSample:
    row = x[(t + 97 * stream) % len(x)].tolist()
    values = dict(zip(monitor.engine.card.channel_names, row, strict=True))
    return RawSample(float(t), t, values)


def _written() -> int:
    """Bytes that this process has sent to the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def _restart(model: bytes, channels: tuple[str, ...], x: Floats) -> float:
    """Seconds to the first score of an agent that goes on with all streams."""
    with tempfile.TemporaryDirectory() as name, TrialBroker(0, kind="mosquitto") as broker:
        folder = Path(name)
        (folder / MODEL).write_bytes(model)
        monitor = _monitor(model)
        keeper = Keeper(
            folder / STORE, monitor, durability="checkpoint", checkpoint_s=300.0, now_s=0.0
        )
        for t in range(100):
            monitor.take((f"s{i}", _sample(monitor, x, t, i)) for i in range(STREAMS))
        keeper.keep(list(monitor.streams), [], [])
        keeper.close(0.0)
        link = Link(Access(address=BrokerAddress.parse(broker.address)), client_id="sender")
        link.start(timeout_s=TIMEOUT_S)
        payload = json.dumps(dict(zip(channels, x[100].tolist(), strict=True)) | {"time": 100.0})
        with observed(broker.port) as seen:
            began_s = time.perf_counter()
            with running_agent(folder, broker.port, qos=1, scores=True, goes_on=True):
                wait_for(seen, "availability", lambda word: word == b"online")
                link.publish("sensors/s0/telemetry", payload.encode(), qos=1)
                scored_s = wait_for(seen, "score", bool)
        link.stop()
        return scored_s - began_s


if __name__ == "__main__":
    main()
