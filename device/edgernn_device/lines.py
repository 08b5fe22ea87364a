"""What arrives, as lines for a person: alerts, classes and forecasts."""

import math
import unicodedata

import msgspec

from edgernn.times import format_time, parse_time

LONGEST_TEXT = 500
"""Characters of any one field that are printed."""


class Alert(msgspec.Struct, frozen=True):
    """The part of an alert that a line shows."""

    id: str
    edge: str
    severity: str
    sentence: str
    time: str | float
    kind: str = "anomaly"


class StreamClass(msgspec.Struct, frozen=True):
    """The part of a class message that a line shows."""

    time: str | float
    since: str | float
    name: str | None = msgspec.field(name="class")
    probability: float | None


class ChannelForecast(msgspec.Struct, frozen=True):
    """The part of a channel's forecast that a line shows: its end."""

    name: str
    unit: str
    mean: tuple[float, ...]
    spread: tuple[float, ...]


class Forecast(msgspec.Struct, frozen=True):
    """The part of a forecast that a line shows."""

    time: str | float
    period_s: float
    channels: tuple[ChannelForecast, ...]


KINDS: dict[str, type[Alert | StreamClass | Forecast]] = {
    "alert": Alert,
    "class": StreamClass,
    "forecast": Forecast,
}
"""Last level of a topic → what comes there."""


def line_of(
    message: Alert | StreamClass | Forecast, node: str, stream: str, *, is_retained: bool = False
) -> str:
    """One line, such as "2026-11-21T10:15:00.000Z  hall/pump-7  class  leak  0.97 since …".

    `is_retained`: it was said before anybody watched, and holds still.
    """
    cells: tuple[str, ...]
    still = ", still" if is_retained else ""
    match message:
        case Alert():
            return alert_line(message, node, stream)
        case StreamClass():
            cells = (f"class{still}", message.name or "unknown", _class(message))
        case Forecast():
            cells = (
                f"forecast{still}",
                *(_forecast(one, message.period_s) for one in message.channels),
            )
    return "  ".join(printable(c) for c in (_time(message.time), f"{node}/{stream}", *cells))


def alert_line(alert: Alert, node: str, stream: str) -> str:
    """ "2026-11-21T10:15:00.000Z  hall/pump-7  ON   critical  Vibration is far above …"; of a
    sensor "…  ON   warning   stuck   pump-7: flow is stuck …"."""
    edge = {"on": "ON ", "off": "off"}.get(alert.edge, alert.edge)
    kind = () if alert.kind == "anomaly" else (f"{alert.kind:6}",)
    severity = f"{alert.severity:8}"
    cells = (_time(alert.time), f"{node}/{stream}", edge, severity, *kind, alert.sentence)
    return "  ".join(printable(cell) for cell in cells)


def printable(text: str, *, longest: int = LONGEST_TEXT) -> str:
    """`text` on one line, without anything that a terminal would obey, and not overlong."""
    if len(text) > longest:
        text = text[:longest] + "…"
    return "".join(" " if _is_command(char) else char for char in text)


def _is_command(char: str) -> bool:
    """Control, format (such as right-to-left override), unassigned, and ends of lines."""
    category = unicodedata.category(char)
    return category[0] == "C" or category in ("Zl", "Zp")


def _class(message: StreamClass) -> str:
    if message.probability is None:
        return "starts afresh after a gap"
    return f"{message.probability:.2f} since {_time(message.since)}"


def _forecast(one: ChannelForecast, period_s: float) -> str:
    """ "power 1.2 … 0.4 ± 0.1 kW in 24 h": the first step, the last, and its spread."""
    if not one.mean or not one.spread:
        return f"{one.name} nothing"
    unit = f" {one.unit}" if one.unit else ""
    end = f"{one.mean[-1]:.4g} ± {one.spread[-1]:.2g}{unit}"
    return f"{one.name} {one.mean[0]:.4g} … {end} in {_span(len(one.mean) * period_s)}"


def _span(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.4g} min" if seconds < 7200 else f"{seconds / 3600:.4g} h"


def _time(value: str | float) -> str:
    try:
        return format_time(parse_time(value))
    except (ValueError, OverflowError, OSError):
        return str(value)
