"""Layers that look at the last few samples: the past as a state, windows over it, and a delay."""

from collections.abc import Mapping

import torch
from torch import Tensor

from edgernn.nets.layers import Stateful


def past_shapes(samples: int, inputs: int) -> Mapping[str, tuple[int, ...]]:
    """The state that holds the last `samples` inputs; none where nothing need be held."""
    return {"past": (samples, inputs)} if samples else {}


def with_past(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """x (T, N, I) behind its past, oldest first: (P + T, N, I), and the next past (N, P, I)."""
    if not state:
        return x, ()
    (past,) = state
    joined = torch.cat([past.transpose(0, 1), x])
    return joined, (joined.narrow(0, x.shape[0], past.shape[1]).transpose(0, 1).contiguous(),)


class Delay(Stateful):
    """The input of `samples` ago; zeros before the first."""

    def __init__(self, width: int, samples: int) -> None:
        super().__init__()
        self.width = width
        self.state_shapes = past_shapes(samples, width)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        joined, following = with_past(x, state)
        return joined.narrow(0, 0, x.shape[0]), following


class Lag(Stateful):
    """The input of one sample ago; zeros before the first. Its state has no axis for samples, so
    that a call of one sample has nothing to do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.state_shapes = {"last": (width,)}

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (last,) = state
        joined = torch.cat([last.unsqueeze(0), x])  # (T + 1, N, width)
        return joined[:-1], (joined[-1],)


class BackwardWindow(Stateful):
    """A layer run afresh for every sample over it and those before it, newest first.

    With `length` L the run for sample t sees t, t−1, …, t−L+1 and ends at the oldest: its
    features speak of that sample, knowing what came after it. This is the backward half of a
    bidirectional network that need not wait for the end of the stream (Graves and Schmidhuber 2005;
    a chunk of its own for every sample).
    """

    def __init__(self, inputs: int, layer: Stateful, length: int) -> None:
        """`length` ≥ 1 samples; `layer` takes `inputs`."""
        super().__init__()
        self.layer = layer
        self.width = layer.width
        self.length = length
        self._fresh = tuple(layer.state_shapes.values())
        self.state_shapes = past_shapes(length - 1, inputs)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        joined, following = with_past(x, state)
        samples, streams, inputs = x.shape
        newest = torch.arange(samples, device=x.device) + (self.length - 1)
        age = torch.arange(self.length, device=x.device)
        index = newest.unsqueeze(0) - age.unsqueeze(1)  # (L, T)
        runs = joined.index_select(0, index.reshape(-1))  # (L·T, N, I)
        runs = runs.reshape(self.length, samples * streams, inputs)
        fresh = [x.new_zeros(samples * streams, *shape) for shape in self._fresh]
        features, _ = self.layer(runs, *fresh)  # (L, T·N, width)
        return features[-1].reshape(samples, streams, self.width), following
