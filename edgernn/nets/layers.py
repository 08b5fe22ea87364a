"""Stateful layers: what every network is made of. The exporter knows each of them by its class."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

BLOCK = 64
"""Samples that `Ewma` takes at a time: one (64, 64) matrix product instead of 64 small steps."""


class Stateful(nn.Module, ABC):
    """Turns a stream of inputs into a stream of features, with every memory an explicit state.

    Any split of the samples gives the same features, and streams never mix: a layer keeps these
    two properties, and so does whatever is put together from layers.
    """

    width: int
    """Features per sample."""
    state_shapes: Mapping[str, tuple[int, ...]]
    """Name → shape of one stream's row, in the order `forward` takes them. Fresh states are 0."""

    @abstractmethod
    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, N, inputs), states (N, …) → features (T, N, width), next states (N, …)."""


class GruLayer(Stateful):
    """One GRU layer (Cho et al. 2014, in cuDNN's form: reset gate after the product)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.width = hidden
        self.state_shapes = {"h": (hidden,)}
        self.gru = nn.GRU(inputs, hidden)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = state
        y, last = self.gru(x, h.unsqueeze(0))
        return y, (last.squeeze(0),)


class Ewma(nn.Module):
    """Exponentially weighted mean over time of every column, each sample with weight `alpha`."""

    powers: Tensor
    weights: Tensor

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        keep = 1.0 - alpha
        steps = torch.arange(BLOCK)
        age = (steps[:, None] - steps[None, :]).double()
        weights = torch.where(age >= 0, alpha * keep ** age.clamp(min=0), 0.0)  # (BLOCK, BLOCK)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.register_buffer("powers", (keep ** (steps.double() + 1)).float(), persistent=False)

    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, N, K), mean (N, K) before x → means (T, N, K), the last of them (N, K)."""
        means = []
        for block in torch.split(x, BLOCK):
            t = block.shape[0]
            fresh = torch.einsum("ts,snk->tnk", self.weights[:t, :t], block)
            block_means = fresh + self.powers[:t, None, None] * mean  # (t, N, K)
            means.append(block_means)
            mean = block_means[-1]
        return torch.cat(means), mean
