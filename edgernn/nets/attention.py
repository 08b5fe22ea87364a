"""Attention over the last few samples' features, which are its state."""

import torch
from torch import Tensor, nn

from edgernn.nets.layers import Stateful
from edgernn.nets.windows import past_shapes, with_past


class Attention(Stateful):
    """Scaled dot-product attention (Vaswani et al. 2017) of the newest features to the last K.

    y = x + Σ_k softmax_k(q · k / √width) v_k: the query is the newest sample's, keys and values are
    those of the last `length` samples, itself included. What was never seen is zeros, not masked.
    Takes T·K·N·width numbers of memory.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.width = width
        self.length = length
        self.state_shapes = past_shapes(length - 1, width)
        self.qkv = nn.Linear(width, 3 * width)  # query, key, value

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        joined, following = with_past(x, state)
        samples = x.shape[0]
        qkv = self.qkv(joined)  # (K − 1 + T, N, 3·width)
        query = qkv.narrow(0, self.length - 1, samples).narrow(-1, 0, self.width)  # (T, N, width)
        oldest = torch.arange(samples, device=x.device)
        index = oldest.unsqueeze(1) + torch.arange(self.length, device=x.device)  # (T, K)
        pairs = qkv.narrow(-1, self.width, 2 * self.width).index_select(0, index.reshape(-1))
        pairs = pairs.reshape(samples, self.length, x.shape[1], 2 * self.width)
        key, value = pairs.chunk(2, dim=-1)  # (T, K, N, width) each
        fit = (query.unsqueeze(1) * key).sum(-1, keepdim=True) * self.width**-0.5  # (T, K, N, 1)
        return x + (torch.softmax(fit, dim=1) * value).sum(1), following
