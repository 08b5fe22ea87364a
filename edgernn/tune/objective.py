"""What one trial is worth: a training file trained, and its detector judged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgernn.alarm import Limits
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.evaluate import ScoredTrack, measure, score_recording
from edgernn.layout import Columns
from edgernn.recording import Recording, read_recording
from edgernn.run import EpochLoss, Run
from edgernn.stretches import read_recordings
from edgernn.train import train

Cost = Callable[[Run], float]
"""What a detector costs the device; a function of a module, so that workers can be sent it."""


@dataclass(frozen=True, slots=True)
class Objective:
    """How every trial of a study is judged."""

    quality: str
    """One of `edgernn.tune.study.QUALITIES`."""
    base: Path
    """The folder that recordings' paths lead from."""
    labelled: Path | None
    """Recording that "auc_pr" and "f1" are measured on."""
    columns: Columns
    """Of that recording."""
    cost: Cost | None
    """The second objective."""


class Judged(NamedTuple):
    """Of a trial that was trained to its end."""

    values: tuple[float, ...]
    """In the order of the study's objectives."""
    epochs: int


def judge(objective: Objective, config: Config, on_epoch: Callable[[EpochLoss], None]) -> Judged:
    """Train and calibrate as `edgernn train` would, and judge what came out."""
    recording = read_recordings(config, objective.base)
    run, losses = train(config, recording, name="trial", on_epoch=on_epoch)
    if objective.quality == "loss":
        quality = min(row.validation for row in losses)
    else:
        quality = _against_labels(objective, run)
    costs = () if objective.cost is None else (objective.cost(run),)
    return Judged((quality, *costs), len(losses))


def read_labelled(objective: Objective, *, period_s: float) -> Recording:
    """The recording to choose by. Raises EdgernnError unless it has faulty and healthy rows."""
    assert objective.labelled is not None
    recording = read_recording(objective.labelled, columns=objective.columns, period_s=period_s)
    labels = [track.label != "" for track in recording.tracks if track.label is not None]
    if not labels or len(np.unique(np.concatenate(labels))) < 2:
        raise EdgernnError(
            f"{objective.labelled}: expected rows labelled as faults beside healthy ones, for "
            f"quality {objective.quality!r} is measured on them"
        )
    return recording


def average_precision(score: NDArray[np.float64], faulty: NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve, as the sum of precision × gain in recall over all
    thresholds (Davis and Goadrich 2006 on why not a trapezoid). score, faulty (T,), no NaN."""
    order = np.argsort(-score, kind="stable")
    score, faulty = score[order], faulty[order]
    last = np.append(score[1:] != score[:-1], True)  # of each run of equal scores
    found = np.cumsum(faulty)[last]
    flagged = np.flatnonzero(last) + 1
    gain = np.diff(found, prepend=0) / faulty.sum()
    return float((gain * found / flagged).sum())


def _against_labels(objective: Objective, run: Run) -> float:
    labelled = read_labelled(objective, period_s=run.card.period_s)
    limits = Limits.from_rule(run.card.alarm, run.card)
    scored = score_recording(run.detector, run.card, labelled, limits)
    if objective.quality == "f1":
        return measure(scored, aftermath_s=run.card.warm_up * run.card.period_s).f1
    score, faulty = (np.concatenate(part) for part in zip(*map(_rows, scored), strict=True))
    if len(np.unique(faulty)) < 2:
        raise EdgernnError(
            f"{objective.labelled}: after a warm-up of {run.card.warm_up} samples not both healthy "
            f"and faulty rows are left"
        )
    return average_precision(score, faulty)


def _rows(one: ScoredTrack) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score and label of the rows that have a score, both (T,)."""
    label = one.track.label
    faulty = np.zeros(len(one.score), bool) if label is None else label != ""
    known = np.isfinite(one.score)
    return one.score[known].astype(np.float64), faulty[known]
