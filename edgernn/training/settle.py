"""What adapts on the device must know of healthy data before: which directions features vary in,
how residuals usually behave, and the levels that streams begin with."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgernn.nets.adapt import Adapter, guard_of, look_back
from edgernn.nets.detector import Detector
from edgernn.nets.levels import VARIANCE_MEMORY, follow
from edgernn.recording import Track
from edgernn.training.stretches import blocks

Floats = NDArray[np.float32]
Method: TypeAlias = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]

LONGEST_BLOCK = 8192
"""Samples that run through the detector at a time."""
USUAL_QUANTILE = 0.99
"""Of how unlike N(0, 1) the recent residuals of a healthy channel are: above, learning is slow."""
SETTLED, MOST_ROUNDS = 2.0, 5
"""Times its memory that a detector learns before it counts as settled, and how often it goes
through a piece that is shorter, at most."""
SMALLEST_SHARE = 1e-4
"""Of the variance of the first direction: what varies less is not blown up to variance 1."""

LONGEST_LESSON = int(5 * VARIANCE_MEMORY)
"""Samples that levels begin with: those before would be forgotten to a hundredth."""


@torch.no_grad()
def settle(detector: Detector, pieces: Sequence[Track], *, warm_up: int) -> None:
    """Give each adapter of a trained detector its directions and what is usual, from healthy pieces
    whose first `warm_up` samples do not count."""
    if not detector.memory:
        return
    r = [run_stream(detector.residuals, detector, piece) for piece in pieces]
    for kind, adapter in zip(detector.adapting, detector.adapters, strict=True):
        k = detector.kinds.index(kind)
        if adapter.waits is not None:
            _find_directions(detector, adapter, pieces, warm_up)
        _find_usual(adapter, [one[:, k] for one in r], warm_up)


@torch.no_grad()
def settle_levels(detector: Detector, pieces: Sequence[Track], *, warm_up: int) -> None:
    """Give the levels of a trained detector what streams begin with, from healthy pieces whose
    first `warm_up` samples do not count. All of it is learnt alike: it is known to be healthy."""
    for judge in detector.levels:
        shape = tuple(judge.start.shape)
        moments, left = np.zeros((1, *shape), np.float32), LONGEST_LESSON
        lessons: list[Floats] = []
        for piece in reversed(pieces):
            rows = slice(-(left + warm_up), None) if left else slice(0)
            end = Track(piece.stream, piece.time_s[rows], piece.x[rows], None)
            if len(end.x) > warm_up:
                lessons.insert(0, run_stream(detector.gathered, detector, end)[warm_up:])
                left -= len(lessons[0])
        for lesson in lessons:
            spans = judge.levels.spans
            *_, moments = follow(lesson[:, None], moments, spans, unguarded=math.inf)
        judge.begin(moments[0])


def run_counted(method: Method, detector: Detector, piece: Track, *, warm_up: int) -> list[Floats]:
    """What a method says of a healthy piece, samples that count: arrays (·, …).

    A detector that adapts has seen more than a short piece holds once it has run for a while. It
    goes through the piece until it has settled, and what it says the first and the last time
    counts: as a stream begins, and as it goes on. The first `warm_up` samples of a time do not.
    """
    times = 1
    if detector.memory:
        times = min(math.ceil(SETTLED * detector.memory / len(piece.x)), MOST_ROUNDS)
    one_by_one = [piece] * times  # each time by the clock
    if not detector.has_clock:
        time_s, x = (np.concatenate([part] * times) for part in (piece.time_s, piece.x))
        one_by_one = [Track(piece.stream, time_s, x, None)]
    rounds = np.split(run_stream(method, detector, *one_by_one), times)
    return [one[warm_up:] for one in (rounds if times == 1 else [rounds[0], rounds[-1]])]


def run_stream(method: Method, detector: Detector, *pieces: Track) -> Floats:
    """One stream, pieces one after the other, through a method of the detector, from a fresh state,
    in blocks that fit into memory: (T, …)."""
    state = detector.fresh_state(1)
    parts: list[Floats] = []
    for piece in pieces:
        for block, first_s in blocks(piece, LONGEST_BLOCK, detector.step_s):
            out, state = method(block, *detector.set_clock(state, first_s))
            parts.append(out[:, 0].numpy())
    return np.concatenate(parts)


def _find_directions(
    detector: Detector, adapter: Adapter, pieces: Sequence[Track], warm_up: int
) -> None:
    """Principal directions of the features, each scaled to variance 1."""

    def features(x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        _, said, following = detector.features(*detector.scaled(x), state)
        return said, (*following, *state[len(following) :])

    width = len(adapter.basis)
    total, products, samples = np.zeros(width), np.zeros((width, width)), 0
    for piece in pieces:
        h = run_stream(features, detector, piece)[warm_up:].astype(np.float64)  # (T, width)
        total, products, samples = total + h.sum(0), products + h.T @ h, samples + len(h)
    mean = total / samples
    values, vectors = np.linalg.eigh(products / samples - np.outer(mean, mean))
    order = np.argsort(values)[::-1][: adapter.basis.shape[1] - 1]
    smallest = max(SMALLEST_SHARE * float(values.max()), 1e-12)
    basis = vectors[:, order] / np.sqrt(np.maximum(values[order], smallest))
    adapter.span_directions(mean, basis)


def _find_usual(adapter: Adapter, pieces: Sequence[Floats], warm_up: int) -> None:
    """pieces (T, C) of residuals as trained, NaN where missing."""
    learner = adapter.learner
    guards, shares = [], []
    for r in pieces:
        m, v = np.zeros_like(r[0]), np.ones_like(r[0])
        there = np.isfinite(r)
        u, square = np.full_like(r, np.nan), np.full_like(r, np.nan)
        for t, error in enumerate(np.where(there, r, 0)):
            m, v, square[t] = look_back(error, there[t], m, v, learner.paces.recent)
            u[t] = guard_of(m, v)
        u[~there], square[~there] = np.nan, np.nan
        guards.append(u[warm_up:])
        shares.append((square / (1 + square))[warm_up:])
    usual = np.nanquantile(np.concatenate(guards), USUAL_QUANTILE, axis=0)
    learner.usual = torch.from_numpy(np.maximum(usual, 1e-3)).float()
    learner.unrest = torch.from_numpy(np.nanmean(np.concatenate(shares), axis=0)).float()
