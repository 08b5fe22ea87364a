"""What one trial is worth: a training file trained, and its detector judged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgernn.alarm import Limits
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.evaluation.evaluate import score_recording
from edgernn.evaluation.metrics import measure
from edgernn.layout import Columns
from edgernn.recording import Recording, read_recording
from edgernn.run import EpochLoss, Run
from edgernn.spill import Spill
from edgernn.training.fit import best_of
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train

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
    scratch: Path
    """The folder that samples are put into that are too many for the memory."""


class Judged(NamedTuple):
    """Of a trial that was trained to its end."""

    values: tuple[float, ...]
    """In the order of the study's objectives."""
    epochs: int


def judge(objective: Objective, config: Config, on_epoch: Callable[[EpochLoss], None]) -> Judged:
    """Train and calibrate as `edgernn train` would, and judge what came out."""
    with Spill(objective.scratch, limit_bytes=config.training.memory_gb * 1e9) as spill:
        recording = read_recordings(config, objective.base, spill)
        run, losses = train(config, recording, name="trial", on_epoch=on_epoch, spill=spill)
    if objective.quality == "loss":
        quality = best_of(losses).validation
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


def _against_labels(objective: Objective, run: Run) -> float:
    labelled = read_labelled(objective, period_s=run.card.period_s)
    limits = Limits.from_rule(run.card.alarm, run.card)
    scored = score_recording(run.scorer, run.card, labelled, limits)
    metrics = measure(scored, aftermath_s=run.card.warm_up * run.card.period_s)
    quality = metrics.f1 if objective.quality == "f1" else metrics.auc_pr
    if quality is None:
        raise EdgernnError(
            f"{objective.labelled}: after a warm-up of {run.card.warm_up} samples not both healthy "
            f"and faulty rows are left"
        )
    return quality
