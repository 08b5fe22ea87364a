"""Blocked cross-validation over time: how much hangs on which healthy stretch was learnt from?"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from edgernn.alarm import Limits
from edgernn.card import AlarmRule
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.evaluation.evaluate import BLOCK, score_recording
from edgernn.evaluation.metrics import measure
from edgernn.nets.detector import Detector
from edgernn.recording import Recording, Track, segments
from edgernn.spill import IN_MEMORY, Spill
from edgernn.training.stretches import blocks
from edgernn.training.train import train

Numbers = dict[str, float | None]

SHORTEST_BLOCK = 2
"""Warm-ups in a block, at least: half of its samples are scored."""
ON_SOURCE = (
    "precision",
    "recall",
    "f1",
    "auc_pr",
    "auc_roc",
    "vus_pr",
    "best_f1",
    "faults_found",
    "on_already",
    "median_delay_s",
    "false_alarms_per_day",
)
"""Of the metrics on a labelled recording: what is compared between folds."""


class Block(NamedTuple):
    """One fold's samples."""

    learnt_from: Recording
    held_out: Recording
    """Labelled as healthy throughout."""


class Folds(msgspec.Struct, frozen=True):
    """What the detectors of all folds came to, by the names of the numbers."""

    folds: tuple[Numbers, ...]
    mean: Numbers
    std: Numbers
    """Standard deviation with n − 1 over the folds that have the number; None for fewer than 2."""


def cut(recording: Recording, folds: int, *, warm_up: int) -> list[Block]:
    """Cut a healthy recording along time into blocks of as many samples each.

    All streams are cut at the same moments, so that what happens to all at once is never on both
    sides. A fold learns from what is before its block and from what is after it, as tracks that
    are not joined, and not from the `warm_up` samples on either side of the block: neighbours in
    time know each other. Raises EdgernnError for fewer than two folds, or more than data for them.
    """
    times = np.sort(np.concatenate([track.time_s for track in recording.tracks]))
    most = len(times) // (SHORTEST_BLOCK * max(warm_up, 1))
    if not 2 <= folds <= most:
        allowed = f"expected 2–{most}" if most >= 2 else "the recording is too short for any"
        raise EdgernnError(
            f"--folds: {allowed}, got {folds}; there are {len(times):,} healthy samples, and a "
            f"block needs {SHORTEST_BLOCK * max(warm_up, 1)}, half of them to warm up"
        )
    bounds = [-np.inf, *times[len(times) * np.arange(1, folds) // folds].tolist(), np.inf]
    gap_s = warm_up * recording.period_s
    return [
        Block(
            _between(recording, (-np.inf, first - gap_s), (last + gap_s, np.inf)),
            _between(recording, (first, last)),
        )
        for first, last in pairwise(bounds)
    ]


def cross_validate(
    config: Config,
    blocks: Sequence[Block],
    *,
    rule: AlarmRule,
    source: Recording | None,
    on_fold: Callable[[], object] = lambda: None,
    spill: Spill = IN_MEMORY,
) -> Folds:
    """Train a detector for every block on the others and hear what it says of the block, and of
    `source`, a recording with labels, if there is one. `spill` keeps the blocks' samples."""
    folds: list[Numbers] = []
    for number, block in enumerate(blocks, start=1):
        try:
            folds.append({"fold": number, **_try_out(config, block, rule, source, spill)})
        except EdgernnError as exc:
            raise EdgernnError(f"--folds: fold {number} of {len(blocks)}: {exc}") from exc
        on_fold()
    names = [name for name in folds[0] if name != "fold"]
    known = {name: [v for fold in folds if (v := fold[name]) is not None] for name in names}
    return Folds(
        tuple(folds),
        mean={name: float(np.mean(values)) if values else None for name, values in known.items()},
        std={
            name: float(np.std(values, ddof=1)) if len(values) > 1 else None
            for name, values in known.items()
        },
    )


def write_folds(folder: Path, folds: Folds) -> None:
    """folds.json, and folds.csv with a row a fold."""
    (folder / "folds.json").write_bytes(msgspec.json.format(msgspec.json.encode(folds)))
    with (folder / "folds.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(folds.folds[0]))
        writer.writeheader()
        writer.writerows(folds.folds)


def _try_out(
    config: Config, block: Block, rule: AlarmRule, source: Recording | None, spill: Spill
) -> Numbers:
    with spill.beside() as own:
        run, _ = train(config, block.learnt_from, name="fold", spill=own)
    card, limits = run.card, Limits.from_rule(rule, run.card)
    scored = score_recording(run.scorer, card, block.held_out, limits)
    healthy = measure(scored, aftermath_s=0)
    if not healthy.scored_rows:
        raise EdgernnError(
            f"not one sample of the block is scored: its pieces are all shorter than the warm-up "
            f"of {card.warm_up} samples; ask for fewer folds"
        )
    pieces = [
        piece
        for track in block.held_out.tracks
        for piece in segments(track, period_s=card.period_s, max_gap_s=card.max_gap_s)
    ]
    numbers: Numbers = {
        "held_out_hours": healthy.scored_hours,
        "loss": _loss(run.model, pieces) if isinstance(run.model, Detector) else None,
        "threshold": limits.enter,
        "false_alarms": healthy.false_alarms,
        "false_alarms_per_day": healthy.false_alarms_per_day,
        "false_alarm_rate": healthy.false_alarm_rate,
    }
    if source is not None:
        scored = score_recording(run.scorer, card, source, limits)
        found = measure(scored, aftermath_s=card.warm_up * card.period_s)
        numbers |= {f"source_{name}": getattr(found, name) for name in ON_SOURCE}
    return numbers


@torch.no_grad()
def _loss(detector: Detector, pieces: Iterable[Track]) -> float:
    """Mean negative log-likelihood of a value of contiguous pieces, each from a fresh state."""
    total = count = 0.0
    for piece in pieces:
        state = detector.fresh_state(1)
        for block, first_s in blocks(piece, BLOCK, detector.step_s):
            state = detector.set_clock(state, first_s)
            loss, values, state = detector.loss(block, torch.zeros_like(block), *state)
            total, count = total + loss.item(), count + values.item()
    return total / max(count, 1.0)


def _between(recording: Recording, *spans: tuple[float, float]) -> Recording:
    """The samples in each span of time, from its start and before its end; a track for each."""
    tracks = []
    for track in recording.tracks:
        for start, end in spans:
            rows = slice(*np.searchsorted(track.time_s, (start, end)).tolist())
            if len(time_s := track.time_s[rows]):
                healthy = np.full(len(time_s), "")
                tracks.append(Track(track.stream, time_s, track.x[rows], healthy))
    return replace(recording, tracks=tuple(tracks))
