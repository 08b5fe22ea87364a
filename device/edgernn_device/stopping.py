"""SIGINT and SIGTERM as an event, so that a command ends cleanly and keeps what it has."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Inside, the first signal sets the event; a second one ends the process the usual way.

    Only in the main thread: Python delivers signals nowhere else.
    """
    stop = threading.Event()
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def set_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for number, handler in usual.items():
            signal.signal(number, handler)

    for number in usual:
        signal.signal(number, set_stop)
    try:
        yield stop
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
