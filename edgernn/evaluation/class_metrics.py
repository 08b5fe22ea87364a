"""Classes against labels: accuracy, precision and recall of each class, the confusion matrix."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.card import Card
from edgernn.errors import EdgernnError
from edgernn.evaluation.evaluate import BLOCK, find_columns
from edgernn.nets.model import Model
from edgernn.recording import Recording, Track, segments
from edgernn.training.lessons import classes_of
from edgernn.training.stretches import blocks

Words = NDArray[np.str_]


class ClassScore(msgspec.Struct, frozen=True):
    """One class against all others. None where there is nothing to count."""

    name: str
    rows: int
    """That are truly of it."""
    precision: float | None
    recall: float | None
    f1: float | None


class ClassMetrics(msgspec.Struct, frozen=True):
    """Over rows that were observed and not in warm-up."""

    rows: int
    accuracy: float
    balanced_accuracy: float
    """Mean recall of the classes that are there: guessing reaches 1/L."""
    classes: tuple[ClassScore, ...]
    confusion: dict[str, dict[str, int]]
    """True class → said class → rows. A label that was not learnt is a true class, too."""


def measure_classes(model: Model, card: Card, recording: Recording) -> ClassMetrics:
    """Run a recording through a classifier as the device will, sample by sample, and compare.

    Raises EdgernnError for one without labels, or whose channels do not fit.
    """
    if any(track.label is None for track in recording.tracks):
        raise EdgernnError("the recording has no labels to compare classes with")
    columns = find_columns(card, recording)
    counts: Counter[tuple[str, str]] = Counter()
    for track in recording.tracks:
        for piece in segments(track, period_s=card.period_s, max_gap_s=card.max_gap_s):
            cut = Track(piece.stream, piece.time_s, piece.x[:, columns], piece.label)
            counts.update(zip(*_true_and_said(model, card, cut), strict=True))
    if not counts:
        raise EdgernnError(
            f"the recording is too short: nothing is left after {card.warm_up} samples of warm-up"
        )
    others = sorted({true for true, _ in counts} - set(card.classes))
    confusion = {
        true: {said: counts[true, said] for said in card.classes}
        for true in (*card.classes, *others)
    }
    return _metrics(confusion, card.classes)


def class_lines(metrics: ClassMetrics) -> str:
    """For a person."""
    width = max(len(name) for name in metrics.confusion)
    lines = [
        f"{metrics.rows:,} rows: accuracy {metrics.accuracy:.3f}, mean recall of the classes "
        f"{metrics.balanced_accuracy:.3f}",
        f"  {'class':<{width}}  precision  recall     F1    rows",
    ]
    for one in metrics.classes:
        cells = (_cell(value) for value in (one.precision, one.recall, one.f1))
        precision, recall, f1 = cells
        lines.append(f"  {one.name:<{width}}  {precision:>9}  {recall:>6}  {f1:>5}  {one.rows:>6}")
    lines.append("rows that are … and were said to be …")
    said = [one.name for one in metrics.classes]
    cells_wide = [max(len(name), 6) for name in said]
    heads = (f"{name:>{wide}}" for name, wide in zip(said, cells_wide, strict=True))
    lines.append(f"  {'':<{width}}  {'  '.join(heads)}")
    for true, row in metrics.confusion.items():
        numbers = (f"{row[name]:>{wide}}" for name, wide in zip(said, cells_wide, strict=True))
        lines.append(f"  {true:<{width}}  {'  '.join(numbers)}")
    return "\n".join(lines)


@torch.no_grad()
def _true_and_said(model: Model, card: Card, piece: Track) -> tuple[list[str], list[str]]:
    """Of each sample that was observed: its label, and the likeliest class. What comes with row t
    is about row t − delay."""
    state = model.fresh_state(1)
    parts = []
    for block, first_s in blocks(piece, BLOCK, model.step_s):  # (≤ BLOCK, 1, C)
        said_of_block, *rest = model(block, *model.set_clock(state, first_s))
        state = tuple(rest)
        parts.append(said_of_block[:, 0].numpy())
    probability = np.concatenate(parts)[card.warm_up :]  # (·, L)
    about = slice(card.warm_up - card.delay, len(piece.x) - card.delay)
    true: Words = classes_of(piece)[about]
    is_known = np.isfinite(probability).all(axis=-1)
    said = np.array(card.classes)[probability[is_known].argmax(axis=-1)]
    return true[is_known].tolist(), said.tolist()


def _metrics(confusion: dict[str, dict[str, int]], names: Sequence[str]) -> ClassMetrics:
    rows = sum(sum(row.values()) for row in confusion.values())
    right = {name: confusion[name][name] for name in names}
    scores = []
    for name in names:
        there, said = sum(confusion[name].values()), sum(row[name] for row in confusion.values())
        scores.append(
            ClassScore(
                name=name,
                rows=there,
                precision=_share(right[name], said),
                recall=_share(right[name], there),
                f1=_share(2 * right[name], there + said),
            )
        )
    recalls = [one.recall for one in scores if one.recall is not None]
    return ClassMetrics(
        rows=rows,
        accuracy=sum(right.values()) / rows,
        balanced_accuracy=float(np.mean(recalls)) if recalls else 0.0,
        classes=tuple(scores),
        confusion=confusion,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
