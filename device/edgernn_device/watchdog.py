"""Who notices that this process has stopped working: systemd by its socket, a thread of its own.

systemd's protocol is sd_notify(3): a datagram of KEY=value lines, here without any package.
"""

import faulthandler
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType

HUNG_AFTER_S = 60.0
"""A part that has not moved for so long hangs. A batch is bounded so that it takes a fraction."""
HUNG_EXIT = 1
"""Exit code then, as of any other defect of ours."""
FRESH_S = 2.0
"""A beat this old still counts as moving when systemd is told that all is well."""

logger = logging.getLogger(__name__)


class Notifier:
    """Tells systemd, if it asked to be told; else does nothing. Not for several threads at once."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        """An abstract socket's name begins with NUL."""
        self._socket: socket.socket | None = None
        if self._address[:1] in ("/", "\0"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.every_s = _watchdog_s(environment) / 3 if self._socket else 0.0
        """Seconds between two feeds, a third of what systemd allows; 0 = it wants none."""
        self._fed_s = float("-inf")
        self._status = ""

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows; sent only if it is another than before."""
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={' '.join(sentence.split())}")

    def feed(self, now_s: float) -> None:
        """All is well, at a monotonic time; may be called as often as one likes."""
        if self.every_s and now_s - self._fed_s >= self.every_s:
            self._fed_s = now_s
            self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, line: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # a supervisor that does not listen is not our end
                self._socket.sendto(line.encode(), self._address)


class Supervisor:
    """`with Supervisor({"worker": lambda: beat_s}):` ends the process if a part stops moving.

    For what no exception can reach: a thread that never comes back. The network dies with the
    process, without a DISCONNECT, so the broker publishes the last will; whoever started the
    process starts it again.
    """

    def __init__(
        self,
        beats: Mapping[str, Callable[[], float]],
        *,
        hung_after_s: float = HUNG_AFTER_S,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """`beats`: part → when it last moved, time.monotonic()."""
        self._beats = beats
        self._hung_after_s = hung_after_s
        self._end = end
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgernn-supervisor", daemon=True)

    def __enter__(self) -> "Supervisor":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(min(1.0, self._hung_after_s / 4)):
            now_s = time.monotonic()
            for part, beat_s in self._beats.items():
                if now_s - beat_s() > self._hung_after_s:
                    logger.critical("%s has not moved for %g s", part, self._hung_after_s)
                    faulthandler.dump_traceback(file=sys.__stderr__ or 2)
                    self._end(HUNG_EXIT)
                    return


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Seconds within which systemd wants to be fed by this very process; 0 = not at all."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    found = environment.get("WATCHDOG_USEC", "")
    return int(found) / 1e6 if found.isascii() and found.isdigit() else 0.0
