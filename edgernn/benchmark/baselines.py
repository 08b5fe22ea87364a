"""The plain methods that a recurrent detector has to beat, all causal, none with a label."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgernn.benchmark.series import Samples, Series
from edgernn.errors import MissingExtraError

EXPLAINED = 0.9
"""Share of the variance that PCA keeps: the usual choice, also SKAB's for T² and Q."""
LIMIT = 0.99
"""Quantile of what was learnt from that T² and Q are each measured by."""
SHRINKAGE = 0.01
"""Added to the variances, those of standardised channels being 1: channels that go together, or did
not move, would otherwise rule the distance (of 0 to 0.1, on SMD this is best, and GECCO and SKAB do
not care)."""
MEMORY = 200.0
"""Samples after which the exponentially weighted z-score has forgotten all but 1/e."""
RECENT = 20
"""Scores that are averaged."""
UNMOVED = 1e-6
"""Up to this share of its level the spread of a channel is rounding of float32."""

Floats = NDArray[np.float64]


class Baseline(Protocol):
    """`fit` once, then `score` on and on: cut a series wherever you like, the scores are the same.

    No sample changes the score of one before it. NaN is a missing value, and scores NaN where
    nothing was there to be judged: unknown is not healthy. Higher is more anomalous, ≥ 0.
    """

    parts: Floats | None
    """(T, C) ≥ 0, what each channel had in the scores given last, NaN where it was missing; None
    where the method does not tell channels apart."""

    def fit(self, x: Samples) -> None:
        """Learn from (L, C), and forget what was scored."""

    def score(self, x: Samples) -> Floats:
        """(T, C), the samples after those that were scored before → (T,)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a baseline says of a series."""

    learnt: Floats
    """(L,) of the rows that it was given to learn from: for a threshold without labels."""
    score: Floats
    """(T,) of all rows, those of the series that were learnt from included."""


def score_series(baseline: Baseline, series: Series) -> Scores:
    """Fit on what the protocol gives, then score from the first row. A training part is scored
    before it, so that what remembers goes on where that ended."""
    baseline.fit(series.learnable)
    learnt = baseline.score(series.before)
    score = baseline.score(series.x)
    return Scores(learnt if len(learnt) else score[: series.first_rows], score)


class AlwaysOn:
    """Everything is an anomaly, which on SKAB is F1 0.70."""

    parts: Floats | None = None

    def fit(self, x: Samples) -> None:
        """There is nothing to learn."""

    def score(self, x: Samples) -> Floats:
        return np.ones(len(x))


class Random:
    """Even in 0 … 1, which point adjustment rewards with F1 0.84 and more on SMD."""

    parts: Floats | None = None

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, x: Samples) -> None:
        self._chance = np.random.default_rng(self._seed)

    def score(self, x: Samples) -> Floats:
        return self._chance.random(len(x))


class ZScore:
    """The largest channel's distance from its mean, in standard deviations."""

    parts: Floats | None = None

    def fit(self, x: Samples) -> None:
        self._mean, self._spread = _moments(x)

    def score(self, x: Samples) -> Floats:
        self.parts = np.abs(x - self._mean) / self._spread
        return _largest(self.parts)


class Mahalanobis:
    """Distance from the mean in the metric of the covariance, of the channels that are there.
    A channel's part: what its own deviation has in the square of the distance, if not below 0."""

    parts: Floats | None = None

    def fit(self, x: Samples) -> None:
        self._mean, self._spread = _moments(x)
        covariance = _covariance((x - self._mean) / self._spread)
        self._covariance = covariance + SHRINKAGE * np.eye(len(covariance))

    def score(self, x: Samples) -> Floats:
        z = (x - self._mean) / self._spread
        distance = np.full(len(z), np.nan)
        self.parts = np.full(z.shape, np.nan)
        for there, rows in _patterns(z):
            precision = np.linalg.inv(self._covariance[np.ix_(there, there)])
            part = z[np.ix_(rows, there)]  # (R, S)
            shares = part * (part @ precision)
            self.parts[np.ix_(rows, there)] = np.maximum(shares, 0.0)
            distance[rows] = np.sqrt(np.maximum(shares.sum(axis=1), 0.0))
        return distance


class Pca:
    """T² within the main components and Q beside them, each measured by its own limit, and added.

    The combined index of Yue and Qin, Ind. Eng. Chem. Res. 40 (2001), its limits quantiles of what
    was learnt from. A missing channel stands at its mean and adds nothing to Q.
    A channel's part: what its own deviation has in T², if not below 0, and its share of Q.
    """

    parts: Floats | None = None

    def fit(self, x: Samples) -> None:
        self._mean, self._spread = _moments(x)
        variances, axes = np.linalg.eigh(_covariance((x - self._mean) / self._spread))
        variances, axes = np.maximum(variances[::-1], 0.0), axes[:, ::-1]
        share = np.cumsum(variances) / max(variances.sum(), np.finfo(float).tiny)
        kept = int(np.searchsorted(share, EXPLAINED)) + 1
        self._axes = axes[:, :kept]  # (C, K)
        self._variances = np.maximum(variances[:kept], np.finfo(np.float32).eps)
        self._limits = np.ones(2)
        indices = self._indices(x)
        indices = indices[np.isfinite(indices).all(axis=1)]
        if len(indices):
            limits = np.quantile(indices, LIMIT, axis=0)
            self._limits = np.maximum(limits, np.finfo(np.float32).eps)

    def score(self, x: Samples) -> Floats:
        combined: Floats = self._indices(x).sum(axis=1)
        return combined

    def _indices(self, x: Samples) -> Floats:
        """(T, 2): T² and Q, each over its limit."""
        z = (x - self._mean) / self._spread
        there = np.isfinite(z)
        z = np.where(there, z, 0.0)
        along = z @ self._axes  # (T, K)
        beside = np.where(there, z - along @ self._axes.T, 0.0)
        indices = np.stack([(along**2 / self._variances).sum(1), (beside**2).sum(1)], axis=1)
        indices[~there.any(1)] = np.nan
        within = np.maximum(z * (along / self._variances @ self._axes.T), 0.0)
        of_t, of_q = self._limits
        self.parts = np.where(there, within / of_t + beside**2 / of_q, np.nan)
        return indices / self._limits


class Persistence:
    """The largest channel's step from the value it had last, in standard deviations of steps."""

    parts: Floats | None = None

    def fit(self, x: Samples) -> None:
        self._last = np.full(x.shape[1], np.nan)
        self._spread = np.ones(x.shape[1])
        steps = self._steps(x)
        self._spread = _spread(steps, np.zeros(x.shape[1]), level=_moments(x)[0])
        self._last[:] = np.nan

    def score(self, x: Samples) -> Floats:
        self.parts = np.abs(self._steps(x)) / self._spread
        return _largest(self.parts)

    def _steps(self, x: Samples) -> Floats:
        """(T, C) from the last value that was there, which is remembered."""
        values = np.concatenate([self._last[None], x])
        place = np.where(np.isfinite(values), np.arange(len(values))[:, None], 0)
        seen = np.take_along_axis(values, np.maximum.accumulate(place), axis=0)
        self._last = seen[-1].copy()
        steps: Floats = values[1:] - seen[:-1]
        return steps


class RecentMean:
    """The mean of another baseline's last scores: what lasts outweighs what is over at once."""

    parts: Floats | None = None

    def __init__(self, of: Baseline) -> None:
        self._of = of

    def fit(self, x: Samples) -> None:
        self._of.fit(x)
        self._recent = np.full(RECENT - 1, np.nan)

    def score(self, x: Samples) -> Floats:
        score = self._of.score(x)
        values = np.concatenate([self._recent, score])
        self._recent = values[len(score) :]
        if not len(score):
            return score
        means = _mean(np.lib.stride_tricks.sliding_window_view(values, RECENT).T)
        return np.where(np.isfinite(score), means, np.nan)


class ExponentialZScore:
    """The largest channel's distance from a mean that follows it, by a spread that does so too.

    m ← m + a(x − m), v ← (1 − a)(v + a(x − m)²), a sample being judged by what was before it
    (Finch, "Incremental calculation of weighted mean and variance", 2009). What is missing changes
    neither.
    """

    parts: Floats | None = None

    def fit(self, x: Samples) -> None:
        self._start, self._floor = _moments(x)
        self._mean, self._variance = self._start.copy(), self._floor**2
        self._floor = UNMOVED * self._floor

    def score(self, x: Samples) -> Floats:
        z = np.full(x.shape, np.nan)
        for channel, column in enumerate(np.asarray(x, np.float64).T):
            there = np.isfinite(column)
            if there.any():
                z[there, channel] = self._follow(channel, column[there])
        self.parts = z
        return _largest(z)

    def _follow(self, channel: int, x: Floats) -> Floats:
        """(R,) values of one channel, none missing → (R,)."""
        keep = math.exp(-1.0 / MEMORY)
        mean = _filter(
            1 - keep, keep, x, self._mean[channel] if np.isfinite(self._mean[channel]) else x[0]
        )
        away = x - mean[:-1]
        variance = _filter(keep * (1 - keep), keep, away**2, self._variance[channel])
        self._mean[channel], self._variance[channel] = mean[-1], variance[-1]
        distance: Floats = np.abs(away) / np.maximum(np.sqrt(variance[:-1]), self._floor[channel])
        return distance


class IsolationForest:
    """How few cuts at random set a sample apart (Liu et al., ICDM 2008), 0 … 1. A missing value
    stands at its channel's median."""

    parts: Floats | None = None

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, x: Samples) -> None:
        try:
            from sklearn.ensemble import IsolationForest as Forest  # noqa: PLC0415 (an extra)
        except ModuleNotFoundError as exc:
            raise MissingExtraError(
                "the baseline isolation-forest needs pip install 'edgernn[train]'"
            ) from exc
        self._median = np.array(
            [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 0.0 for c in x.T]
        )
        self._forest = Forest(random_state=self._seed).fit(self._filled(x))

    def score(self, x: Samples) -> Floats:
        score = np.full(len(x), np.nan)
        there = np.isfinite(x).any(axis=1)
        if there.any():
            score[there] = -self._forest.score_samples(self._filled(x[there]))
        return score

    def _filled(self, x: Samples) -> Floats:
        filled: Floats = np.where(np.isfinite(x), x, self._median)
        return filled


BASELINES: dict[str, Callable[[int], Baseline]] = {
    "always-on": lambda _: AlwaysOn(),
    "random": Random,
    "z-score": lambda _: ZScore(),
    "mahalanobis": lambda _: Mahalanobis(),
    "pca": lambda _: Pca(),
    "persistence": lambda _: Persistence(),
    "persistence-mean": lambda _: RecentMean(Persistence()),
    "ewma-z-score": lambda _: ExponentialZScore(),
    "isolation-forest": IsolationForest,
}
"""Makers of baselines by name, of a seed."""


def _moments(x: Samples) -> tuple[Floats, Floats]:
    """(L, C) → means (C,), NaN for a channel without a value, and spreads (C,) above 0."""
    mean = _mean(np.asarray(x, np.float64))
    return mean, _spread(x, mean, level=mean)


def _mean(x: Floats) -> Floats:
    there = np.isfinite(x)
    count = there.sum(axis=0)
    total = np.where(there, x, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _spread(x: Floats | Samples, mean: Floats, *, level: Floats) -> Floats:
    """(L, C) → the standard deviations (C,) from `mean`; 1 for a channel at `level` that did not
    move, which is so measured in its own unit (as by scikit-learn's StandardScaler)."""
    spread = np.sqrt(np.nan_to_num(_mean((np.asarray(x, np.float64) - mean) ** 2)))
    return np.where(spread > UNMOVED * np.abs(np.nan_to_num(level)), spread, 1.0)


def _covariance(z: Floats) -> Floats:
    """(L, C) → (C, C); a missing value stands at its mean."""
    z = np.where(np.isfinite(z), z, 0.0)
    covariance: Floats = z.T @ z / len(z)
    return covariance


def _largest(z: Floats) -> Floats:
    """(T, C) → the largest of each row (T,), NaN where there is none."""
    largest: Floats = np.where(np.isfinite(z), z, -1.0).max(axis=1)
    return np.where(largest < 0, np.nan, largest)


def _patterns(z: Floats) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(T, C) → which channels are there, and the rows of which that is so."""
    kinds, which = np.unique(np.isfinite(z), axis=0, return_inverse=True)
    which = which.reshape(-1)  # numpy 2.0 gave it a second axis
    return [
        (np.flatnonzero(kind), np.flatnonzero(which == place))
        for place, kind in enumerate(kinds)
        if kind.any()
    ]


def _filter(gain: float, keep: float, x: Floats, start: float) -> Floats:
    """y ← keep · y + gain · x, from `start`: (R,) → (R + 1,), the start included."""
    from scipy.signal import lfilter  # noqa: PLC0415 - slow to load, and `--help` shows the names

    y, _ = lfilter([gain], [1.0, -keep], x, zi=[keep * start])
    return np.concatenate([[start], y])
