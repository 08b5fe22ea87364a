"""Stateful layers: what every network is made of. The exporter knows each of them by its class."""

import torch
from torch import Tensor, nn

BLOCK = 64
"""Samples that `Ewma` takes at a time: one (64, 64) matrix product instead of 64 small steps."""


class GruLayer(nn.Module):
    """One GRU layer (Cho et al. 2014, in cuDNN's form: reset gate after the product)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        self.gru = nn.GRU(inputs, hidden)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, N, inputs), h (N, hidden) → y (T, N, hidden), next h (N, hidden)."""
        y, last = self.gru(x, h.unsqueeze(0))
        return y, last.squeeze(0)


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
