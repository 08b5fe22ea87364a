"""MQTT traffic for benchmarks: a load as fast as one socket takes it, a subscriber that counts.

The load's packets are made beforehand, so that sending them costs next to nothing beside what is
measured.
"""

import itertools
import math
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edgernn.recording import Recording
from edgernn_device.broker import HOST

STREAMS = 10
FILTER = "sensors/+/telemetry"
TIMEOUT_S = 120.0
# MQTT 3.1.1, sections 3.1 to 3.4 and 3.14
CONNECT, CONNACK_SIZE = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04load", 4
PUBLISH, PUBACK_SIZE = 0x30, 4
DISCONNECT = b"\xe0\x00"


class Load(NamedTuple):
    """What is sent: samples of `STREAMS` streams in turn."""

    qos: int
    block: int
    """Samples in a message."""
    messages: int

    @property
    def samples(self) -> int:
        return self.block * self.messages


def packets(recording: Recording, load: Load) -> bytes:
    """PUBLISH packets as `edgernn replay` would have them sent."""
    names = [f"pump-{i}" for i in range(STREAMS)]
    sources = [_samples(recording, seed) for seed in range(STREAMS)]
    parts = []
    for i in range(load.messages):
        samples = list(itertools.islice(sources[i % STREAMS], load.block))
        payload = msgspec.json.encode(samples[0] if load.block == 1 else samples)
        topic = FILTER.replace("+", names[i % STREAMS]).encode()
        mid = struct.pack("!H", i % 65_535 + 1) if load.qos else b""
        body = struct.pack("!H", len(topic)) + topic + mid + payload
        parts += [bytes([PUBLISH | load.qos << 1]), _length(len(body)), body]
    return b"".join(parts)


def send(port: int, content: bytes, load: Load) -> None:
    """Returns once the broker has taken everything (QoS 1: and said so)."""
    with socket.create_connection((HOST, port), TIMEOUT_S) as broker:
        broker.sendall(CONNECT)
        _receive(broker, CONNACK_SIZE)
        broker.sendall(content)
        _receive(broker, PUBACK_SIZE * load.messages * load.qos)
        broker.sendall(DISCONNECT)


def count(port: int, load: Load) -> None:
    """Subscribe, say "ready", count, and print the time of the last message."""
    left = load.messages

    def on_message(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            print(time.perf_counter(), flush=True)
            client.disconnect()

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.on_message = on_message
    client.connect(HOST, port)
    client.subscribe(FILTER, load.qos)
    client.loop_forever()


def _samples(recording: Recording, seed: int) -> Iterator[dict[str, float | int | None]]:
    """One stream without end: the recording over and over, each stream from another place."""
    track = recording.tracks[0]
    begin = seed * len(track.x) // STREAMS
    for seq in itertools.count():
        row = track.x[(begin + seq) % len(track.x)].tolist()
        values = [None if math.isnan(value) else round(value, 4) for value in row]
        time_s = float(track.time_s[0]) + seq * recording.period_s
        yield {"time": time_s, "seq": seq, **dict(zip(recording.channels, values, strict=True))}


def _length(size: int) -> bytes:
    """MQTT 3.1.1, section 2.2.3: seven bits a byte, the lowest first."""
    digits = []
    while True:
        size, digit = divmod(size, 128)
        digits.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(digits)


def _receive(broker: socket.socket, size: int) -> None:
    while size:
        data = broker.recv(min(size, 1 << 16))
        if not data:
            raise ConnectionError("the broker closed the connection")
        size -= len(data)


if __name__ == "__main__":
    count(int(sys.argv[1]), Load(*map(int, sys.argv[2:])))
