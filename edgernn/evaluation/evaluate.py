"""A recording scored as the device will score it, alarms included."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.alarm import Alarm, Edge, Limits
from edgernn.card import Card
from edgernn.errors import EdgernnError
from edgernn.nets.model import Exportable
from edgernn.recording import Recording, Track, check_dated, segments
from edgernn.training.stretches import blocks

Floats = NDArray[np.float32]

BLOCK = 4096
"""Samples that run through the detector at a time, states carried on: memory stays flat, and chunk
invariance says that the scores do not change."""


@dataclass(frozen=True, slots=True)
class ScoredTrack:
    """One stream's samples, on the detector's period, with everything said of them.

    Row t is about sample t, also where the detector needs later samples before it speaks of it.
    """

    track: Track
    score: Floats
    """(T,) NaN while warming up, where nothing was observed, and for a detector with a delay at
    the end of a piece, of which it never came to speak."""
    contribution: Floats
    """(T, C)"""
    expected: Floats
    """(T, C) in sensor units."""
    is_on: NDArray[np.bool_]
    """(T,) whether the alarm is on."""
    threshold: NDArray[np.float64]
    """(T,) the score at which the alarm goes on, or went on."""
    edges: tuple[Edge, ...]
    """In sample times, as in alerts."""
    lag_s: float = 0.0
    """How much later than its sample a score is there: the detector's delay."""


def score_recording(
    detector: Exportable, card: Card, recording: Recording, limits: Limits
) -> list[ScoredTrack]:
    """Stream a recording through the detector. Raises EdgernnError if its channels do not fit."""
    columns = find_columns(card, recording)
    return [
        _score_track(detector, card, Track(t.stream, t.time_s, t.x[:, columns], t.label), limits)
        for t in recording.tracks
    ]


def _score_track(detector: Exportable, card: Card, track: Track, limits: Limits) -> ScoredTrack:
    alarm = Alarm(limits)
    parts = []
    last_s = -np.inf
    edges: list[Edge] = []
    for piece in segments(track, period_s=card.period_s, max_gap_s=card.max_gap_s):
        score, contribution, expected = _run(detector, card, piece)
        is_on, threshold = np.zeros(len(score), bool), np.zeros(len(score))
        if (edge := alarm.end(last_s)) is not None:
            edges.append(edge)
        alarm.reset()
        for t, (time_s, value) in enumerate(
            zip(piece.time_s.tolist(), score.tolist(), strict=True)
        ):
            if (edge := alarm.update(time_s, value)) is not None:
                edges.append(edge)
            is_on[t], threshold[t] = alarm.is_on, alarm.threshold
        last_s = float(piece.time_s[-1])
        parts.append((piece, score, contribution, expected, is_on, threshold))
    pieces = [part[0] for part in parts]
    whole = Track(
        track.stream,
        np.concatenate([p.time_s for p in pieces]),
        np.concatenate([p.x for p in pieces]),
        None if track.label is None else np.concatenate([p.label for p in pieces]),
    )
    score, contribution, expected = (np.concatenate([p[i] for p in parts]) for i in range(1, 4))
    return ScoredTrack(
        whole,
        score,
        contribution,
        expected,
        is_on=np.concatenate([part[4] for part in parts]),
        threshold=np.concatenate([part[5] for part in parts]),
        edges=tuple(edges),
        lag_s=card.delay * card.period_s,
    )


@torch.no_grad()
def _run(detector: Exportable, card: Card, piece: Track) -> tuple[Floats, Floats, Floats]:
    """One piece from a fresh state → score (T,), contribution and expected (T, C) of each sample:
    what comes with sample t is about sample t − delay."""
    state = detector.fresh_state(1)
    parts = []
    for block, first_s in blocks(piece, BLOCK, detector.step_s):  # (≤ BLOCK, 1, C)
        state = detector.set_clock(state, first_s)
        score, contribution, expected, *rest = detector(block, *state)
        state = tuple(rest)
        parts.append((score[:, 0].numpy(), contribution[:, 0].numpy(), expected[:, 0].numpy()))
    score, contribution, expected = (np.concatenate([p[i] for p in parts]) for i in range(3))
    score[: card.warm_up] = np.nan
    delay = card.delay
    return _shifted(score, delay), _shifted(contribution, delay), _shifted(expected, delay)


def _shifted(said: Floats, delay: int) -> Floats:
    """(T, …) moved up by `delay` rows, NaN at the end."""
    unknown = np.full_like(said[:delay], np.nan)
    return np.concatenate([said[delay:], unknown])[: len(said)]


def find_columns(card: Card, recording: Recording) -> list[int]:
    """Where the card's channels are in the recording, by name. Raises EdgernnError if they are not
    all there, or a detector that goes by the time has no dates to go by."""
    if any(state.is_clock for state in card.states):
        check_dated(recording, f"{card.name} goes by the time")
    if missing := [name for name in card.channel_names if name not in recording.channels]:
        raise EdgernnError(
            f"channel {', '.join(missing)} is missing: the detector has "
            f"{', '.join(card.channel_names)}, the recording {', '.join(recording.channels)}"
        )
    return [recording.channels.index(name) for name in card.channel_names]
