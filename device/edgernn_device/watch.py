"""Prints alerts as they arrive: a line each for a person, or as JSON for a program."""

import json
import queue
import secrets
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from edgernn.errors import EdgernnError
from edgernn.times import format_time, parse_time
from edgernn_device.address import Access
from edgernn_device.link import Link, Message
from edgernn_device.topics import DEFAULT_PREFIX, alert_filter, split_alert_topic

INBOX_LIMIT = 10_000
"""Alerts that wait to be printed; further ones are dropped and said."""
LARGEST_ALERT = 64 * 1024
"""Bytes; an alert of 20 channels has about 4,000."""
LONGEST_TEXT = 500
"""Characters of any one field that are printed."""
REMEMBERED = 10_000
"""Ids of alerts printed before: MQTT may deliver an alert twice."""


class Alert(msgspec.Struct, frozen=True):
    """The part of an alert that a line shows."""

    id: str
    edge: str
    severity: str
    sentence: str
    time: str | float


class Watched(msgspec.Struct, frozen=True):
    """What was seen."""

    alerts: int
    repeated: int
    """Came a second time and were not printed again."""
    unreadable: int


def watch(
    access: Access,
    write: Callable[[str], None],
    *,
    prefix: str = DEFAULT_PREFIX,
    as_json: bool = False,
    count: int | None = None,
    timeout_s: float | None = None,
    stop: threading.Event | None = None,
    on_ready: Callable[[], None] | None = None,
) -> Watched:
    """Hand a line for each alert to `write`, until `stop`, `count` alerts or `timeout_s` seconds.

    `on_ready` is called once it listens.
    Raises EdgernnError if the broker cannot be reached at first; later losses are waited out.
    """
    inbox: queue.Queue[Message] = queue.Queue(INBOX_LIMIT)
    printer = _Printer(write, prefix, as_json=as_json)

    def take(message: Message) -> None:
        try:
            inbox.put_nowait(message)
        except queue.Full:
            printer.has_lost_some = True
            link.ack(message)

    link = Link(
        access,
        client_id=f"edgernn-watch-{secrets.token_hex(4)}",
        subscriptions=[(alert_filter(prefix), 1)],
        on_message=take,
    )
    link.start()
    if on_ready is not None:
        on_ready()
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while not (stop and stop.is_set()) and (count is None or printer.alerts < count):
            if until_s is not None and time.monotonic() > until_s:
                break
            link.raise_if_dead()
            with suppress(queue.Empty):
                message = inbox.get(timeout=0.1)
                printer.take(message)
                link.ack(message)
    finally:
        link.stop(timeout_s=1.0)
    return Watched(alerts=printer.alerts, repeated=printer.repeated, unreadable=printer.unreadable)


class _Printer:
    """Messages in, lines out, each alert once."""

    def __init__(self, write: Callable[[str], None], prefix: str, *, as_json: bool) -> None:
        self.alerts = self.repeated = self.unreadable = 0
        self.has_lost_some = False
        self._write = write
        self._prefix = prefix
        self._as_json = as_json
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, message: Message) -> None:
        if self.has_lost_some:
            self.has_lost_some = False
            self._write("some alerts were dropped: they arrive faster than they can be printed")
        try:
            alert, line = _read(message, self._prefix, as_json=self._as_json)
        except EdgernnError as exc:
            self.unreadable += 1
            self._write(printable(f"{message.topic}: not an alert: {exc}"))
            return
        if alert.id in self._seen:
            self.repeated += 1
            return
        self.alerts += 1
        self._write(line)
        self._seen[alert.id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)


def alert_line(alert: Alert, node: str, stream: str) -> str:
    """ "2026-11-21T10:15:00.000Z  hall/pump-7  ON   critical  Vibration is far above …"."""
    edge = {"on": "ON ", "off": "off"}.get(alert.edge, alert.edge)
    cells = (_time(alert.time), f"{node}/{stream}", edge, f"{alert.severity:8}", alert.sentence)
    return "  ".join(printable(cell) for cell in cells)


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey, and not overlong."""
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    return "".join(" " if _is_command(char) else char for char in text)


def _is_command(char: str) -> bool:
    """Control, format (such as right-to-left override), unassigned, and ends of lines."""
    category = unicodedata.category(char)
    return category[0] == "C" or category in ("Zl", "Zp")


def _read(message: Message, prefix: str, *, as_json: bool) -> tuple[Alert, str]:
    """The alert and its line. Raises EdgernnError with the reason if it is none."""
    if len(message.payload) > LARGEST_ALERT:
        raise EdgernnError(f"{len(message.payload)} bytes, at most {LARGEST_ALERT}")
    try:
        content: dict[str, Any] = msgspec.json.decode(message.payload, type=dict[str, Any])
        alert = msgspec.convert(content, Alert)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise EdgernnError(str(exc)) from exc
    if as_json:  # written anew: one line, and no control character survives as itself
        return alert, json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    node, stream = split_alert_topic(message.topic, prefix)
    return alert, alert_line(alert, node, stream)


def _time(value: str | float) -> str:
    try:
        return format_time(parse_time(value))
    except (ValueError, OverflowError, OSError):
        return str(value)
