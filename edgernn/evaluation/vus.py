"""Areas under curves, and volumes under surfaces, with labels that fade out around every fault.

Paparrizos et al., PVLDB 15(11), 2022, in the form of TSB-AD (Liu and Paparrizos, NeurIPS 2024): at
width w a row at distance d ≤ w/2 from a fault is faulty by √(1 − d/w), and recall is multiplied by
the share of faults that are touched at all. One width gives the range-AUC, the mean over the widths
0 … W the VUS.
"""

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.spans import runs

Floats = NDArray[np.float64]
Scores = NDArray[np.floating]
Bools = NDArray[np.bool_]

THRESHOLDS = 250
"""Spread evenly over the ranks of the scores, as in TSB-AD."""
LONGEST_LAG, NARROWEST, WIDEST, USUAL_WIDTH, ROWS_LOOKED_AT = 400, 6, 303, 125, 20_000
"""Of `soft_width`: lags searched, widths allowed, width where there is no cycle; as TSB-AD's
`find_length_rank` comes to, which holds 3 to 300 against the place of a lag after lag 3."""


class Areas(msgspec.Struct, frozen=True):
    pr: float
    """Average precision: under precision over recall."""
    roc: float
    """Under recall over the false-alarm rate, by trapezoids, the last one to (1, 1)."""


def vus_pr(score: Scores, faulty: Bools, *, window: int) -> float | None:
    """Volume under the precision-recall surface; as `vus`."""
    volumes = vus(score, faulty, window=window)
    return None if volumes is None else volumes.pr


def vus(score: Scores, faulty: Bools, *, window: int) -> Areas | None:
    """Volumes under both surfaces: the mean of `range_auc` over the widths 0 … `window`."""
    each = _areas(score, faulty, range(window + 1))
    if each is None:
        return None
    pr, roc = np.mean([(areas.pr, areas.roc) for areas in each], axis=0)
    return Areas(float(pr), float(roc))


def range_auc(score: Scores, faulty: Bools, *, width: int) -> Areas | None:
    """Areas under both curves with labels that fade over `width` rows, half on either side.

    score (T,), NaN = the row does not count, and a fault of such rows alone neither; faulty (T,).
    Rows are in order of time; between streams stand more than `width` rows of NaN. None where the
    rows that count are all healthy or all faulty.
    """
    each = _areas(score, faulty, [width])
    return None if each is None else each[0]


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


def _areas(score: Scores, faulty: Bools, widths: Iterable[int]) -> list[Areas] | None:
    """Of each width; None where there is nothing to tell apart."""
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
    rows_total, faulty_total = float(counts.sum()), float(certain.sum())
    areas = []
    for width in widths:
        reach = np.arange(1, width // 2 + 1)
        fading = np.sqrt(1 - reach / width) if width else reach
        near = np.concatenate([starts[:, None] - reach, ends[:, None] - 1 + reach]).ravel()
        weight = np.tile(fading, 2 * len(starts))
        inside = (near >= 0) & (near < len(score))
        soft = np.bincount(near[inside], weight[inside], minlength=len(score))
        rows = np.flatnonzero((soft > 0) & ~faulty)
        soft_hits = _reached(first[rows], np.minimum(soft[rows], 1.0))
        true = hits + soft_hits
        positive = faulty_total + soft_hits / 2
        recall = np.minimum(true / positive, 1.0)
        recall = recall * _touched(first, starts, ends, reach=width // 2)
        far = (predicted - true) / (rows_total - positive)
        pr = np.sum(np.diff(recall, prepend=0.0) * true / predicted)
        height, across = np.concatenate([[0], recall, [1]]), np.concatenate([[0], far, [1]])
        roc = np.sum(np.diff(across) * (height[1:] + height[:-1]) / 2)
        areas.append(Areas(float(pr), float(roc)))
    return areas


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
