"""What was last said on topics that the broker keeps, to be said again to one that forgot it."""

from collections import deque
from collections.abc import Callable

AHEAD = 500
"""Publishes that may wait when more is said again: 10,000 streams at once would fill the outbox."""


class Retained:
    """Topic → payload. While there is no connection nothing is sent, so that nothing old piles up:
    the owner calls `say_all_again` when there is one, and then `go_on` until all is said."""

    def __init__(self, publish: Callable[[str, bytes], None]) -> None:
        self._publish = publish
        self._payloads: dict[str, bytes] = {}
        self._again: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._payloads)

    def say(self, topic: str, payload: bytes, *, is_connected: bool) -> None:
        self._payloads[topic] = payload
        if is_connected:
            self._publish(topic, payload)

    def forget(self, topic: str) -> None:
        """At the broker too: an empty payload clears the topic."""
        if self._payloads.pop(topic, None) is not None:
            self._publish(topic, b"")

    def say_all_again(self) -> None:
        self._again = deque(self._payloads)

    def go_on(self, *, waiting: int) -> None:
        """Say some of what is to be said again; `waiting` publishes wait already."""
        for _ in range(min(len(self._again), AHEAD - waiting)):
            topic = self._again.popleft()
            if (payload := self._payloads.get(topic)) is not None:
                self._publish(topic, payload)
