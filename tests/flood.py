"""Samples at a steady rate, whatever becomes of them: a publisher that waits for nobody."""

import json
import socket
import struct
import time
from pathlib import Path
from types import TracebackType

# MQTT 3.1.1, sections 3.1 and 3.3
CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05flood"
PUBLISH_QOS_1 = 0x32
CHUNK_S = 0.02


class Flood:
    """`with Flood(port, csv, streams=3) as flood:` sends at QoS 1 with running numbers."""

    def __init__(self, port: int, recording: Path, *, streams: int) -> None:
        lines = recording.read_text().splitlines()
        self._names = [title.partition(" [")[0] for title in lines[0].split(",")]
        self._rows = [line.split(",") for line in lines[1:]]
        self._streams = streams
        self.sent = 0
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.sendall(CONNECT)
        assert self._socket.recv(4) == b"\x20\x02\x00\x00"

    def send(self, *, rate: float, duration_s: float) -> None:
        """Messages of one sample each, `rate` of them a second."""
        began_s, first = time.monotonic(), self.sent
        while (elapsed_s := time.monotonic() - began_s) < duration_s:
            wanted = first + int(elapsed_s * rate)
            packets = []
            while self.sent < wanted:
                packets.append(self._packet(self.sent))
                self.sent += 1
            self._write(b"".join(packets))
            time.sleep(CHUNK_S)

    def __enter__(self) -> "Flood":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _packet(self, number: int) -> bytes:
        name, step = number % self._streams, number // self._streams
        row = self._rows[step % len(self._rows)]
        sample: dict[str, object] = {"time": 1.7e9 + step, "seq": step}
        for title, value in zip(self._names, row, strict=True):
            if title not in ("time", "stream", "label") and value:
                sample[title] = float(value)
        topic = b"sensors/s%d/telemetry" % name
        body = struct.pack("!H", len(topic)) + topic
        body += struct.pack("!H", number % 65_535 + 1) + json.dumps(sample).encode()
        size, length = len(body), b""
        while size >= 128:
            length += bytes([size % 128 | 128])
            size //= 128
        return bytes([PUBLISH_QOS_1]) + length + bytes([size]) + body

    def _write(self, packets: bytes) -> None:
        self._socket.settimeout(30)
        self._socket.sendall(packets)
        self._socket.setblocking(False)
        try:
            while self._socket.recv(65_536):  # PUBACKs
                pass
        except BlockingIOError:
            pass
