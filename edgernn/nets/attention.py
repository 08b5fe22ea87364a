"""Attention over the last few samples' features, which are its state."""

import torch
from torch import Tensor, nn

from edgernn.nets.layers import Stateful
from edgernn.nets.windows import past_shapes, with_past

BLOCK = 64
"""Queries at a time: their keys overlap almost wholly, so that two matrix products serve all of
them. Windows copied out one by one took 13 times as long to train with."""


class Attention(Stateful):
    """Scaled dot-product attention (Vaswani et al. 2017) of the newest features to the last K.

    y = x + Σ_k softmax_k(q · k / √width) v_k: the query is the newest sample's, keys and values are
    those of the last `length` samples, itself included. What was never seen is zeros, not masked.
    """

    is_residual = True

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.width = width
        self.length = length
        self.state_shapes = past_shapes(length - 1, width)
        self.qkv = nn.Linear(width, 3 * width)  # query, key, value

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        joined, following = with_past(x, state)
        qkv = self.qkv(joined)  # (K − 1 + T, N, 3·width)
        parts = []
        for start in range(0, x.shape[0], BLOCK):
            stop = min(start + BLOCK, x.shape[0])
            parts.append(attend(qkv[start : stop + self.length - 1], self.length))
        return x + torch.cat(parts), following


def attend(qkv: Tensor, length: int) -> Tensor:
    """Queries, keys and values (K − 1 + T, N, 3·W) side by side, the oldest K − 1 of which ask
    nothing → what each of the T finds in the K up to itself (T, N, W)."""
    query, key, value = qkv.transpose(0, 1).chunk(3, dim=-1)  # (N, K − 1 + T, W) each
    seen = torch.arange(qkv.shape[0], device=qkv.device)
    oldest = seen[: qkv.shape[0] - (length - 1)].unsqueeze(1)  # (T, 1): where its window begins
    outside = (seen < oldest) | (seen >= oldest + length)  # (T, K − 1 + T)
    fit = query[:, length - 1 :] @ key.transpose(1, 2) * query.shape[-1] ** -0.5
    share = torch.softmax(fit.masked_fill(outside, -torch.inf), dim=-1)  # (N, T, K − 1 + T)
    return (share @ value).transpose(0, 1)
