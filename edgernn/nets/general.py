"""A detector that needs no training: it learns what is usual in each stream as the samples come."""

from collections.abc import Mapping

import torch
from torch import Tensor

from edgernn.card import ANY, OUTPUTS, State
from edgernn.nets.levels import Levels
from edgernn.nets.model import Exportable
from edgernn.nets.ranking import Ranking

LARGEST_SURPRISE = 10.0
"""Standard deviations of a channel that count: one that is wild says no more than this."""
DEAD_ZONE = 1.5
"""Standard deviations of a channel that count for nothing: else many healthy ones drown a few."""
TINY = 1e-6
"""Of squares of surprise: below, no channel is to blame more than another."""


class General(Exportable):
    """Levels of every channel, joined across channels, ranked by the stream's own past.

    How many channels there are is in no weight of it: one graph serves any number.
    """

    outputs = OUTPUTS["anomaly"]

    def __init__(self, channels: int, *, is_open: bool = False) -> None:
        """`is_open`: exported for any number of channels; `channels` is then what it runs here."""
        super().__init__()
        self.channels = channels
        self.is_open = is_open
        self.levels = Levels(channels)
        self.ranking = Ranking()
        self.register_buffer("scale", torch.ones(channels))

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        parts = (("level", self.levels), ("rank", self.ranking))
        return {
            f"{name}.{state}": shape
            for name, part in parts
            for state, shape in part.state_shapes.items()
        }

    @property
    def states(self) -> tuple[State, ...]:
        if not self.is_open:
            return super().states
        return tuple(
            State(f"state.{name}", shape, 0.0) for name, shape in General(ANY).state_shapes.items()
        )

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them.

        Returns score (T, N), contribution (T, N, C), expected (T, N, C): each channel's level
        before the sample; then the next states. The score is 0 while no channel is known well
        enough, and NaN where not one channel was observed.
        """
        moments, counts = state
        u, known, level, moments = self.levels(x, moments)
        excess, together = self.joined(u, known)
        y, counts = self.ranking(1.0 + together.amax(-1), known.amax(-1), counts)
        nothing = torch.isnan(x).to(x.dtype).amin(-1) > 0
        score = torch.where(nothing, torch.nan, y)
        blame = (excess * (together * together).unsqueeze(-1)).sum(-2) + TINY  # (T, N, C)
        return score, blame / blame.sum(-1, keepdim=True), level, moments, counts

    @staticmethod
    def joined(u: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """u (T, N, K, C) ≥ 0, 0 where not known, and known (T, N, C) → what of each channel counts,
        squared, and the root of its mean over known channels (T, N, K)."""
        excess = torch.relu(u.clamp(max=LARGEST_SURPRISE) - DEAD_ZONE)
        excess = excess * excess
        there = known.sum(-1, keepdim=True).clamp(min=1.0)  # (T, N, 1)
        return excess, torch.sqrt(excess.sum(-1) / there)
