"""Calibration: surprise on healthy data → the probability of such a surprise, with its far tail."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import genpareto

from edgernn.card import KNOTS, Tail
from edgernn.errors import EdgernnError

FEWEST_SAMPLES = 200
"""With fewer there are not twenty exceedances to fit a tail to."""
EXCEEDANCES = 200
"""Samples the tail is fitted to, within the shares below."""
SMALLEST_SHARE, LARGEST_SHARE = 0.02, 0.1
"""Of all samples above the tail's threshold: enough to fit, few enough to be a tail."""
SHAPE_RANGE = (0.01, 0.5)
"""ξ ≤ 0 would promise that nothing beyond some bound ever happens; above 0.5 the tail has no
variance, which healthy sensors do not show and short recordings seem to. The floor rises to 1/n
with n independent exceedances: with its scale unknown, an exponential tail's posterior predictive
is a Pareto of that shape, so a short recording gets a heavier tail."""


class Prior(NamedTuple):
    """What surprise is like before any is seen: exponential above an offset."""

    offset: float
    scale: float
    samples: float
    """Independent ones that it is worth."""


def fit_tail(
    view: str, series: Sequence[NDArray[np.float64]], *, prior: Prior | None = None
) -> Tail:
    """Fit one view's tail to healthy surprise.

    `series`: one array (T,) per contiguous stretch, NaN where there was nothing to be surprised at.
    Peaks over threshold with a generalised Pareto tail, maximum likelihood (Coles 2001, ch. 4).
    With a `prior` quantiles and the tail's mean excess are means of what was seen and of it,
    weighted by independent samples, and the tail is exponential: of a short recording with long
    clusters little more is known. Raises EdgernnError if there is too little.
    """
    surprise = np.concatenate([s[np.isfinite(s)] for s in series]) if series else np.empty(0)
    if len(surprise) < FEWEST_SAMPLES:
        raise EdgernnError(
            f"calibration: {len(surprise)} healthy samples, at least {FEWEST_SAMPLES} are needed; "
            "record longer"
        )
    share = float(np.clip(EXCEEDANCES / len(surprise), SMALLEST_SHARE, LARGEST_SHARE))
    probabilities = np.geomspace(0.5, share, KNOTS - 1)
    quantiles = np.quantile(surprise, 1 - probabilities)
    threshold = float(quantiles[-1])
    theta = extremal_index(series, threshold)
    excess = surprise[surprise > threshold] - threshold
    if prior is None:
        shape, scale = _fit_pareto(excess, independent=theta * len(excess))
    else:
        trust = prior.samples / (prior.samples + theta * len(surprise))
        expected = prior.offset - prior.scale * np.log(probabilities)
        quantiles = (1 - trust) * quantiles + trust * expected
        shape = SHAPE_RANGE[0]
        scale = (1 - trust) * float(excess.sum()) / max(len(excess), 1) + trust * prior.scale
    knots = _strictly_rising(np.concatenate([[0.0], quantiles]))
    return Tail(
        view=view,
        knots=tuple(float(knot) for knot in knots),
        scores=(0.0, *(float(-math.log10(p)) for p in probabilities)),
        shape=shape,
        scale=scale,
        extremal_index=theta,
    )


def extremal_index(series: Sequence[NDArray[np.float64]], threshold: float) -> float:
    """θ by the intervals estimator of Ferro and Segers (2003): 1 = lone exceedances, small = long
    clusters. 1.0 if there are too few exceedances to say."""
    gaps = np.concatenate(
        [np.diff(np.flatnonzero(np.nan_to_num(s, nan=0.0) > threshold)) for s in series]
    ).astype(float)
    if len(gaps) < 2:
        return 1.0
    if gaps.max() <= 2:  # the estimator cannot tell one long cluster from none: count
        clusters = sum(bool((np.nan_to_num(s, nan=0.0) > threshold).any()) for s in series)
        theta = clusters / (len(gaps) + clusters)
    else:
        theta = 2 * (gaps - 1).sum() ** 2 / (len(gaps) * ((gaps - 1) * (gaps - 2)).sum())
    return float(np.clip(theta, 0.01, 1.0))


def _fit_pareto(excess: NDArray[np.float64], *, independent: float) -> tuple[float, float]:
    """Shape ξ within `SHAPE_RANGE`, its floor raised to 1/independent, and scale σ."""
    low, high = SHAPE_RANGE
    low = min(max(low, 1 / max(independent, 1.0)), high)
    if len(excess) < 2 or excess.max() <= 0:  # a view that never moved: any surprise is one
        return low, 1e-6
    shape, _, scale = genpareto.fit(excess, 0.1, floc=0, scale=excess.mean())
    if not low <= shape <= high:
        shape = float(np.clip(shape, low, high))
        _, _, scale = genpareto.fit(excess, f0=shape, floc=0, scale=excess.mean())
    return float(shape), float(max(scale, 1e-6))


def _strictly_rising(knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ties (a surprise that is 0 half the time) spread apart by what float32 can tell."""
    step = max(1e-6, 1e-6 * float(knots[-1]))
    return np.maximum.accumulate(knots + step * np.arange(len(knots)))
