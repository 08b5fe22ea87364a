"""How well scores tell faults from health, whatever the threshold: areas under curves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

Floats = NDArray[np.float64]
Scores = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranking:
    """What every threshold would give, with the labels in sight."""

    auc_pr: float
    """Average precision: Σ (R_k − R_k−1) P_k. A score that knows nothing gets the faulty share."""
    auc_roc: float
    best_f1: float
    """The highest F1 that any threshold reaches."""
    best_f1_threshold: float
    best: int
    """Its place in `recall` and `precision`."""
    recall: Floats
    """(K,) falling, with `precision`: one point a threshold, the curve's end at recall 0."""
    precision: Floats
    false_alarm_rate: Floats
    """(J,) rising, with `hit_rate`: one point a threshold, from 0 to 1."""
    hit_rate: Floats


def rank(score: Scores, faulty: Bools) -> Ranking | None:
    """Rows (T,) ranked by score against labels (T,). Rows without a score (NaN) do not count;
    None where the rest is all healthy or all faulty, so that there is nothing to tell apart."""
    counts = np.isfinite(score)
    score, faulty = score[counts], faulty[counts]
    if faulty.all() or not faulty.any():
        return None
    precision, recall, thresholds = precision_recall_curve(faulty, score)
    far, hit_rate, _ = roc_curve(faulty, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))  # the last point has no threshold
    return Ranking(
        auc_pr=float(average_precision_score(faulty, score)),
        auc_roc=float(roc_auc_score(faulty, score)),
        best_f1=float(f1[best]),
        best_f1_threshold=float(thresholds[best]),
        best=best,
        recall=recall,
        precision=precision,
        false_alarm_rate=far,
        hit_rate=hit_rate,
    )
