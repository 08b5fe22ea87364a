"""Bytes of one message → samples: a JSON object each, or a list of them. No clock, no socket."""

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

    def row(self, channels: Sequence[str]) -> list[float]:
        """C values in the detector's order, NaN for a channel that was not sent.

        Raises PayloadError if not one of the channels was sent.
        """
        values = self.values
        if not any(name in values for name in channels):
            found = ", ".join(sorted(values)[:8]) or "no value"
            raise PayloadError("no_channel", f"has {found}; expected {', '.join(channels)}")
        return [values.get(name, math.nan) for name in channels]


def decode(payload: bytes, *, received_s: float) -> list[RawSample]:
    """The samples of one message; a sample without a time gets `received_s`, seconds since 1970.

    Raises PayloadError for anything that is not an object of numbers or a list of such objects.
    A message is taken whole or not at all.
    """
    return samples_of(parse(payload), received_s=received_s)


def parse(payload: bytes) -> object:
    """What one message's JSON says. Raises PayloadError if it is none, or too much of it."""
    if len(payload) > LARGEST_PAYLOAD:
        raise PayloadError("too_large", f"{len(payload)} bytes, at most {LARGEST_PAYLOAD}")
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PayloadError("not_json", str(exc)) from exc


def samples_of(content: object, *, received_s: float) -> list[RawSample]:
    """The samples of one message that was parsed. Raises PayloadError as `decode` does."""
    if isinstance(content, dict):
        return [_sample(content, received_s)]
    if isinstance(content, list) and content:
        if len(content) > MOST_SAMPLES:
            raise PayloadError("too_large", f"{len(content)} samples, at most {MOST_SAMPLES}")
        return [_sample(item, received_s) for item in content]
    raise PayloadError("not_samples", f"expected an object or a list of them, got {_kind(content)}")


def _sample(item: object, received_s: float) -> RawSample:
    if not isinstance(item, dict):
        raise PayloadError("not_samples", f"expected an object, got {_kind(item)}")
    time_s: float = received_s
    seq: int | None = None
    values: dict[str, float] = {}
    for key, value in item.items():
        if type(value) is float and key not in RESERVED:  # nearly all of them
            values[key] = value
        elif key in TIME_KEYS:
            time_s = _time(value)
        elif key == SEQ_KEY:
            seq = _seq(value)
        elif value is None:
            values[key] = math.nan
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values[key] = _number(key, value)
        else:
            raise PayloadError(
                "not_a_number", f"{key}: expected a number or null, got {_kind(value)}"
            )
    return RawSample(time_s=time_s, seq=seq, values=values)


def _number(key: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError as exc:  # an integer of more than 308 digits
        raise PayloadError("not_a_number", f"{key}: an integer too large for a float") from exc


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
    return names.get(type(value), f"the number {value}" if isinstance(value, int | float) else "?")
