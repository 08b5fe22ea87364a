"""The alert: what goes out when an alarm goes on or off, with a sentence that a person can read."""

from collections.abc import Sequence

import msgspec

from edgernn.alarm import Edge
from edgernn.card import Card
from edgernn.times import format_time
from edgernn_device.engine import Floats

TOP_CHANNELS = 3
"""Channels named in an alert, those that contribute most."""


ANOMALY = "anomaly"


class ChannelPart(msgspec.Struct, frozen=True):
    """What one channel had to do with it."""

    name: str
    unit: str
    observed: float | None
    """None = missing."""
    expected: float | None
    contribution: float | None
    """Share of the surprise, 0 to 1. None, as what was expected, where no model was asked."""


class Model(msgspec.Struct, frozen=True):
    """Which artefact said so."""

    name: str
    hash: str
    """SHA-256 of the file."""


class Alert(msgspec.Struct, frozen=True):
    """The JSON on the alert topic. Times are ISO 8601, UTC, of samples."""

    id: str
    """The same for the same node, stream, onset, kind and edge: a receiver can drop repeats."""
    node: str
    stream: str
    kind: str
    """"anomaly", or what is wrong with a sensor: "stuck", "range" or "silent"."""
    edge: str
    """"on" or "off"."""
    onset: str
    time: str
    score: float | None
    """At an on-edge; at an off-edge the highest of the alarm. None unless an anomaly."""
    threshold: float | None
    severity: str
    channels: tuple[ChannelPart, ...]
    model: Model
    sentence: str


def top_channels(
    card: Card, x: Sequence[float], expected: Floats, contribution: Floats
) -> tuple[ChannelPart, ...]:
    """What the channels that contribute most showed: x, C values; expected and shares (C,)."""
    top = sorted(range(len(card.channels)), key=lambda c: -float(contribution[c]))[:TOP_CHANNELS]
    return tuple(
        ChannelPart(
            name=card.channels[c].name,
            unit=card.channels[c].unit,
            observed=None if x[c] != x[c] else float(x[c]),
            expected=float(f"{expected[c]:.6g}"),  # what float32 can tell
            contribution=round(float(contribution[c]), 4),
        )
        for c in top
    )


def make_alert(
    edge: Edge,
    parts: tuple[ChannelPart, ...],
    *,
    node: str,
    stream: str,
    model: Model,
) -> Alert:
    """The alert for an edge; without `parts` if a gap ended the alarm."""
    word = "on" if edge.is_on else "off"
    return Alert(
        id=f"{node}/{stream}:{format_time(edge.onset_s)}:{word}",
        node=node,
        stream=stream,
        kind=ANOMALY,
        edge=word,
        onset=format_time(edge.onset_s),
        time=format_time(edge.time_s),
        score=round(edge.score, 3),
        threshold=round(edge.threshold, 3),
        severity=edge.severity,
        channels=parts,
        model=model,
        sentence=_on(edge, stream, parts) if edge.is_on else _off(edge, stream, parts),
    )


def _on(edge: Edge, stream: str, parts: tuple[ChannelPart, ...]) -> str:
    telling = [part for part in parts if (part.contribution or 0) >= 0.15] or list(parts[:1])
    named = ", ".join(_part(part) for part in telling)
    return (
        f"{stream} behaves unusually: {named}. "
        f"Score {edge.score:.1f}, threshold {edge.threshold:.1f}."
    )


def _off(edge: Edge, stream: str, parts: tuple[ChannelPart, ...]) -> str:
    lasted = duration(edge.time_s - edge.onset_s)
    if not parts:
        return f"{stream} starts afresh after a gap, {lasted} into an alarm, which ends unresolved."
    return f"{stream} is back to normal after {lasted}. Highest score {edge.score:.1f}."


def _part(part: ChannelPart) -> str:
    unit = f" {part.unit}" if part.unit else ""
    observed = "missing" if part.observed is None else f"{part.observed:.4g}{unit}"
    return (
        f"{part.name} {observed} (expected {part.expected:.4g}{unit}, "
        f"{part.contribution:.0%} of the surprise)"
    )


def duration(seconds: float) -> str:
    """ "59 s", "2 min 5 s" or "27 h 46 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
