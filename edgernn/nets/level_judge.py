"""A detector's samples judged by guarded levels: of its readings, of its residuals, or of both.

The views of `views` measure residuals by how they were when the detector was trained. Levels go on
learning how each channel is on the device, from where training left them, so that a drift does not
become an alarm, and stop learning where a fault begins.
"""

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgernn.nets.general import DEAD_ZONE, LARGEST_SURPRISE, TINY
from edgernn.nets.levels import SPANS, UNGUARDED, Levels, check_spans, rows
from edgernn.nets.views import View

INPUTS = ("reading", "residual")
DEFAULT_SPANS = tuple(map(int, SPANS))


class LevelsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[levels]` in a training file."""

    of: tuple[str, ...] = ()
    """What is judged by its own level: "reading", "residual" or both; () = the views of `[score]`
    judge."""
    spans: tuple[int, ...] = DEFAULT_SPANS
    """Samples over which departures from a level are averaged, rising, 1 to 1000 each."""

    def __post_init__(self) -> None:
        for i, one in enumerate(self.of):
            if one not in INPUTS:
                raise ValueError(f"of: expected of {', '.join(INPUTS)}, got {one!r}")
            if one in self.of[:i]:
                raise ValueError(f"of: {one!r} is named twice")
        check_spans(self.spans)
        if self.spans != DEFAULT_SPANS and not self.of:
            raise ValueError("spans: only with levels of something: of is empty")

    @property
    def is_on(self) -> bool:
        return bool(self.of)


class PastView(View):
    """How far the channels are together from where they have been, as `General` joins them.

    Of the loudest span, whose square is shared out among the channels; the total is the logarithm
    of 1 + the distance, whose tail is about exponential.
    """

    name = "past"

    def forward(
        self, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """r (T, N, K, C), departures in standard deviations ≥ 0, 0 where not known; observed
        (T, N, C) → surprise by channel (T, N, C)."""
        excess = torch.relu(r.clamp(max=LARGEST_SURPRISE) - DEAD_ZONE)
        excess = excess * excess
        there = observed.sum(-1, keepdim=True).clamp(min=1.0)  # (T, N, 1)
        square = excess.sum(-1) / there  # (T, N, K)
        blame = (excess * square.unsqueeze(-1)).sum(-2)  # (T, N, C)
        share = blame / (blame.sum(-1, keepdim=True) + TINY)
        return share * square.amax(-1, keepdim=True), ()

    def total(self, surprise: Tensor) -> Tensor:
        return torch.log1p(torch.sqrt(surprise.sum(-1, keepdim=True)))


class LevelJudge(nn.Module):
    """Readings, residuals of all heads or both, each followed by levels of its own."""

    start: Tensor

    def __init__(self, channels: int, config: LevelsConfig, *, heads: int) -> None:
        super().__init__()
        self.channels = channels
        self.of = config.of
        self.inputs = ("reading" in config.of) + heads * ("residual" in config.of)
        """For each channel."""
        self.levels = Levels(self.inputs * channels, config.spans)
        self.past = PastView()
        self.state_shapes = self.levels.state_shapes
        shape = rows(len(config.spans)), self.inputs * channels
        self.register_buffer("start", torch.zeros(shape))

    @property
    def views(self) -> tuple[View, ...]:
        """In the order of what `forward` gives."""
        return (self.past,)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """x as `gathered` gives it; states (N, …) → the view's surprise by channel (T, N, C), next
        states. What a stream has not seen yet begins where training left it."""
        (moments,) = state
        moments = torch.where(moments[:, :1] == 0, self.start, moments)  # (N, rows, inputs·C)
        u, known, _, following = self.levels(x, moments)
        surprise, _ = self.past(u, known)
        parts = surprise.split(self.channels, dim=-1)
        return [torch.stack(parts).sum(0)], (following,)

    def gathered(self, z: Tensor, errors: list[Tensor], observed: Tensor) -> Tensor:
        """Scaled values, each head's residuals and 1 where observed, (T, N, C) all → what levels
        follow (T, N, inputs·C), NaN where missing."""
        parts = ([z] if "reading" in self.of else []) + (errors if "residual" in self.of else [])
        there = torch.cat([observed] * self.inputs, dim=-1)
        return torch.where(there > 0, torch.cat(parts, dim=-1), torch.nan)

    def begin(self, moments: NDArray[np.float32]) -> None:
        """Streams begin with what training saw, (rows, inputs·C), and guard it from then on: it
        counts as `UNGUARDED` samples at least. Nothing departs as yet. Of what was never there, or
        never moved, nothing is known: it begins empty."""
        start = torch.from_numpy(moments.copy())
        spans = len(self.levels.spans)
        start[0] = start[0].clamp(min=UNGUARDED)
        start[2 + spans : 2 + 2 * spans] = 0
        has_moved = (start[2 + 2 * spans :] > 0).all(0)  # (inputs·C,)
        self.start = torch.where(has_moved, start, 0.0)
