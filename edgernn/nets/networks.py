"""Networks: features of the samples so far. A new kind is one class and one line in `NETWORKS`."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import msgspec
import torch
from torch import Tensor, nn

from edgernn.errors import EdgernnError
from edgernn.nets.layers import GruLayer, Stateful


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[network]` in a training file."""

    kind: str = "gru"
    hidden: int = 32
    """Width of each layer, 1 to 1024."""
    layers: int = 1
    """1 to 8."""

    def __post_init__(self) -> None:
        if self.kind not in NETWORKS:
            raise ValueError(f"kind: expected one of {', '.join(NETWORKS)}, got {self.kind!r}")
        if not 1 <= self.hidden <= 1024:
            raise ValueError(f"hidden: expected 1–1024, got {self.hidden}")
        if not 1 <= self.layers <= 8:
            raise ValueError(f"layers: expected 1–8, got {self.layers}")


class Stack(Stateful):
    """Layers on top of each other; layer i's state `h` is the network's `layer.i.h`."""

    def __init__(self, layers: Sequence[Stateful]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._counts = [len(layer.state_shapes) for layer in layers]
        self.width = layers[-1].width
        self.state_shapes = {
            f"layer.{i}.{name}": shape
            for i, layer in enumerate(layers)
            for name, shape in layer.state_shapes.items()
        }

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        following: tuple[Tensor, ...] = ()
        for layer, count in zip(self.layers, self._counts, strict=True):
            mine, state = state[:count], state[count:]
            x, after = layer(x, *mine)  # (T, N, width)
            following += after
        return x, following


Cell = Callable[[int, int], Stateful]
"""Inputs and width → one layer."""

NETWORKS: Mapping[str, Cell] = MappingProxyType({"gru": GruLayer})


def build_network(inputs: int, config: NetworkConfig, *, seed: int) -> Stateful:
    """A freshly initialised network; the same seed gives the same weights."""
    if inputs < 1:
        raise EdgernnError(f"a network needs at least 1 input, got {inputs}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [inputs, *[config.hidden] * config.layers]
        return Stack([NETWORKS[config.kind](*pair) for pair in pairwise(widths)])
