"""Messages that wait for the worker: bounded in number and bytes, and what goes when it is full.

The network thread puts, the worker takes. No socket, no clock.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from edgernn.errors import EdgernnError
from edgernn_device.payload import LARGEST_PAYLOAD

LONGEST_TOPIC = 1024
"""Bytes of a topic that is taken; MQTT allows 65,535, and each is remembered a while."""
OVERHEAD = 300
"""Bytes that a waiting message takes beside payload and topic: 250 measured, CPython 3.11."""

WHEN_FULL = ("stop-reading", "drop-oldest", "keep-latest")

logger = logging.getLogger(__name__)


class Arrived(Protocol):
    """What of a message matters here."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


M = TypeVar("M", bound=Arrived)


class Inbox(Generic[M]):
    """First in, first out. Full, it does as `when_full` says, and counts what it gave up.

    "stop-reading": `wants_more` is False until half of it is taken, and nothing is given up here.
    "drop-oldest": the oldest go. "keep-latest": of each topic all but the newest go, and the oldest
    topics too if that leaves it more than half full.
    """

    def __init__(
        self,
        *,
        messages: int,
        size_bytes: int,
        when_full: str,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_room` is called by the one who takes, once `wants_more` is True again."""
        if when_full not in WHEN_FULL:
            allowed = ", ".join(WHEN_FULL)
            raise EdgernnError(f"when_full: expected one of {allowed}, got {when_full!r}")
        self.wants_more = True
        """Whether whoever reads the socket may go on."""
        self._limit = (messages, size_bytes)
        self._when_full = when_full
        self._on_room = on_room
        self._waiting: deque[M] = deque()
        self._bytes = 0
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Of all that waits, about as it stands in memory."""
        return self._bytes

    @property
    def counts(self) -> Counter[str]:
        """Messages given up so far, by reason."""
        with self._changed:
            return self._counts.copy()

    def put(self, message: M) -> list[M]:
        """Take a message; returns those given up, itself perhaps, which want acknowledging."""
        with self._changed:
            if reason := _oversize(message):
                self._count(reason, message)
                return [message]
            self._waiting.append(message)
            self._bytes += _size(message)
            self._changed.notify()
            if not self._is_beyond(1):
                return []
            if self._when_full == "stop-reading":
                self.wants_more = False
                return []
            return self._make_room()

    def take(self, messages: int, *, size_bytes: int, timeout_s: float) -> list[M]:
        """What waits, the oldest first, at least one and then up to both bounds; none if nothing
        comes within `timeout_s`."""
        taken: list[M] = []
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, timeout_s)
            left_bytes = size_bytes
            while self._waiting and len(taken) < messages and (left_bytes > 0 or not taken):
                taken.append(self._pop())
                left_bytes -= _size(taken[-1])
            has_room = not self.wants_more and not self._is_beyond(2)
            self.wants_more = self.wants_more or has_room
        if has_room:
            self._on_room()
        return taken

    def _make_room(self) -> list[M]:
        """Down to the bounds; to half of them with "keep-latest", which looks at all that waits and
        must not do so for every message."""
        if self._when_full == "drop-oldest":
            return self._drop_oldest(1, "inbox_full")
        latest = {message.topic: message for message in self._waiting}
        keep = {id(message) for message in latest.values()}
        old = [message for message in self._waiting if id(message) not in keep]
        self._waiting = deque(message for message in self._waiting if id(message) in keep)
        self._bytes = sum(map(_size, self._waiting))
        for message in old:
            self._count("inbox_replaced", message)
        return old + self._drop_oldest(2, "inbox_full")

    def _drop_oldest(self, divisor: int, reason: str) -> list[M]:
        dropped = []
        while len(self._waiting) > 1 and self._is_beyond(divisor):
            dropped.append(self._pop())
            self._count(reason, dropped[-1])
        return dropped

    def _pop(self) -> M:
        message = self._waiting.popleft()
        self._bytes -= _size(message)
        return message

    def _is_beyond(self, divisor: int) -> bool:
        """More than the bounds, or than such a part of them."""
        messages, size_bytes = self._limit
        return len(self._waiting) * divisor > messages or self._bytes * divisor > size_bytes

    def _count(self, reason: str, message: M) -> None:
        self._counts[reason] += 1
        if self._counts[reason] == 1:
            logger.warning("%.200a: %s (said once, then counted)", message.topic, reason)


def _oversize(message: Arrived) -> str:
    """The reason to refuse it; "" for none."""
    if len(message.payload) > LARGEST_PAYLOAD:
        return "too_large"
    topic = message.topic  # fewer characters than bytes: the cheap look first
    is_long = len(topic) > LONGEST_TOPIC or len(topic.encode()) > LONGEST_TOPIC
    return "topic_too_long" if is_long else ""


def _size(message: Arrived) -> int:
    return len(message.payload) + len(message.topic) + OVERHEAD
