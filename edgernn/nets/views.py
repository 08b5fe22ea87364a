"""Views: residuals → surprise. One looks at the sample, one at the window of samples behind it.

A judge holds both for one head, and knows how its residuals hang together.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgernn.nets.layers import Ewma

LARGEST_RESIDUAL = 50.0
"""Standard deviations; only keeps infinities out, 50 σ is surprise enough for any threshold."""
LARGEST_WINDOW_RESIDUAL = 5.0
"""Standard deviations; one wild sample must not fill the window for a minute."""
SMALLEST_VARIANCE = 0.01
"""Of residuals, relative to the forecast's: a frozen sensor is at this floor."""


class View(nn.Module, ABC):
    """One way to look at residuals."""

    name: str
    state_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Name → shape of one stream's row, in the order `forward` takes them. Fresh states are 0."""

    @abstractmethod
    def forward(
        self, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Residuals in standard deviations, 0 where missing, and 1 where observed, both (T, N, C);
        states (N, …) → surprise by channel (T, N, C) ≥ 0, next states."""

    @abstractmethod
    def total(self, surprise: Tensor) -> Tensor:
        """Surprise by channel (T, N, C) → of the whole sample (T, N, 1)."""


class SampleView(View):
    """Surprise of this one sample: ½ r², the Gaussian's negative log-likelihood above its mode.

    Channels add up, as independent evidence does.
    """

    name = "sample"

    def forward(
        self, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return 0.5 * r * r, ()

    def total(self, surprise: Tensor) -> Tensor:
        return surprise.sum(-1, keepdim=True)


class WindowView(View):
    """Do the residuals of the last samples look like draws from N(0, 1)?

    The likelihood ratio of "their own mean and variance" against "mean 0, variance 1" over an
    exponential window: n · KL(N(m, v) ‖ N(0, 1)) = n/2 · (v + m² − 1 − ln v). It sees a small
    persistent offset, more noise, and less noise (a frozen sensor), which no single sample shows.
    Source: generalised likelihood ratio charts for mean and variance, Hawkins and Zamba (2005),
    with exponential weights. Every channel is measured by what is usual for it, and the loudest
    one speaks: a fault of one sensor is not drowned by the restlessness of the others.
    """

    name = "window"
    usual: Tensor

    def __init__(self, channels: int, span: int) -> None:
        """`span`: samples in the window, as n = 2/α − 1 independent ones would weigh."""
        super().__init__()
        self.span = span
        self.ewma = Ewma(2.0 / (span + 1))
        self.state_shapes = {"window": (3 * channels,)}
        self.register_buffer("usual", torch.ones(channels))

    def forward(
        self, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        # A missing sample has observed = 0: it adds no weight, and what is known stays known.
        (window,) = state  # (N, 3C)
        r = r.clamp(-LARGEST_WINDOW_RESIDUAL, LARGEST_WINDOW_RESIDUAL)
        sums, window = self.ewma(torch.cat([r, r * r, observed], dim=-1), window)  # (T, N, 3C)
        first, second, weight = sums.chunk(3, dim=-1)
        there = weight.clamp(min=1e-6)
        mean, square = first / there, second / there
        variance = (square - mean * mean).clamp(min=SMALLEST_VARIANCE)
        excess = (square - 1.0 - torch.log(variance)).clamp(min=0.0)
        return weight * excess * (0.5 * self.span / self.usual), (window,)

    def total(self, surprise: Tensor) -> Tensor:
        return surprise.amax(-1, keepdim=True)


RELATIONS = ("conditional", "whitened", "none")


class Judge(nn.Module):
    """One head's residuals, related to each other, as each view sees them."""

    relation: Tensor

    def __init__(self, channels: int, span: int) -> None:
        """`span`: samples in the window view."""
        super().__init__()
        self.sample = SampleView()
        self.window = WindowView(channels, span)
        self.state_shapes = self.window.state_shapes
        self.register_buffer("relation", torch.eye(channels))

    @property
    def views(self) -> tuple[View, ...]:
        """In the order of what `forward` gives."""
        return (self.sample, self.window)

    def forward(
        self, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Residuals in standard deviations, 0 where missing, and 1 where observed, both (T, N, C);
        states (N, …) → each view's surprise by channel (T, N, C), next states."""
        is_whole = observed.amin(-1, keepdim=True).bool()  # (T, N, 1)
        r = torch.where(is_whole, torch.matmul(r, self.relation), r)  # else nothing to relate to
        alone, _ = self.sample(r, observed)
        behind, following = self.window(r, observed, *state)
        return [alone, behind], following

    def relate(self, covariance: Tensor, how: str = "conditional") -> None:
        """Judge channels together, from the covariance (C, C) of healthy residuals.

        "conditional": column c is what is left of channel c once the others have said what they
        know of it, in standard deviations (P r / √P_cc with the precision matrix P). "whitened":
        uncorrelated residuals that stay as near as can be to the channels' own (Σ^−½, zero-phase;
        Kessy, Lewin and Strimmer 2018). "none": every channel on its own.
        """
        covariance = covariance.double()
        if how == "conditional":
            precision = torch.linalg.inv(covariance)
            relation = precision / precision.diagonal().sqrt()
        elif how == "whitened":
            values, vectors = torch.linalg.eigh(covariance)
            relation = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        else:
            relation = torch.eye(len(covariance))
        self.relation = relation.float().contiguous()
