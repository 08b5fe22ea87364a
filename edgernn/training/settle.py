"""What adapts on the device must know of healthy data before: which directions features vary in,
and how residuals usually behave."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgernn.nets.adapt import LARGEST_LESSON, Adapter, guard_of
from edgernn.nets.detector import Detector
from edgernn.recording import Track

Floats = NDArray[np.float32]
Method: TypeAlias = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]

LONGEST_BLOCK = 8192
"""Samples that run through the detector at a time."""
USUAL_QUANTILE = 0.99
"""Of how unlike N(0, 1) the recent residuals of a healthy channel are: above, learning is slow."""
SMALLEST_SHARE = 1e-4
"""Of the variance of the first direction: what varies less is not blown up to variance 1."""


@torch.no_grad()
def settle(detector: Detector, pieces: Sequence[Track], *, warm_up: int) -> None:
    """Give each adapter of a trained detector its directions and what is usual, from healthy pieces
    whose first `warm_up` samples do not count."""
    if not len(detector.adapters):
        return
    r = [run_stream(detector.residuals, detector, piece.x) for piece in pieces]
    for kind, adapter in detector.adapters.items():
        k = detector.kinds.index(kind)
        if adapter.waits is not None:
            _find_directions(detector, adapter, pieces, warm_up)
        _find_usual(adapter, [one[:, k] for one in r], warm_up)


def run_stream(method: Method, detector: Detector, x: Floats) -> Floats:
    """One stream (T, C) through a method of the detector, from a fresh state, in blocks that fit
    into memory: (T, …)."""
    state = detector.fresh_state(1)
    parts: list[Floats] = []
    for block in torch.split(torch.from_numpy(x).unsqueeze(1), LONGEST_BLOCK):
        out, state = method(block, *state)
        parts.append(out[:, 0].numpy())
    return np.concatenate(parts)


def _find_directions(
    detector: Detector, adapter: Adapter, pieces: Sequence[Track], warm_up: int
) -> None:
    """Principal directions of the features, each scaled to variance 1."""

    def features(x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        _, said, following = detector.features(*detector.scaled(x), state)
        return said, (*following, *state[len(following) :])

    sums = 0.0, 0.0, 0  # of h, of h hᵀ, and of 1
    for piece in pieces:
        h = run_stream(features, detector, piece.x)[warm_up:].astype(np.float64)  # (T, width)
        sums = sums[0] + h.sum(0), sums[1] + h.T @ h, sums[2] + len(h)
    mean = sums[0] / sums[2]
    values, vectors = np.linalg.eigh(sums[1] / sums[2] - np.outer(mean, mean))
    order = np.argsort(values)[::-1][: adapter.basis.shape[1] - 1]
    smallest = max(SMALLEST_SHARE * float(values.max()), 1e-12)
    basis = vectors[:, order] / np.sqrt(np.maximum(values[order], smallest))
    adapter.span_directions(mean, basis)


def _find_usual(adapter: Adapter, pieces: Sequence[Floats], warm_up: int) -> None:
    """pieces (T, C) of residuals as trained, NaN where missing."""
    learner = adapter.learner
    guards, shares = [], []
    for r in pieces:
        m, q = np.zeros_like(r[0]), np.zeros_like(r[0])
        there = np.isfinite(r)
        d = np.clip(np.where(there, r, 0), -LARGEST_LESSON, LARGEST_LESSON)
        u, share = np.full_like(d, np.nan), np.full_like(d, np.nan)
        for t in range(len(d)):
            off, step = d[t] - m, learner.paces.recent * there[t]
            share[t] = np.where(there[t], off * off / (1 + off * off), np.nan)
            m = m + step * off
            q = q + step * (d[t] * d[t] - 1 - q)
            u[t] = np.where(there[t], guard_of(m, q), np.nan)
        guards.append(u[warm_up:])
        shares.append(share[warm_up:])
    usual = np.nanquantile(np.concatenate(guards), USUAL_QUANTILE, axis=0)
    learner.usual = torch.from_numpy(np.maximum(usual, 1e-3)).float()
    learner.unrest = torch.from_numpy(np.nanmean(np.concatenate(shares), axis=0)).float()
