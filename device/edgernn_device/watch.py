"""Prints alerts as they arrive: a line each for a person, or as JSON for a program."""

import json
import queue
import secrets
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
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
    lost = threading.Event()

    def take(message: Message) -> None:
        try:
            inbox.put_nowait(message)
        except queue.Full:
            lost.set()
            link.ack(message)

    link = Link(
        access,
        client_id=f"edgernn-watch-{secrets.token_hex(4)}",
        subscriptions=[(alert_filter(prefix), 1)],
        on_message=take,
    )
    seen: OrderedDict[str, None] = OrderedDict()
    alerts = repeated = unreadable = 0
    link.start()
    if on_ready is not None:
        on_ready()
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while not (stop and stop.is_set()) and (count is None or alerts < count):
            if until_s is not None and time.monotonic() > until_s:
                break
            link.raise_if_dead()
            try:
                message = inbox.get(timeout=0.1)
            except queue.Empty:
                continue
            if lost.is_set():
                lost.clear()
                write("some alerts were dropped: they arrive faster than they can be printed")
            try:
                alert, line = _read(message, prefix, as_json=as_json)
            except EdgernnError as exc:
                unreadable += 1
                write(printable(f"{message.topic}: not an alert: {exc}"))
            else:
                if alert.id in seen:
                    repeated += 1
                else:
                    alerts += 1
                    write(line)
                seen[alert.id] = None
                if len(seen) > REMEMBERED:
                    seen.popitem(last=False)
            link.ack(message)
    finally:
        link.stop(timeout_s=1.0)
    return Watched(alerts=alerts, repeated=repeated, unreadable=unreadable)


def alert_line(alert: Alert, node: str, stream: str) -> str:
    """ "2026-11-21T10:15:00.000Z  hall/pump-7  ON   critical  Vibration is far above …"."""
    edge = {"on": "ON ", "off": "off"}.get(alert.edge, alert.edge)
    cells = (_time(alert.time), f"{node}/{stream}", edge, f"{alert.severity:8}", alert.sentence)
    return "  ".join(printable(cell) for cell in cells)


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey, and not overlong."""
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    # categories C* (control, format such as right-to-left override, …), Zl and Zp (line ends)
    kept = (
        char if unicodedata.category(char)[0] != "C" and not _is_line_end(char) else " "
        for char in text
    )
    return "".join(kept)


def _is_line_end(char: str) -> bool:
    return unicodedata.category(char) in ("Zl", "Zp")


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
