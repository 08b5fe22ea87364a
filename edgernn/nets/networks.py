"""Networks: features of the samples so far. A new kind is one class and one line in `NETWORKS`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
import torch
from torch import Tensor, nn

from edgernn.errors import EdgernnError
from edgernn.nets.layers import GruLayer


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


class Network(nn.Module, ABC):
    """Turns inputs into features, sample by sample, with every memory an explicit state."""

    width: int
    """Features per sample."""
    state_shapes: Mapping[str, tuple[int, ...]]
    """Name → shape of one stream's row, in the order `forward` takes them. Fresh states are 0."""

    @abstractmethod
    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, N, inputs), states (N, …) → features (T, N, width), next states (N, …)."""


class GruNetwork(Network):
    """A stack of GRU layers."""

    def __init__(self, inputs: int, config: NetworkConfig) -> None:
        super().__init__()
        self.width = config.hidden
        self.layers = nn.ModuleList(
            GruLayer(inputs if i == 0 else config.hidden, config.hidden)
            for i in range(config.layers)
        )
        self.state_shapes = {f"gru.{i}": (config.hidden,) for i in range(config.layers)}

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        following = []
        for layer, h in zip(self.layers, state, strict=True):
            x, h_next = layer(x, h)  # (T, N, H), (N, H)
            following.append(h_next)
        return x, tuple(following)


NETWORKS: Mapping[str, type[GruNetwork]] = MappingProxyType({"gru": GruNetwork})


def build_network(inputs: int, config: NetworkConfig, *, seed: int) -> Network:
    """A freshly initialised network; the same seed gives the same weights."""
    if inputs < 1:
        raise EdgernnError(f"a network needs at least 1 input, got {inputs}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[config.kind](inputs, config)
