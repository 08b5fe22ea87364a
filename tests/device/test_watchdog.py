"""The watchdog: what systemd is told, checked at a notify socket, and the end of what hangs."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgernn_device.watchdog import Notifier, Supervisor

WAIT_S = 20.0


class NotifySocket:
    """systemd's end."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(WAIT_S)
        self._socket.bind(address)

    def read(self) -> str:
        return self._socket.recv(4096).decode()

    def all_so_far(self) -> list[str]:
        found = []
        self._socket.setblocking(False)
        try:
            while True:
                found.append(self.read())
        except BlockingIOError:
            return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def notified(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, NotifySocket]]:
    """NOTIFY_SOCKET's value, and who listens there."""
    is_file = request.param == "file"
    name = f"@edgernn-test-{os.getpid()}-{time.monotonic_ns()}"
    shown = str(tmp_path / "s") if is_file else name
    if len(shown) > 100:
        pytest.skip("the test folder's name is too long for a socket")
    listener = NotifySocket(shown if is_file else "\0" + name[1:])
    yield shown, listener
    listener.close()


def test_systemd_is_told_in_its_own_words(notified: tuple[str, NotifySocket]) -> None:
    path, systemd = notified
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000"})
    notifier.ready()
    notifier.status("connected;\n3 streams")
    notifier.status("connected;\n3 streams")
    for now_s in (0.0, 0.5, 0.99, 1.0, 1.5, 2.1):
        notifier.feed(now_s)
    notifier.stopping()
    assert systemd.all_so_far() == [
        "READY=1",
        "STATUS=connected; 3 streams",
        "WATCHDOG=1",
        "WATCHDOG=1",
        "WATCHDOG=1",
        "STOPPING=1",
    ]
    notifier.close()


@pytest.mark.parametrize(
    ("environment", "every_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_fed_only_if_it_is_meant_for_this_process(
    environment: dict[str, str], every_s: float
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "@edgernn-nobody", **environment})
    assert notifier.every_s == pytest.approx(every_s)
    notifier.close()


def test_without_systemd_and_without_a_listener_nothing_happens() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "@edgernn-nobody"}):
        notifier = Notifier(environment)
        notifier.ready()
        notifier.feed(1.0)
        notifier.close()


def test_a_part_that_stops_moving_ends_the_process_and_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[int] = []
    is_over = threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        is_over.set()

    began_s = time.monotonic()
    beats = {"one": time.monotonic, "another": lambda: began_s}
    with Supervisor(beats, hung_after_s=0.2, end=end):
        assert is_over.wait(WAIT_S)
    assert 0.2 <= time.monotonic() - began_s < 5
    assert ended == [1]
    assert "another has not moved for 0.2 s" in caplog.text


def test_parts_that_move_are_left_alone() -> None:
    ended: list[int] = []
    with Supervisor({"one": time.monotonic}, hung_after_s=0.1, end=ended.append):
        time.sleep(0.4)
    assert ended == []


def test_a_thread_stuck_in_a_call_ends_the_process_with_its_traceback() -> None:
    program = """
import threading, time
from edgernn_device.watchdog import Supervisor
began_s = time.monotonic()
def a_call_that_never_returns():
    threading.Event().wait()
with Supervisor({"the worker": lambda: began_s}, hung_after_s=0.3):
    a_call_that_never_returns()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 1
    assert "a_call_that_never_returns" in done.stderr
