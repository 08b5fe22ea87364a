"""A recording scored as the device will score it, alarms included, against its labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.alarm import Alarm, Edge, Limits
from edgernn.card import Card
from edgernn.errors import EdgernnError
from edgernn.nets.detector import Detector
from edgernn.recording import Recording, Track, segments


@dataclass(frozen=True, slots=True)
class ScoredTrack:
    """One stream's samples, on the detector's period, with everything said of them."""

    track: Track
    score: NDArray[np.float32]
    """(T,) NaN while warming up and where nothing was observed."""
    contribution: NDArray[np.float32]
    """(T, C)"""
    expected: NDArray[np.float32]
    """(T, C) in sensor units."""
    is_on: NDArray[np.bool_]
    """(T,) whether the alarm is on."""
    edges: tuple[Edge, ...]


class FaultFound(msgspec.Struct, frozen=True):
    """What became of one labelled stretch."""

    stream: str
    label: str
    start_s: float
    end_s: float
    delay_s: float | None
    """From its start to the first moment with the alarm on; None = missed."""


class Metrics(msgspec.Struct, frozen=True):
    """How alarms compare with labels; rows in warm-up do not count."""

    rows: int
    precision: float
    recall: float
    f1: float
    false_alarm_rate: float
    """FP / (FP + TN), over rows."""
    missed_alarm_rate: float
    """FN / (FN + TP), over rows."""
    alarms: int
    false_alarms: int
    """Alarms that went on outside every fault and its aftermath."""
    healthy_hours: float
    faults: tuple[FaultFound, ...]


def score_recording(
    detector: Detector, card: Card, recording: Recording, limits: Limits
) -> list[ScoredTrack]:
    """Stream a recording through the detector. Raises EdgernnError if its channels do not fit."""
    columns = _columns(card, recording)
    return [
        _score_track(detector, card, Track(t.stream, t.time_s, t.x[:, columns], t.label), limits)
        for t in recording.tracks
    ]


def measure(scored: Sequence[ScoredTrack], *, aftermath_s: float) -> Metrics:
    """Compare alarms with labels. An alarm within `aftermath_s` of a fault's end is not counted as
    false: the machine is only then returning to what the detector knows as healthy."""
    counts = np.zeros(4, int)  # TP, FP, FN, TN
    faults: list[FaultFound] = []
    alarms = false_alarms = 0
    healthy_s = 0.0
    for one in scored:
        label = one.track.label
        faulty = label != "" if label is not None else np.zeros(len(one.score), bool)
        counted = np.isfinite(one.score)
        on = one.is_on
        counts += [int((counted & a & b).sum()) for a, b in _quadrants(on, faulty)]
        found = _faults(one)
        faults += found
        on_times = [edge.time_s for edge in one.edges if edge.is_on]
        alarms += len(on_times)
        false_alarms += sum(
            not any(f.start_s <= t <= f.end_s + aftermath_s for f in found) for t in on_times
        )
        healthy_s += float((counted & ~faulty).sum()) * _period(one.track)
    tp, fp, fn, tn = (int(c) for c in counts)
    precision, recall = _share(tp, tp + fp), _share(tp, tp + fn)
    return Metrics(
        rows=tp + fp + fn + tn,
        precision=precision,
        recall=recall,
        f1=_share(2 * tp, 2 * tp + fp + fn),
        false_alarm_rate=_share(fp, fp + tn),
        missed_alarm_rate=_share(fn, fn + tp),
        alarms=alarms,
        false_alarms=false_alarms,
        healthy_hours=healthy_s / 3600,
        faults=tuple(faults),
    )


def _score_track(detector: Detector, card: Card, track: Track, limits: Limits) -> ScoredTrack:
    alarm = Alarm(limits)
    parts = []
    last_s = -np.inf
    edges: list[Edge] = []
    for piece in segments(track, period_s=card.period_s, max_gap_s=card.max_gap_s):
        with torch.no_grad():
            x = torch.from_numpy(piece.x).unsqueeze(1)  # (T, 1, C)
            score, contribution, expected, *_ = detector(x, *detector.fresh_state(1))
        scores = score[:, 0].numpy()
        scores[: card.warm_up] = np.nan
        is_on = np.zeros(len(scores), bool)
        if (edge := alarm.end(last_s)) is not None:
            edges.append(edge)
        alarm.reset()
        for t, (time_s, value) in enumerate(zip(piece.time_s, scores, strict=True)):
            if (edge := alarm.update(float(time_s), float(value))) is not None:
                edges.append(edge)
            is_on[t] = alarm.is_on
        last_s = float(piece.time_s[-1])
        parts.append((piece, scores, contribution[:, 0].numpy(), expected[:, 0].numpy(), is_on))
    pieces = [part[0] for part in parts]
    whole = Track(
        track.stream,
        np.concatenate([p.time_s for p in pieces]),
        np.concatenate([p.x for p in pieces]),
        None if track.label is None else np.concatenate([p.label for p in pieces]),
    )
    score, contribution, expected, on = (np.concatenate([p[i] for p in parts]) for i in range(1, 5))
    return ScoredTrack(whole, score, contribution, expected, on, tuple(edges))


def _faults(one: ScoredTrack) -> list[FaultFound]:
    """Every run of one label, and when the alarm was first on within it."""
    label, time_s = one.track.label, one.track.time_s
    if label is None or not len(label):
        return []
    starts = np.flatnonzero(np.concatenate([[True], label[1:] != label[:-1]]))
    ends = np.append(starts[1:], len(label))
    found = []
    for start, end in zip(starts, ends, strict=True):
        if label[start] == "":
            continue
        on = np.flatnonzero(one.is_on[start:end])
        found.append(
            FaultFound(
                stream=one.track.stream,
                label=str(label[start]),
                start_s=float(time_s[start]),
                end_s=float(time_s[end - 1]),
                delay_s=float(time_s[start + on[0]] - time_s[start]) if len(on) else None,
            )
        )
    return found


def _columns(card: Card, recording: Recording) -> list[int]:
    """Where the card's channels are in the recording, by name."""
    if missing := [name for name in card.channel_names if name not in recording.channels]:
        raise EdgernnError(
            f"channel {', '.join(missing)} is missing: the detector has "
            f"{', '.join(card.channel_names)}, the recording {', '.join(recording.channels)}"
        )
    return [recording.channels.index(name) for name in card.channel_names]


def _quadrants(
    on: NDArray[np.bool_], faulty: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """TP, FP, FN, TN."""
    return [(on, faulty), (on, ~faulty), (~on, faulty), (~on, ~faulty)]


def _period(track: Track) -> float:
    return float(np.median(np.diff(track.time_s))) if len(track.time_s) > 1 else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
