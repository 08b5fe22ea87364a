"""SIGINT and SIGTERM as an event, so that a command ends cleanly and keeps what it has."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

IMPATIENT_S = 1.0
"""A further signal that comes sooner is the same wish: `timeout` and terminals send two at once."""
ENOUGH = b"\0"


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Inside, the first signal sets the event; one a second later ends the process the usual way.

    Only in the main thread: Python delivers signals nowhere else. The event is set by a thread, as
    a handler that did so could wait for a lock that the code it interrupts holds.
    """
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    usual = {number: signal.getsignal(number) for number in numbers}
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    first_s: list[float] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not first_s:
            first_s.append(now_s)
        elif now_s - first_s[0] > IMPATIENT_S:
            for one, handler in usual.items():
                signal.signal(one, handler)
            signal.raise_signal(number)

    def wait() -> None:
        while (heard := ours.recv(1)) != ENOUGH:
            if heard[0] in numbers:
                stop.set()

    thread = threading.Thread(target=wait, name="edgernn-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, hear)
    try:
        yield stop
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        theirs.send(ENOUGH)
        thread.join()
        ours.close()
        theirs.close()
