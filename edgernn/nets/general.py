"""A detector that needs no training: it learns what is usual in each stream as the samples come."""

from collections.abc import Mapping, Sequence

import msgspec
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
ACCEPTED = 20_000.0
"""Samples of one excursion after which its guard begins to open; after twice as many all is learnt
alike, for what has been so for so long is how it is now. With 5,000, VUS-PR on SMD was 0.435 in
place of 0.544."""


class GeneralConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[general]` in a training file: no network, but what the artefact that comes along is made
    of, begun by the recording. The defaults are that one's."""

    spans: tuple[int, ...] = tuple(map(int, levels.SPANS))
    """Samples over which departures are averaged, rising, 1 to 1000 each."""
    power: int = 0
    """Level and time of day at every span are views; joined by the power mean of their distances.
    0 = the largest."""
    dead_zone: float = DEAD_ZONE
    """Standard deviations of a channel that count for nothing."""
    spread_memory: int = int(levels.VARIANCE_MEMORY)
    """Samples in which a channel's usual departure from its level is learnt."""
    day_memory: int = int(days.MEMORY)
    """Visits that a half hour of the day remembers."""
    day_clip: float = days.CLIP
    """Standard deviations that a half hour learns at most at once."""

    def __post_init__(self) -> None:
        levels.check_spans(self.spans)
        limits: Mapping[str, tuple[float, float]] = {
            "power": (0, 64),
            "dead_zone": (0.0, 9.0),
            "spread_memory": (100, 10_000_000),
            "day_memory": (2, 100_000),
            "day_clip": (0.5, 100.0),
        }
        for name, (low, high) in limits.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name}: expected {low:.10g}–{high:.10g}, got {value:.10g}")

    @property
    def views(self) -> int:
        """Level and time of day at every span."""
        return 2 * len(self.spans)

    def __str__(self) -> str:
        return f"levels at {', '.join(map(str, self.spans))} samples, ranked"


THE_SHIPPED = GeneralConfig()
"""What `general.onnx` is made of."""


class General(Exportable):
    """How far every channel is from its level and from its time of day, joined across channels,
    ranked by the stream's own past.

    How many channels there are is in no weight of it: one graph serves any number. It has no
    weights at all, but for what streams begin with once it is `begun`.
    """

    outputs = OUTPUTS["anomaly"]

    def __init__(
        self,
        channels: int,
        config: GeneralConfig = THE_SHIPPED,
        *,
        period_s: float = 1.0,
        is_open: bool = False,
    ) -> None:
        """`period_s`: seconds between samples. `is_open`: exported for any number of channels and
        any period; these are then what it runs with here."""
        super().__init__()
        self.channels = channels
        self.config = config
        self.is_open = is_open
        self.period_s = period_s
        self.register_buffer("scale", torch.ones(channels))
        for name, shape in self.state_shapes.items():
            if name in BEGUN and not is_open:
                self.register_buffer(_start(name), torch.zeros(shape))

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return state_shapes(self.channels, self.config)

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
            for name, shape in state_shapes(ANY, self.config).items()
        )

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them.

        Returns score (T, N), contribution (T, N, C), expected (T, N, C): each channel's level
        before the sample; then the next states. The score is 0 while no channel is known well
        enough, and NaN where not one channel was observed.
        """
        said = follow(x.numpy(), [one.numpy() for one in self.begun(state)], self.config)
        return tuple(map(torch.from_numpy, said))

    def begun(self, state: Sequence[Tensor]) -> Sequence[Tensor]:
        """The states, (N, …) each in the order of `state_shapes`; a channel that has not been seen
        yet, and a histogram with nothing in it, are as `begin` said."""
        if self.is_open:
            return state
        moments, *_, counts = state
        is_new = moments[:, :1] == 0  # (N, 1, C)
        is_empty = counts.amax((1, 2), keepdim=True) == 0  # (N, 1, 1)
        return [
            torch.where(is_empty if name == COUNTS else is_new, getattr(self, _start(name)), one)
            if name in BEGUN
            else one
            for name, one in zip(self.state_shapes, state, strict=True)
        ]

    @property
    def unknown(self) -> list[int]:
        """Channels that streams know nothing of when they begin."""
        moments = getattr(self, _start(LEVELS))
        return [c for c, seen in enumerate(moments[0].tolist()) if not seen]

    @property
    def step_s(self) -> float:
        return self.period_s

    def begin(self, states: Sequence[Floats]) -> None:
        """Streams begin with what another one (1, …) has seen, and nothing departs as yet. Of a
        channel that was never there, or never moved, nothing is known."""
        spans = len(self.config.spans)
        kept = dict(zip(self.state_shapes, states, strict=True))
        moments, of_day, counts = (kept[name][0].copy() for name in (LEVELS, MOMENTS, COUNTS))
        moments[2 + spans : 2 + 2 * spans], of_day[3:], counts[:, ranking.BINS :] = 0, 0, 0
        variances = moments[2 + 2 * spans :]  # (K, C)
        has_moved = (variances > 0).all(0)  # (C,)
        self.scale.copy_(torch.from_numpy(np.where(has_moved, np.sqrt(variances[0]), 1)))
        for name, one in (
            (LEVELS, moments * has_moved),
            (MOMENTS, of_day * has_moved),
            (TABLE, kept[TABLE][0] * has_moved),
            (COUNTS, counts),
        ):
            getattr(self, _start(name)).copy_(torch.from_numpy(one))


LEVELS, MOMENTS, TABLE, COUNTS = "level.moments", "day.moments", "day.table", "rank.counts"
BEGUN = LEVELS, MOMENTS, TABLE, COUNTS
"""Memories that a stream may begin with."""


def state_shapes(
    channels: int, config: GeneralConfig = THE_SHIPPED
) -> Mapping[str, tuple[int, ...]]:
    """Every memory, in the order of `step`."""
    scales = len(config.spans)
    return {
        LEVELS: (levels.rows(scales), channels),
        CLOCK: (1,),
        PERIOD: (1,),
        MOMENTS: (days.rows(scales), channels),
        TABLE: (3 * days.BINS, channels),
        COUNTS: (config.views, ranking.BINS + 1),
    }


def _start(name: str) -> str:
    return f"start_{name.replace('.', '_')}"


def follow(
    x: Floats,
    states: Sequence[Floats],
    config: GeneralConfig = THE_SHIPPED,
    *,
    unguarded: float = levels.UNGUARDED,
) -> tuple[Floats, ...]:
    """`General.forward` in NumPy. `unguarded`: first samples that are all learnt alike."""
    score, share, expected = np.empty(x.shape[:2], np.float32), x.copy(), x.copy()
    for t, sample in enumerate(x):
        said, states = step(sample, states, config, unguarded=unguarded)
        score[t], share[t], expected[t] = said
    return score, share, expected, *states


def step(
    x: Floats,
    states: Sequence[Floats],
    config: GeneralConfig = THE_SHIPPED,
    *,
    unguarded: float = levels.UNGUARDED,
) -> tuple[Sequence[Floats], Sequence[Floats]]:
    """x (N, C), states (N, …) → score (N,), contribution and expected (N, C); next states."""
    moments, clock, period, of_day, table, counts = states
    length = counts[..., ranking.BINS :].max(1, keepdims=True)  # (N, 1, 1) of the excursion
    guarded = np.clip(2 - length * np.float32(1 / ACCEPTED), 0, 1)
    spans = tuple(map(float, config.spans))
    seen, u, known, level, moments = levels.step(
        x,
        moments,
        spans,
        guarded=guarded,
        unguarded=unguarded,
        memory=config.spread_memory,
    )
    of_the_day, of_day, table = days.step(
        seen, clock, of_day, table, spans, memory=config.day_memory, clip=config.day_clip
    )
    surprise, blame = pooled(np.concatenate([u, of_the_day], axis=1), known, config)
    y, counts = ranking.step(surprise, known.max(1, keepdims=True), counts)
    y = y * y
    score = np.sqrt(np.sqrt((y * y).mean(1)))
    score = np.where(seen.is_there.any((1, 2)), score, np.float32(np.nan))
    clock = days.later(clock, period)
    return (score, blame, level), (moments, clock, period, of_day, table, counts)


def pooled(u: Floats, known: Floats, config: GeneralConfig = THE_SHIPPED) -> tuple[Floats, Floats]:
    """The channels of every view → one surprise a view for the ranking, and who is to blame.

    Of several channels that is one surprise for all views: the largest of their roots of a mean
    square, or their power mean. Ranked alone, a channel's or a view's tail would lose what tells
    its faults. A single channel has nothing to be joined with, and its views are ranked each by
    itself.

    u (N, V, C) ≥ 0, 0 where not known; known (N, C) → surprise (N, V), the channels' shares in it
    (N, C).
    """
    excess = np.minimum(u, np.float32(LARGEST_SURPRISE)) - np.float32(config.dead_zone)
    excess = np.maximum(excess, 0)
    excess = excess * excess
    there = np.maximum(known.sum(-1, keepdims=True), 1)  # (N, 1)
    square = excess.sum(-1) / there  # (N, V)
    distance = np.sqrt(joined(square, config.power)) + np.float32(1)  # (N, 1)
    surprise = u[..., 0] if u.shape[-1] == 1 else np.broadcast_to(distance, square.shape)
    blame = (square[:, None] @ excess)[:, 0] + np.float32(TINY)
    return surprise, blame / blame.sum(-1, keepdims=True)


def joined(square: Floats, power: int) -> Floats:
    """Squares of distances (N, V) → that of their power mean (N, 1); 0 = the largest."""
    most: Floats = square.max(1, keepdims=True)
    if not power:
        return most
    share = square / np.maximum(most, np.float32(TINY))  # so that no power leaves a float32
    mean = (share ** np.float32(power / 2)).mean(1, keepdims=True)
    together: Floats = most * mean ** np.float32(2 / power)
    return together
