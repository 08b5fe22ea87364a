"""A detector that needs no training: it learns what is usual in each stream as the samples come."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgernn.card import ANY, OUTPUTS, State
from edgernn.nets import days, levels, ranking
from edgernn.nets.model import CLOCK, Exportable

Floats = NDArray[np.float32]

LARGEST_SURPRISE = 10.0
"""Standard deviations of a channel that count: one that is wild says no more than this."""
DEAD_ZONE = 1.5
"""Standard deviations of a channel that count for nothing: else many healthy ones drown a few."""
TINY = 1e-6
"""Of squares of surprise: below, no channel is to blame more than another."""
PERIOD = "period"
"""The state (1,) of seconds between samples: which they are no weight knows."""
VIEWS = 2 * levels.SCALES
"""Level and time of day at every scale."""
ACCEPTED = 20_000.0
"""Samples of one excursion after which its guard begins to open; after twice as many all is learnt
alike, for what has been so for so long is how it is now. With 5,000, VUS-PR on SMD was 0.435 in
place of 0.544."""


class General(Exportable):
    """How far every channel is from its level and from its time of day, joined across channels,
    ranked by the stream's own past.

    How many channels there are is in no weight of it: one graph serves any number.
    """

    outputs = OUTPUTS["anomaly"]

    def __init__(self, channels: int, *, period_s: float = 1.0, is_open: bool = False) -> None:
        """`period_s`: seconds between samples. `is_open`: exported for any number of channels and
        any period; these are then what it runs with here."""
        super().__init__()
        self.channels = channels
        self.is_open = is_open
        self.period_s = period_s
        self.register_buffer("scale", torch.ones(channels))

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return state_shapes(self.channels)

    @property
    def initials(self) -> Mapping[str, float]:
        return {PERIOD: self.period_s}

    @property
    def states(self) -> tuple[State, ...]:
        if not self.is_open:
            return super().states
        return tuple(
            State(
                f"state.{name}",
                shape,
                float(name == PERIOD),
                in_periods=name == PERIOD,
                is_clock=name == CLOCK,
            )
            for name, shape in state_shapes(ANY).items()
        )

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them.

        Returns score (T, N), contribution (T, N, C), expected (T, N, C): each channel's level
        before the sample; then the next states. The score is 0 while no channel is known well
        enough, and NaN where not one channel was observed.
        """
        arrays = x.numpy()
        states: Sequence[Floats] = [one.numpy() for one in state]
        score, share, expected = np.empty(x.shape[:2], np.float32), arrays.copy(), arrays.copy()
        for t, sample in enumerate(arrays):
            said, states = step(sample, states)
            score[t], share[t], expected[t] = said
        return tuple(torch.from_numpy(one) for one in (score, share, expected, *states))


def state_shapes(channels: int) -> Mapping[str, tuple[int, ...]]:
    """Every memory, in the order of `step`."""
    return {
        "level.moments": (levels.rows(levels.SCALES), channels),
        CLOCK: (1,),
        PERIOD: (1,),
        "day.moments": (days.ROWS, channels),
        "day.table": (3 * days.BINS, channels),
        "rank.counts": (VIEWS, ranking.BINS + 1),
    }


def step(x: Floats, states: Sequence[Floats]) -> tuple[Sequence[Floats], Sequence[Floats]]:
    """x (N, C), states (N, …) → score (N,), contribution and expected (N, C); next states."""
    moments, clock, period, of_day, table, counts = states
    length = counts[..., ranking.BINS :].max(1, keepdims=True)  # (N, 1, 1) of the excursion
    guarded = np.clip(2 - length * np.float32(1 / ACCEPTED), 0, 1)
    seen, u, known, level, moments = levels.step(x, moments, guarded=guarded)
    of_the_day, of_day, table = days.step(seen, clock, of_day, table)
    surprise, blame = pooled(np.concatenate([u, of_the_day], axis=1), known)
    y, counts = ranking.step(surprise, known.max(1, keepdims=True), counts)
    y = y * y
    score = np.sqrt(np.sqrt((y * y).mean(1)))
    score = np.where(seen.is_there.any((1, 2)), score, np.float32(np.nan))
    clock = days.later(clock, period)
    return (score, blame, level), (moments, clock, period, of_day, table, counts)


def pooled(u: Floats, known: Floats) -> tuple[Floats, Floats]:
    """The channels of every view → one surprise a view for the ranking, and who is to blame.

    Of several channels that is one surprise for all views: the largest of their roots of a mean
    square. Ranked alone, a channel's or a view's tail would lose what tells its faults. A single
    channel has nothing to be joined with, and its views are ranked each by itself.

    u (N, V, C) ≥ 0, 0 where not known; known (N, C) → surprise (N, V), the channels' shares in it
    (N, C).
    """
    excess = np.maximum(np.minimum(u, np.float32(LARGEST_SURPRISE)) - np.float32(DEAD_ZONE), 0)
    excess = excess * excess
    there = np.maximum(known.sum(-1, keepdims=True), 1)  # (N, 1)
    square = excess.sum(-1) / there  # (N, V)
    most = np.sqrt(square.max(1, keepdims=True)) + np.float32(1)
    surprise = u[..., 0] if u.shape[-1] == 1 else np.broadcast_to(most, square.shape)
    blame = (square[:, None] @ excess)[:, 0] + np.float32(TINY)
    return surprise, blame / blame.sum(-1, keepdims=True)
