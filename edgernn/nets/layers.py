"""Stateful layers: what every network is made of. The exporter knows each of them by its class.

Here are the ones that torch has a fused kernel for; `gates`, `convolution`, `attention` and
`windows` hold the others.
"""

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
    is_residual: bool = False
    """Whether the features are the input with something added to it."""
    look_ahead: int = 0
    """Features that come with sample t are about sample t − look_ahead, from the samples around it
    but not itself. 0: of all samples up to t, itself included."""

    @abstractmethod
    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, N, inputs), states (N, …) → features (T, N, width), next states (N, …)."""


class GruLayer(Stateful):
    """One GRU layer (Cho et al. 2014, in cuDNN's form: reset gate after the product)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.width = hidden
        self.state_shapes = {"h": (hidden,)}
        self.gru = nn.GRU(inputs, hidden)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = state
        y, last = self.gru(x, h.unsqueeze(0))
        return y, (last.squeeze(0),)


class RnnLayer(Stateful):
    """One Elman layer: h' = tanh(W x + U h + b), or with ReLU in place of tanh.

    ReLU starts from U = 1 and b = 0, so that a fresh layer adds up what it sees and its gradient
    neither fades nor grows (Le, Jaitly and Hinton 2015, arXiv:1504.00941).
    """

    def __init__(self, inputs: int, hidden: int, activation: str = "tanh") -> None:
        super().__init__()
        self.width = hidden
        self.activation = activation
        self.state_shapes = {"h": (hidden,)}
        self.rnn = nn.RNN(inputs, hidden, nonlinearity=activation)
        if activation == "relu":
            nn.init.eye_(self.rnn.get_parameter("weight_hh_l0"))
            nn.init.zeros_(self.rnn.get_parameter("bias_ih_l0"))
            nn.init.zeros_(self.rnn.get_parameter("bias_hh_l0"))

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = state
        y, last = self.rnn(x, h.unsqueeze(0))
        return y, (last.squeeze(0),)


class LstmLayer(Stateful):
    """One LSTM layer (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    The forget gate's bias starts at 1: a fresh layer remembers (Jozefowicz et al. 2015).
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.width = hidden
        self.state_shapes = {"h": (hidden,), "c": (hidden,)}
        self.lstm = nn.LSTM(inputs, hidden)
        forget = slice(hidden, 2 * hidden)  # of torch's order i, f, g, o
        nn.init.ones_(self.lstm.get_parameter("bias_ih_l0")[forget])
        nn.init.zeros_(self.lstm.get_parameter("bias_hh_l0")[forget])  # torch adds the two

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        h, c = state
        y, (h, c) = self.lstm(x, (h.unsqueeze(0), c.unsqueeze(0)))
        return y, (h.squeeze(0), c.squeeze(0))


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
