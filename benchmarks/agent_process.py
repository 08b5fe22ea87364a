"""An agent as a process on loopback, and what it says to whoever listens."""

import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.traffic import TIMEOUT_S, Load
from edgernn_device.broker import HOST
from edgernn_device.health import Health

NODE = "bench"
MODEL, CONFIG, STORE = "model.onnx", "agent.toml", "agent.db"

Seen = queue.SimpleQueue[tuple[float, str, bytes]]
"""Time, last level of the topic and payload of what an agent publishes."""


@contextmanager
def running_agent(
    folder: Path, port: int, *, qos: int, scores: bool = False, goes_on: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """An agent with room for the whole load, which says every 0.1 s how far it is. It begins anew,
    unless it `goes_on` with the store that is there."""
    if not goes_on:
        for path in folder.glob(f"{STORE}*"):
            path.unlink()
    (folder / CONFIG).write_text(
        f'model = "{MODEL}"\nnode = "{NODE}"\n'
        f'[broker]\naddress = "mqtt://{HOST}:{port}"\nkeep_session = false\n'
        f'[store]\npath = "{STORE}"\n'
        f"[input]\nqos = {qos}\ninbox = 1000000\n"
        f"[output]\nhealth_every_s = 0.1\nscores = {str(scores).lower()}\n"
    )
    command = [sys.executable, "-m", "edgernn", "agent", str(folder / CONFIG)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


@contextmanager
def observed(port: int) -> Iterator[Seen]:
    """What agents publish from now on."""
    seen: Seen = queue.SimpleQueue()
    is_subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        if not message.retain:  # of an agent before this one
            level = message.topic.rpartition("/")[2]
            seen.put((time.perf_counter(), level, bytes(message.payload)))

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    client.on_subscribe = lambda *_: is_subscribed.put(None)
    client.connect(HOST, port)
    client.subscribe(f"edgernn/{NODE}/#")
    client.loop_start()
    is_subscribed.get(timeout=TIMEOUT_S)
    try:
        yield seen
    finally:
        client.disconnect()
        client.loop_stop()


def wait_for(seen: Seen, what: str, is_it: Callable[[bytes], bool]) -> float:
    """When it arrived."""
    while True:
        time_s, topic, payload = seen.get(timeout=TIMEOUT_S)
        if topic == what and is_it(payload):
            return time_s


def wait_for_all(seen: Seen, load: Load) -> float:
    """When the agent said that it had scored every sample. Raises RuntimeError if it lost some."""

    def is_all(payload: bytes) -> bool:
        health = msgspec.json.decode(payload, type=Health)
        if health.dropped or health.samples > load.samples:
            raise RuntimeError(f"expected {load.samples} samples and none dropped, got {health}")
        return health.samples == load.samples

    return wait_for(seen, "health", is_all)
