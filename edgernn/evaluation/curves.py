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

from edgernn.spans import runs

Floats = NDArray[np.float64]
Scores = NDArray[np.floating]
Bools = NDArray[np.bool_]

THRESHOLDS = 250
"""Of the volume under the surface, spread evenly over the ranks of the scores, as in TSB-AD."""
LONGEST_LAG, NARROWEST, WIDEST, USUAL_WIDTH, ROWS_LOOKED_AT = 400, 6, 303, 125, 20_000
"""Of `soft_width`: lags searched, widths allowed, width where there is no cycle; as TSB-AD's
`find_length_rank` comes to, which holds 3 to 300 against the place of a lag after lag 3."""


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


def vus_pr(score: Scores, faulty: Bools, *, window: int) -> float | None:
    """Volume under the precision-recall surface: average precision with labels that fade out
    around every fault, averaged over the widths 0 … `window` of the fading.

    score (T,), NaN = the row does not count, and a fault of such rows alone neither; faulty (T,).
    Rows are in order of time; between streams stand more than `window` rows of NaN.
    None where `rank` is. Paparrizos et al., PVLDB 15(11), 2022, in the form of TSB-AD (Liu and
    Paparrizos, NeurIPS 2024): at width w a row at distance d ≤ w/2 from a fault is faulty by
    √(1 − d/w), recall is multiplied by the share of faults that are touched at all.
    """
    counts = np.isfinite(score)
    certain = faulty & counts
    if not certain.any() or certain.sum() == counts.sum():
        return None
    starts, ends = runs(faulty)
    is_seen = np.add.reduceat(np.append(counts, False), np.stack([starts, ends], 1).ravel())[::2]
    starts, ends = starts[is_seen > 0], ends[is_seen > 0]

    ordered = np.sort(score[counts])[::-1]
    thresholds = ordered[np.linspace(0, len(ordered) - 1, THRESHOLDS).astype(int)]
    first = np.searchsorted(-thresholds, -score)  # (T,) the first threshold that a row reaches
    first = np.append(np.where(counts, first, THRESHOLDS), THRESHOLDS)
    predicted = _reached(first)
    hits = _reached(first[:-1][certain])
    areas = []
    for width in range(window + 1):
        reach = np.arange(1, width // 2 + 1)
        fading = np.sqrt(1 - reach / width) if width else reach
        near = np.concatenate([starts[:, None] - reach, ends[:, None] - 1 + reach]).ravel()
        weight = np.tile(fading, 2 * len(starts))
        inside = (near >= 0) & (near < len(score))
        soft = np.bincount(near[inside], weight[inside], minlength=len(score))
        rows = np.flatnonzero((soft > 0) & ~faulty)
        soft_hits = _reached(first[rows], np.minimum(soft[rows], 1.0))
        true = hits + soft_hits
        recall = np.minimum(true / (certain.sum() + soft_hits / 2), 1.0)
        recall = recall * _touched(first, starts, ends, reach=width // 2)
        areas.append(np.sum(np.diff(recall, prepend=0.0) * true / predicted))
    return float(np.mean(areas))


def soft_width(x: Scores) -> int:
    """How far the labels fade in `vus_pr`: the cycle of a channel (T,), in rows.

    The lag of the highest local maximum of the autocorrelation, 125 where that is not from 6 to 303
    or there is none. Missing values count as the mean.
    """
    x = np.asarray(x[:ROWS_LOOKED_AT], np.float64)
    if not np.isfinite(x).any():
        return USUAL_WIDTH
    x = np.where(np.isfinite(x), x - np.nanmean(x), 0.0)
    spectrum = np.fft.rfft(x, 2 * len(x))
    together = np.fft.irfft(np.abs(spectrum) ** 2)[3 : min(LONGEST_LAG + 1, len(x))]  # lags 3 …
    peaks = np.flatnonzero((together[1:-1] > together[:-2]) & (together[1:-1] > together[2:])) + 1
    if not len(peaks):
        return USUAL_WIDTH
    lag = int(peaks[np.argmax(together[peaks])]) + 3
    return lag if NARROWEST <= lag <= WIDEST else USUAL_WIDTH


def _reached(first: NDArray[np.intp], weight: Floats | None = None) -> Floats:
    """Rows, or their weight, at or above each threshold (K,)."""
    counts = np.bincount(first, weight, minlength=THRESHOLDS + 1)
    return np.cumsum(counts[:THRESHOLDS]).astype(np.float64)


def _touched(
    first: NDArray[np.intp], starts: NDArray[np.intp], ends: NDArray[np.intp], *, reach: int
) -> Floats:
    """Share of the faults, widened by `reach` rows and joined where they then meet, with a row at
    or above each threshold (K,)."""
    is_apart = ends[:-1] - 1 + reach < starts[1:] - reach
    opens = np.maximum(starts[np.append(True, is_apart)] - reach, 0)
    closes = np.minimum(ends[np.append(is_apart, True)] + reach, len(first) - 1)
    lowest = np.minimum.reduceat(first, np.stack([opens, closes], 1).ravel())[::2]
    return _reached(lowest) / len(lowest)
