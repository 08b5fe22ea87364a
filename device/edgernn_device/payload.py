"""Bytes of one message → samples: a JSON object each, or a list of them. No clock, no socket."""

import json
import math
from collections.abc import Sequence

import msgspec

from edgernn.times import LAST_S, parse_time

TIME_KEYS = ("time", "timestamp", "ts")
SEQ_KEY = "seq"
RESERVED = frozenset({*TIME_KEYS, SEQ_KEY})
LARGEST_PAYLOAD = 1 << 20
"""Bytes; a larger message is refused before it is parsed."""
MOST_SAMPLES = 20_000
"""In one message: the shortest, `{}`, would take a hundred times its bytes in memory."""
LARGEST_TIME_S = LAST_S
EXPECTED = "expected a JSON object or a list of them"
SHOWN = 40
"""Bytes of a refused message that its sentence shows."""


class PayloadError(Exception):
    """A message that is not samples. `reason` is one of a few words, to count by."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RawSample(msgspec.Struct, frozen=True):
    """One sample as it was sent, before anyone asked which channels a detector has."""

    time_s: float
    """Seconds since 1970."""
    seq: int | None
    """The sender's running number, if it sends one."""
    values: dict[str, float]
    """Every number in the object by its key; NaN where the sender wrote null."""
    odd: dict[str, str] | None = None
    """Keys of what is neither a number nor null, and what it is; None without any."""
    is_stamped: bool = False
    """Sent without a time: `time_s` is that of its arrival."""
    is_again: bool = False
    """The broker says that it may have delivered it before."""
    heard_s: float = math.nan
    """When it came, on a clock that nobody sets; NaN = unknown."""

    def row(self, channels: Sequence[str]) -> list[float]:
        """C values in the detector's order, NaN for a channel that was not sent.

        Raises PayloadError if not one of the channels was sent.
        """
        values = self.values
        try:
            return [values[name] for name in channels]
        except KeyError:
            sent = values.keys() | (self.odd or {}).keys()
        if sent.isdisjoint(channels):
            found = ", ".join(sorted(sent)[:8]) or "no value"
            raise PayloadError("no_channel", f"has {found}; expected {', '.join(channels)}")
        return [values.get(name, math.nan) for name in channels]


def parse(payload: bytes) -> object:
    """What one message's JSON says. Raises PayloadError if it is none, or too much of it."""
    if len(payload) > LARGEST_PAYLOAD:
        raise PayloadError("too_large", f"{len(payload)} bytes, at most {LARGEST_PAYLOAD}")
    try:
        content: object = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        content = _lenient(payload, exc)
    return content


def samples_of(
    content: object,
    *,
    received_s: float,
    period_s: float = 0.0,
    heard_s: float = math.nan,
    is_again: bool = False,
) -> list[RawSample]:
    """The samples of one parsed message; a sample without a time gets `received_s`, seconds since
    1970, in a list those before it `period_s` less each. The rest is noted in each sample.

    Raises PayloadError for anything that is not an object or a list of objects, or has a time or
    running number that is none. A message is taken whole or not at all.
    """
    if isinstance(content, dict):
        return [_sample(content, received_s, heard_s, is_again)]
    if isinstance(content, list) and content:
        if len(content) > MOST_SAMPLES:
            raise PayloadError("too_large", f"{len(content)} samples, at most {MOST_SAMPLES}")
        first_s = max(received_s - (len(content) - 1) * period_s, 0.0)
        return [
            _sample(item, first_s + i * period_s, heard_s, is_again)
            for i, item in enumerate(content)
        ]
    found = "an empty list" if content == [] else _kind(content)
    raise PayloadError("not_samples", f"{EXPECTED}, got {found}")


def _lenient(payload: bytes, refusal: Exception) -> object:
    """NaN and Infinity are no JSON, yet Python and many a small device write them; and what no
    float can hold is as infinite as these."""
    shown = repr(payload[:SHOWN]) if payload else "nothing"
    try:
        if b"NaN" in payload or b"Infinity" in payload or "out of range" in str(refusal):
            return json.loads(payload.decode())
    except (ValueError, RecursionError) as exc:
        raise PayloadError("not_json", f"{EXPECTED}, got {shown}") from exc
    raise PayloadError("not_json", f"{EXPECTED}, got {shown}") from refusal


def _sample(item: object, time_s: float, heard_s: float, is_again: bool) -> RawSample:
    if not isinstance(item, dict):
        raise PayloadError("not_samples", f"{EXPECTED}, got a list with {_kind(item)} in it")
    is_stamped = True
    seq: int | None = None
    values: dict[str, float] = {}
    odd: dict[str, str] | None = None
    for key, value in item.items():
        if type(value) is float and key not in RESERVED:  # nearly all of them
            values[key] = value
        elif key in TIME_KEYS:
            time_s, is_stamped = _time(value), False
        elif key == SEQ_KEY:
            seq = _seq(value)
        elif value is None:
            values[key] = math.nan
        else:
            number = _number(value)
            if number is None:
                odd = odd or {}
                odd[key] = _kind(value)
            else:
                values[key] = number
    return RawSample(time_s, seq, values, odd, is_stamped, is_again, heard_s)


def _number(value: object) -> float | None:
    """None for what is none, and for an integer of more than 308 digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PayloadError("bad_time", f"expected ISO 8601 or epoch seconds, got {_kind(value)}")
    try:
        time_s = parse_time(value)
    except (ValueError, OverflowError) as exc:
        raise PayloadError("bad_time", str(exc)) from exc
    if not 0 <= time_s < LARGEST_TIME_S:
        raise PayloadError("bad_time", f"outside the years 1970 to 9999: {time_s:g}")
    return time_s


def _seq(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise PayloadError("bad_seq", f"expected a whole number from 0, got {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    if isinstance(value, int) and abs(value) >= 10**17 and not isinstance(value, bool):
        return "an integer too large"
    return names.get(type(value), f"the number {value}" if isinstance(value, int | float) else "?")
