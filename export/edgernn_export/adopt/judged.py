"""Someone else's predictions, judged as a detector judges its own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgernn.nets.detector import Detector
from edgernn.nets.heads import ForecastHead, Head, HeadConfig, ReadOut
from edgernn.nets.layers import Stateful
from edgernn.nets.model import Modules
from edgernn.nets.networks import NetworkConfig

SMALLEST_SPREAD = 1e-3
"""Standard deviations; a model that repeats its input exactly has residuals of nothing."""


class Told(Stateful):
    """Where a detector has a network, here is none: features are what was predicted elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels
        self.state_shapes = {}

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x, ()


class SameHead(Head):
    """A reconstruction of the sample that it comes with."""

    delay = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.read_out = ReadOut(channels, channels)

    def forward(
        self, features: Tensor, seen: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.read_out(features), ()


class Judged(Detector):
    """A detector without a network of its own: x holds the samples and what was predicted with
    each, both in sensor units, side by side (T, N, 2·C)."""

    def __init__(self, channels: Sequence[str], *, predicts: str, span: int) -> None:
        """`predicts`: one of `PREDICTS`. `span`: samples in the window view."""
        super().__init__(channels, NetworkConfig(hidden=1), span=span, seed=0)
        self.network = Told(self.channels)  # in place of the one that a detector makes
        is_next = predicts == "next"
        self.kinds = ("forecast",) if is_next else ("reconstruct",)
        head = (
            ForecastHead(self.network, self.channels, HeadConfig())
            if is_next
            else SameHead(self.channels)
        )
        self.heads = Modules[Head]([head])
        with torch.no_grad():  # means are what was told; spreads follow from `widen`
            nn.init.zeros_(head.read_out.linear.weight)
            head.read_out.linear.weight[: self.channels] = torch.eye(self.channels)

    def scaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, N, 2·C) → samples and predictions, scaled (T, N, 2·C); 1 where observed
        (T, N, C)."""
        samples, told = x.chunk(2, dim=-1)
        z, observed = super().scaled(samples)
        return torch.cat([z, (told - self.centre) / self.scale], dim=-1), observed

    def _say(
        self, z: Tensor, observed: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor, tuple[Tensor, ...]]:
        samples, told = z.chunk(2, dim=-1)
        (head,) = self.heads
        said, following = head(told, samples, *state[: len(head.state_shapes)])
        return samples, observed, [said], told, following
