"""Attention → two matrix products over all samples of a call, in plain nodes.

The loop over blocks is for training on long stretches; the device is given a few samples a call.
"""

from torch import Tensor, nn

from edgernn.nets.attention import Attention, attend
from edgernn.nets.windows import with_past
from edgernn_export.ops.linear import ExportedLinear


class ExportedAttention(nn.Module):
    """An Attention whose samples are one block."""

    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self.length = layer.length
        self.qkv = ExportedLinear(layer.qkv)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        joined, following = with_past(x, state)
        return x + attend(self.qkv(joined), self.length), following
