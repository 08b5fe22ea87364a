"""A broker for trials, on loopback only: Mosquitto if it is installed, else one from a wheel.

Without password or encryption, and nothing is kept. In service, run Mosquitto as the system does.
"""

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from edgernn.errors import EdgernnError

HOST = "127.0.0.1"
LARGEST_MESSAGE = 1 << 20
"""Bytes; the agent refuses larger ones too."""
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
"""Where packages put mosquitto; not on the PATH of a normal user everywhere."""
START_TIMEOUT_S = 10.0
POLL_S = 0.02

MOSQUITTO_CONFIG = f"""\
listener {{port}} {HOST}
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 100000
max_queued_bytes 50000000
message_size_limit {LARGEST_MESSAGE}
"""
"""NODELAY: 0.1 ms instead of 20 in bursts. The others: a burst is queued rather than dropped."""

Kind = Literal["mosquitto", "iotcore"]


class _Running(Protocol):
    def is_running(self) -> bool: ...
    def stop(self) -> None: ...


class TrialBroker:
    """`with TrialBroker(port=1883) as broker:` listens on 127.0.0.1:`broker.port` until the end."""

    def __init__(self, port: int = 1883, *, kind: Kind | None = None) -> None:
        """Port 0 = a free one. Raises EdgernnError if no broker is installed, or not this kind."""
        if not 0 <= port <= 65535:
            raise EdgernnError(f"broker port: expected 0–65535, got {port}")
        self.port = port
        self.kind: Kind = kind or ("mosquitto" if _find_mosquitto() else "iotcore")
        if self.kind == "mosquitto" and not _find_mosquitto():
            raise EdgernnError("mosquitto is not installed: apt install mosquitto")
        if self.kind == "iotcore" and not _has_iotcore():
            raise EdgernnError(
                "no broker is installed: apt install mosquitto, or pip install 'edgernn[broker]'"
            )
        self._running: _Running | None = None

    @property
    def sentence(self) -> str:
        """What runs where, for the person who started it."""
        name = "Mosquitto" if self.kind == "mosquitto" else "the embedded broker (iotcore)"
        return (
            f"{name} on mqtt://{HOST}:{self.port}: for trials on this machine; "
            "no password, no encryption, nothing is kept"
        )

    @property
    def address(self) -> str:
        """Once it listens."""
        return f"mqtt://{HOST}:{self.port}"

    def start(self) -> None:
        """Returns once it listens. Raises EdgernnError if the port is taken or nothing starts."""
        self.port = _claim(self.port)
        starter = _Mosquitto if self.kind == "mosquitto" else _Iotcore
        self._running = starter(self.port)
        until_s = time.monotonic() + START_TIMEOUT_S
        while not _listens(self.port):
            if not self._running.is_running() or time.monotonic() > until_s:
                self.stop()
                raise EdgernnError(f"{self.kind} did not start on port {self.port}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ends the broker that was started here, and only that."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def wait(self, stop: threading.Event) -> None:
        """Block until `stop` is set. Raises EdgernnError if the broker ends by itself."""
        while not stop.wait(0.5):
            if self._running is None or not self._running.is_running():
                raise EdgernnError(f"{self.kind} on port {self.port} has ended")

    def __enter__(self) -> "TrialBroker":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class _Mosquitto:
    def __init__(self, port: int) -> None:
        binary = _find_mosquitto()
        assert binary is not None
        self._folder = tempfile.TemporaryDirectory(prefix="edgernn-broker-")
        config = Path(self._folder.name) / "mosquitto.conf"
        config.write_text(MOSQUITTO_CONFIG.format(port=port))
        self._process = subprocess.Popen(
            [binary, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


class _Iotcore:
    """rumqttd in a child process, which also ends when this process dies. MQTT 3.1.1 only."""

    def __init__(self, port: int) -> None:
        from iotcore import Broker  # noqa: PLC0415 - an extra

        # its own defaults would listen on every interface and refuse messages above 20 kB
        self._broker = Broker(port=port, listen=HOST, max_payload_size=LARGEST_MESSAGE)
        try:
            self._broker.start()
        except (OSError, RuntimeError) as exc:
            raise EdgernnError(f"iotcore did not start on port {port}: {exc}") from exc

    def is_running(self) -> bool:
        return bool(self._broker.is_running)

    def stop(self) -> None:
        self._broker.stop()


def _find_mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=SYSTEM_FOLDERS)


def _has_iotcore() -> bool:
    try:
        import iotcore  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return False
    return True


def _claim(port: int) -> int:
    """The port, or a free one for 0. Raises EdgernnError if something listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as exc:
            raise EdgernnError(f"port {port} needs root; choose one above 1023") from exc
        except OSError as exc:
            raise EdgernnError(
                f"port {port} on {HOST} is taken; is a broker running already? Choose another"
            ) from exc
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
