"""Alerts of sensors: what is stuck, out of range or silent, as sentences. No clock, no socket."""

import math

import msgspec

from edgernn.card import Card
from edgernn.times import format_time
from edgernn_device.alert import Alert, ChannelPart, Model, duration
from edgernn_device.sensors import RANGE, SILENT, STUCK, Fault, SensorRule

SEVERITY = "warning"


class Faults(msgspec.Struct, frozen=True):
    """Makes the alerts of one artefact's sensors."""

    card: Card
    node: str
    model: Model
    rule: SensorRule | None

    def alert(self, fault: Fault, stream: str) -> Alert:
        """The alert for an edge; times never run backwards in it."""
        word = "on" if fault.is_on else "off"
        channel = None if fault.channel is None else self.card.channels[fault.channel]
        where = fault.kind if channel is None else f"{fault.kind}:{channel.name}"
        onset, time_s = format_time(fault.onset_s), max(fault.time_s, fault.onset_s)
        part = channel and ChannelPart(
            name=channel.name,
            unit=channel.unit,
            observed=fault.value if math.isfinite(fault.value) else None,
            expected=None,
            contribution=None,
        )
        return Alert(
            id=f"{self.node}/{stream}:{onset}:{where}:{word}",
            node=self.node,
            stream=stream,
            kind=fault.kind,
            edge=word,
            onset=onset,
            time=format_time(time_s),
            score=None,
            threshold=None,
            severity=SEVERITY,
            channels=(part,) if part else (),
            model=self.model,
            sentence=self._sentence(fault, stream, duration(time_s - fault.onset_s)),
        )

    def _sentence(self, fault: Fault, stream: str, lasted: str) -> str:
        if fault.channel is None:
            if fault.is_on:
                return f"{stream} is silent: nothing has come for {lasted}."
            if fault.is_forgotten:
                return f"{stream} is forgotten after {lasted} of silence."
            return f"{stream} is back after {lasted} of silence."
        channel = self.card.channels[fault.channel]
        name, unit = f"{stream}: {channel.name}", f" {channel.unit}" if channel.unit else ""
        if fault.is_forgotten:
            return f"{name} was {_WORDS[fault.kind]} for {lasted}, until its stream was forgotten."
        match fault.kind, fault.is_on:
            case "stuck", True:
                return (
                    f"{name} is stuck: {fault.value:.6g}{unit} for {fault.samples} samples, "
                    f"{lasted}{_in_training(channel.longest_still)}."
                )
            case "stuck", False:
                return f"{name} moves again after {lasted}."
            case "range", True:
                return f"{name} reads {fault.value:.6g}{unit}, {self._range(fault)}."
            case "range", False:
                return f"{name} is in its range again after {lasted}."
            case _, True:
                return f"{name} has not come for {fault.samples} samples, {lasted}; others have."
        return f"{name} is back after {lasted}."

    def _range(self, fault: Fault) -> str:
        assert fault.channel is not None
        assert self.rule is not None
        channel, rule = self.card.channels[fault.channel], self.rule.channels[fault.channel]
        unit = f" {channel.unit}" if channel.unit else ""
        if fault.is_firm:
            return f"which cannot be: {rule.low:.6g} to {rule.high:.6g}{unit} can"
        return f"far outside what it learnt, {channel.low:.6g} to {channel.high:.6g}{unit}"


_WORDS = {STUCK: "stuck", RANGE: "out of range", SILENT: "silent"}


def _in_training(longest_still: int) -> str:
    if longest_still == 0:
        return ""
    return (
        f"; while training never more than {longest_still}"
        if longest_still > 1
        else ("; while training it always moved")
    )
