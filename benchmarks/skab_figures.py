"""Alarms against SKAB's labels, and the plain methods that a recurrent detector has to beat."""

import math
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.alarm import Alarm, Limits
from edgernn.calibration import enter_threshold, leave_threshold
from edgernn.card import AlarmRule
from edgernn.nets.detector import TailScores
from edgernn.recording import Track
from edgernn.training.tails import fit_tail

HEALTHY_ROWS = 400
"""Of every file; SKAB's protocol: fit on these, score the rest."""
PERIOD_S = 1.0

Floats = NDArray[np.float64]
Samples = NDArray[np.float32]
Bools = NDArray[np.bool_]
Spans = tuple[tuple[float, float | None], ...]
"""(on, off) in sample time, seconds since 1970; None = on to the end."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How one method's alarms compare with the labels, over the rows that are scored."""

    method: str
    f1: float
    false_alarm_rate: float
    """FP / (FP + TN) over rows."""
    missed_alarm_rate: float
    """FN / (FN + TP) over rows."""
    rate_before: float
    """The false-alarm rate of the rows before the faults alone."""
    alerted: int
    """Faults during which an alarm went on that was off when they began."""
    on_already: int
    """Faults that began with the alarm on: luck, not detection."""
    false_alarms: int
    """Alarms that went on before the fault, or were on when scoring began."""
    median_delay_s: float | None
    delays_s: dict[str, float | None]
    """Stream → from the fault's start to the alarm; None = missed or on already."""


def measure(method: str, tracks: Mapping[str, Track], alarms: Mapping[str, Spans]) -> Figures:
    """Alarms of every stream against its track's labels, rows pooled over streams."""
    tp = fp = fn = tn = before_on = before = false_alarms = already = 0
    delays: dict[str, float | None] = {}
    for stream, track in tracks.items():
        assert track.label is not None
        time_s, faulty = track.time_s[HEALTHY_ROWS:], track.label[HEALTHY_ROWS:] != ""
        on = rows_on(time_s, alarms.get(stream, ()))
        tp, fp = tp + int((on & faulty).sum()), fp + int((on & ~faulty).sum())
        fn, tn = fn + int((~on & faulty).sum()), tn + int((~on & ~faulty).sum())
        begin = int(np.argmax(faulty))
        before, before_on = before + begin, before_on + int(on[:begin].sum())
        false_alarms += int(on[0]) + int((on[1:begin] & ~on[: begin - 1]).sum())
        is_already_on = bool(on[begin - 1])
        already += is_already_on
        hits = np.flatnonzero(on & faulty)
        is_found = len(hits) > 0 and not is_already_on
        delays[stream] = float(time_s[hits[0]] - time_s[begin]) if is_found else None
    found = [delay for delay in delays.values() if delay is not None]
    return Figures(
        method=method,
        f1=2 * tp / max(2 * tp + fp + fn, 1),
        false_alarm_rate=fp / max(fp + tn, 1),
        missed_alarm_rate=fn / max(fn + tp, 1),
        rate_before=before_on / max(before, 1),
        alerted=len(found),
        on_already=already,
        false_alarms=false_alarms,
        median_delay_s=float(np.median(found)) if found else None,
        delays_s=delays,
    )


def rows_on(time_s: Floats, spans: Spans) -> Bools:
    """(T,) times → whether the alarm was on: from the on-edge's time, until the off-edge's."""
    on = np.zeros(len(time_s), bool)
    for start, end in spans:
        on |= (time_s >= start) & (time_s < (math.inf if end is None else end))
    return on


def spans_of(edges: Iterable[tuple[float, bool]]) -> Spans:
    """Edges (time, is on) in order → the alarms they make."""
    spans: list[tuple[float, float | None]] = []
    for time_s, is_on in edges:
        if is_on:
            spans.append((time_s, None))
        else:
            spans[-1] = (spans[-1][0], time_s)
    return tuple(spans)


def z_score(x: Samples, healthy: Samples) -> Floats:
    """x (T, C) → the largest channel's distance from its healthy mean, in standard deviations."""
    distance = np.abs(x - healthy.mean(0)) / np.maximum(healthy.std(0), 1e-9)
    largest: Floats = distance.max(1)
    return largest


def mahalanobis(x: Samples, healthy: Samples) -> Floats:
    """x (T, C) → distance from the healthy mean in the metric of the healthy covariance."""
    centred = x - healthy.mean(0)
    precision = np.linalg.pinv(np.cov(healthy.T))
    distance: Floats = np.sqrt(np.einsum("tc,cd,td->t", centred, precision, centred))
    return distance


def plain_alarms(track: Track, distance: Floats) -> Spans:
    """On above the largest of the healthy rows, off as the product's alarms go off."""
    largest = float(distance[:HEALTHY_ROWS].max())
    return run_alarm(track, distance, enter=largest, leave=largest)


def budget_alarms(track: Track, distance: Floats) -> Spans:
    """On as the product's alarms go on: healthy rows → tail → threshold for the default budget."""
    tail = fit_tail("distance", [distance[:HEALTHY_ROWS]])
    scores = TailScores(1)
    scores.load((tail,))
    score = scores(torch.from_numpy(distance)[:, None, None])[:, 0, 0].numpy()
    enter = enter_threshold(AlarmRule(), (tail,), period_s=PERIOD_S)
    leave = leave_threshold(enter, recover_samples=AlarmRule.for_period(1.0).recover_s)
    return run_alarm(track, score, enter=enter, leave=leave)


def run_alarm(track: Track, score: Floats, *, enter: float, leave: float) -> Spans:
    """The product's alarm over one stream's scores (T,)."""
    rule = AlarmRule.for_period(PERIOD_S)
    durations = (rule.min_duration_s, rule.recover_s, rule.cooldown_s, rule.quiet_s)
    alarm = Alarm(Limits(enter, leave, *durations))
    edges = (alarm.update(float(t), float(s)) for t, s in zip(track.time_s, score, strict=True))
    return spans_of((edge.time_s, edge.is_on) for edge in edges if edge is not None)
