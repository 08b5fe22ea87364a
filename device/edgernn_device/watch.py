"""Prints alerts, classes and forecasts as they come: lines for a person, JSON for a program."""

import json
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from edgernn.errors import EdgernnError
from edgernn_device.address import Access
from edgernn_device.lines import KINDS, Alert, line_of, printable
from edgernn_device.link import Link, Message
from edgernn_device.topics import DEFAULT_PREFIX, split_topic, watch_filters

INBOX_LIMIT = 10_000
"""Messages that wait to be printed; further ones are dropped and said."""
LARGEST_MESSAGE = 1024 * 1024
"""Bytes; an alert of 20 channels has about 4,000, a forecast 20 a channel and step."""
REMEMBERED = 10_000
"""Messages printed before: MQTT may deliver one twice."""


class Watched(msgspec.Struct, frozen=True):
    """What was seen."""

    printed: int
    repeated: int
    """Came a second time and were not printed again."""
    unreadable: int


def watch(
    access: Access,
    write: Callable[[str], None],
    complain: Callable[[str], None],
    *,
    prefix: str = DEFAULT_PREFIX,
    as_json: bool = False,
    count: int | None = None,
    timeout_s: float | None = None,
    stop: threading.Event | None = None,
    on_ready: Callable[[], None] | None = None,
) -> Watched:
    """Hand a line for each message to `write`, until `stop`, `count` lines or `timeout_s` seconds.

    `complain` gets the sentences about what is unreadable or lost: `write` may be for a program.
    `on_ready` is called once it listens.
    Raises EdgernnError if the broker cannot be reached at first; later losses are waited out.
    """
    inbox: queue.Queue[Message] = queue.Queue(INBOX_LIMIT)
    printer = _Printer(write, complain, prefix, as_json=as_json)

    def take(message: Message) -> None:
        try:
            inbox.put_nowait(message)
        except queue.Full:
            printer.has_lost_some = True
            link.ack(message)

    link = Link(
        access,
        client_id=f"edgernn-watch-{secrets.token_hex(4)}",
        subscriptions=[(one, 1) for one in watch_filters(prefix)],
        on_message=take,
    )
    link.start()
    if on_ready is not None:
        on_ready()
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while not (stop and stop.is_set()) and (count is None or printer.printed < count):
            if until_s is not None and time.monotonic() > until_s:
                break
            link.raise_if_dead()
            with suppress(queue.Empty):
                message = inbox.get(timeout=0.1)
                printer.take(message)
                link.ack(message)
    finally:
        link.stop(timeout_s=1.0)
    return Watched(printer.printed, printer.repeated, printer.unreadable)


class _Printer:
    """Messages in, lines out, each once."""

    def __init__(
        self,
        write: Callable[[str], None],
        complain: Callable[[str], None],
        prefix: str,
        *,
        as_json: bool,
    ) -> None:
        self.printed = self.repeated = self.unreadable = 0
        self.has_lost_some = False
        self._write = write
        self._complain = complain
        self._prefix = prefix
        self._as_json = as_json
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, message: Message) -> None:
        if self.has_lost_some:
            self.has_lost_some = False
            self._complain("some messages were lost: they arrive faster than they can be printed")
        try:
            key, line = _read(message, self._prefix, as_json=self._as_json)
        except EdgernnError as exc:
            self.unreadable += 1
            kind = message.topic.rpartition("/")[2]
            self._complain(printable(f"{message.topic}: unreadable {kind}: {exc}"))
            return
        if key in self._seen:
            self.repeated += 1
            return
        self.printed += 1
        self._write(line)
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)


def _read(message: Message, prefix: str, *, as_json: bool) -> tuple[str, str]:
    """What tells the message from others, and its line. Raises EdgernnError with the reason if it
    is not what its topic says."""
    if len(message.payload) > LARGEST_MESSAGE:
        raise EdgernnError(f"{len(message.payload)} bytes, at most {LARGEST_MESSAGE}")
    node, stream, kind = split_topic(message.topic, prefix)
    try:
        content: dict[str, Any] = msgspec.json.decode(message.payload, type=dict[str, Any])
        found = msgspec.convert(content, KINDS[kind])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise EdgernnError(str(exc)) from exc
    key = found.id if isinstance(found, Alert) else f"{message.topic} {found.time}"
    if as_json:  # written anew: one line, and no control character survives as itself
        said = content | {"retained": True} if message.retained else content
        return key, json.dumps(said, ensure_ascii=True, separators=(",", ":"))
    return key, line_of(found, node, stream, is_retained=message.retained)
