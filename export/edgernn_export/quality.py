"""What an artefact's decisions lose against the trained model's: on healthy samples, on the proof's
disturbed ones, and on a labelled recording."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.alarm import CRITICAL_ABOVE, Limits
from edgernn.card import Card
from edgernn.errors import EdgernnError
from edgernn.evaluation.curves import rank
from edgernn.evaluation.evaluate import find_columns
from edgernn.recording import Recording, segments
from edgernn.run import Run
from edgernn_device.engine import Engine
from edgernn_export.compare import Floats, count_flips, largest
from edgernn_export.verify import (
    BLOCK,
    STREAMS,
    engine_outputs,
    model_outputs,
    proof_starts,
    proof_stream,
    sampled_every,
)

MOST_HEALTHY = 50_000
"""Samples of the healthy stretch that are looked at."""


class Quality(msgspec.Struct, frozen=True):
    """None: nothing of the kind to count."""

    difference: float
    """Largest, of scores up to the critical level, of probabilities, or of forecasts in standard
    deviations."""
    gained: int | None
    """Alarms that only the artefact raises, at the true threshold."""
    lost: int | None
    auc_pr_loss: float | None
    """Of the labelled recording; below 0 where the artefact is the better."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples that run from fresh states."""

    x: Floats
    """(T, N, C)"""
    times_s: tuple[float, ...]
    """(N,) of the first samples."""
    faulty: NDArray[np.bool_] | None = None
    """(T,) of a labelled recording, which is for AUC-PR alone."""


@dataclass(frozen=True, slots=True)
class Exam:
    """Pieces, and what the trained model says of each."""

    run: Run
    pieces: tuple[Piece, ...]
    truth: tuple[Floats, ...]


def set_exam(run: Run, labelled: Recording | None) -> Exam:
    """The healthy stretch, the proof's disturbed streams and, of an anomaly detector, a recording
    with labels. Raises EdgernnError for one without."""
    pieces = [
        Piece(track.x[:MOST_HEALTHY, None], (float(track.time_s[0]),))
        for track in run.healthy.tracks
    ]
    starts_s = proof_starts(run.healthy, streams=STREAMS)
    pieces.append(Piece(proof_stream(run.healthy, streams=STREAMS), starts_s))
    if labelled is not None:
        pieces += _labelled(run.card, labelled)
    every = sampled_every(run.card)
    truth = []
    for piece in pieces:
        truth.append(_main(run, model_outputs(run.model, piece.x, every, _fresh(run, piece)).said))
    return Exam(run, tuple(pieces), tuple(truth))


def examine(exam: Exam, artefact: bytes, *, sample_by_sample: bool) -> Quality:
    """How an artefact does. `sample_by_sample`: as a device calls it, for one whose results depend
    on what else is in a call; else in blocks, which gives the same and is faster."""
    run, every = exam.run, sampled_every(exam.run.card)
    found: list[Floats] = []
    card = run.card
    for piece in exam.pieces:
        engine = Engine(artefact)
        card = engine.card
        length, size = len(piece.x), 1 if sample_by_sample else BLOCK
        chunks = [min(size, length - start) for start in range(0, length, size)]
        said = engine_outputs(engine, piece.x, chunks, every, _fresh(run, piece)).said
        found.append(_main(run, said))
    pairs = list(zip(exam.pieces, exam.truth, found, strict=True))
    if card.task != "anomaly":
        return Quality(max(largest(a, b) for _, a, b in pairs), None, None, None)
    return _of_scores(run.card, card, pairs)


def _fresh(run: Run, piece: Piece) -> list[Floats]:
    states = run.model.fresh_state(piece.x.shape[1], piece.times_s)
    return [state.numpy() for state in states]


def _of_scores(ours: Card, theirs: Card, pairs: Sequence[tuple[Piece, Floats, Floats]]) -> Quality:
    limits, their_limits = (
        Limits.from_rule(card.alarm, card).without_memory() for card in (ours, theirs)
    )
    level = limits.enter + CRITICAL_ABOVE
    differences, gained, lost = [], 0, 0
    for piece, a, b in pairs:
        if piece.faulty is not None:
            continue
        differences.append(largest(np.minimum(a, level), np.minimum(b, level)))
        for n in range(a.shape[1]):
            more, fewer = count_flips(
                _counted(a[:, n], ours),
                _counted(b[:, n], ours),
                limits,
                their_limits,
                period_s=ours.period_s,
            )
            gained, lost = gained + more, lost + fewer
    return Quality(max(differences), gained, lost, _auc_pr_loss(ours, pairs))


def _auc_pr_loss(card: Card, pairs: Sequence[tuple[Piece, Floats, Floats]]) -> float | None:
    labelled = [(piece.faulty, a, b) for piece, a, b in pairs if piece.faulty is not None]
    if not labelled:
        return None
    delay = card.delay
    faulty = np.concatenate([one[: max(len(one) - delay, 0)] for one, _, _ in labelled])
    areas = []
    for scores in ([a for _, a, _ in labelled], [b for _, _, b in labelled]):
        score = np.concatenate([_counted(one[:, 0], card)[delay:] for one in scores])
        ranking = rank(score, faulty)
        if ranking is None:
            raise EdgernnError(
                f"--labelled: after a warm-up of {card.warm_up} samples not both healthy and "
                "faulty rows are left"
            )
        areas.append(ranking.auc_pr)
    return areas[0] - areas[1]


def _labelled(card: Card, recording: Recording) -> list[Piece]:
    columns = find_columns(card, recording)
    pieces = []
    for track in recording.tracks:
        if track.label is None:
            raise EdgernnError(f"--labelled: stream {track.stream} has no labels")
        for part in segments(track, period_s=card.period_s, max_gap_s=card.max_gap_s):
            assert part.label is not None
            x = np.ascontiguousarray(part.x[:, columns])[:, None]
            pieces.append(Piece(x, (float(part.time_s[0]),), part.label != ""))
    return pieces


def _counted(score: Floats, card: Card) -> Floats:
    """Scores (T,) without those of the warm-up."""
    return np.where(np.arange(len(score)) < card.warm_up, np.float32(math.nan), score)


def _main(run: Run, said: dict[str, Floats]) -> Floats:
    """The one output that decides."""
    match run.card.task:
        case "classify":
            return said["probability"]
        case "forecast":
            scaled: Floats = said["forecast"] / run.model.scale.numpy()
            return scaled
    return said["score"]
