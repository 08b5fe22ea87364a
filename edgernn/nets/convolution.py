"""Causal convolutions over time, whose look-back is a state."""

import torch
from torch import Tensor, nn

from edgernn.nets.layers import Stateful
from edgernn.nets.windows import past_shapes, with_past


class CausalConv(Stateful):
    """A causal 1-D convolution: one linear map of the samples 0, d, 2d, … (K−1)·d ago."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int = 1) -> None:
        """`kernel` K samples, `dilation` d samples apart."""
        super().__init__()
        self.width = width
        self.kernel = kernel
        self.dilation = dilation
        self.state_shapes = past_shapes((kernel - 1) * dilation, inputs)
        self.linear = nn.Linear(kernel * inputs, width)  # columns: the oldest sample's inputs first

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        joined, following = with_past(x, state)
        taps = [joined.narrow(0, k * self.dilation, x.shape[0]) for k in range(self.kernel)]
        return self.linear(torch.cat(taps, dim=-1)), following


class TcnBlock(Stateful):
    """The residual block of a temporal convolutional network: two causal convolutions with ReLU
    and dropout beside a shortcut, which is a 1×1 projection where widths differ.

    Source: Bai, Kolter and Koltun 2018, arXiv:1803.01271, without its weight normalisation.
    """

    is_residual = True

    def __init__(
        self, inputs: int, width: int, kernel: int, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.first = CausalConv(inputs, width, kernel, dilation)
        self.second = CausalConv(width, width, kernel, dilation)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if inputs == width else nn.Linear(inputs, width)
        self._count = len(self.first.state_shapes)
        self.state_shapes = {
            f"{name}.{state}": shape
            for name, conv in (("first", self.first), ("second", self.second))
            for state, shape in conv.state_shapes.items()
        }

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, after_first = self.first(x, *state[: self._count])
        y = self.dropout(torch.relu(y))
        y, after_second = self.second(y, *state[self._count :])
        y = self.dropout(torch.relu(y))
        return torch.relu(y + self.shortcut(x)), (*after_first, *after_second)
