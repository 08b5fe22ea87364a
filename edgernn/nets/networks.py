"""Networks: features of the samples so far, put together from layers as `[network]` asks.

A new kind of layer is one class and one line in `NETWORKS`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice, pairwise
from types import MappingProxyType

import msgspec
import torch
from torch import Tensor, nn

from edgernn.errors import EdgernnError
from edgernn.nets.attention import Attention
from edgernn.nets.calendar import CYCLES
from edgernn.nets.convolution import CausalConv, TcnBlock
from edgernn.nets.gates import FastGrnnLayer, MinGruLayer
from edgernn.nets.layers import GruLayer, LstmLayer, RnnLayer, Stateful
from edgernn.nets.start import STARTS, initialise
from edgernn.nets.windows import BackwardWindow, Delay

BACKWARD = ("rnn", "lstm", "gru")
"""Kinds that can also run from the newest sample back."""


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[network]` in a training file."""

    kind: str = "gru"
    """One of `NETWORKS`."""
    hidden: int = 32
    """Width of each layer, 1 to 1024."""
    layers: int = 1
    """On top of each other, 1 to 8."""
    dropout: float = 0.0
    """Share of features dropped between layers while training, 0 to 0.9."""
    residual: bool = False
    """Every layer but the first adds to what it is given, instead of replacing it."""
    conv: int = 0
    """Taps of a causal convolution before the first layer, 2 to 256; 0 = none."""
    attention: int = 0
    """The last so many features are looked at once more, 2 to 1024; 0 = none."""
    direction: str = "causal"
    """"causal", or "bidirectional": also from the newest sample back, `look_ahead` samples late."""
    look_ahead: int = 0
    """Samples after the one that is judged, 1 to 1000, for "bidirectional" only."""
    branches: tuple[tuple[str, ...], ...] = ()
    """Groups of channel names, every channel in one: each group gets a network of its own."""
    activation: str = "tanh"
    """Of "rnn": "tanh" or "relu"."""
    rank: int = 0
    """Of the weight matrices of "fastgrnn", 1 to 1024; 0 = full."""
    kernel: int = 3
    """Taps of each convolution of "tcn", 2 to 64."""
    start: str = "default"
    """First weights: "default" (each layer's own), "xavier", "he" or "orthogonal"."""
    calendar: tuple[str, ...] = ()
    """What of a sample's time the network sees beside its values: "day", "week" or both, UTC."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("kind", tuple(NETWORKS)),
            ("direction", ("causal", "bidirectional")),
            ("activation", ("tanh", "relu")),
            ("start", tuple(STARTS)),
        ):
            if (word := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {word!r}")
        for name, low, high in (
            ("hidden", 1, 1024),
            ("layers", 1, 8),
            ("dropout", 0.0, 0.9),
            ("look_ahead", 0, 1000),
            ("rank", 0, 1024),
            ("kernel", 2, 64),
        ):
            if not low <= (number := getattr(self, name)) <= high:
                raise ValueError(f"{name}: expected {low:g}–{high:g}, got {number:g}")
        for name, high in (("conv", 256), ("attention", 1024)):
            if (number := getattr(self, name)) != 0 and not 2 <= number <= high:
                raise ValueError(f"{name}: expected 2–{high}, or 0 for none, got {number}")
        self._check_direction()
        self._check_branches()
        self._check_calendar()
        for name, default, kind in (
            ("activation", "tanh", "rnn"),
            ("rank", 0, "fastgrnn"),
            ("kernel", 3, "tcn"),
        ):
            if getattr(self, name) != default and self.kind != kind:
                raise ValueError(f'{name}: only for kind = "{kind}", here kind = "{self.kind}"')
        if self.residual and self.kind == "tcn":
            raise ValueError('residual: the blocks of kind = "tcn" add to their input already')

    def _check_direction(self) -> None:
        if self.direction == "causal" and self.look_ahead:
            raise ValueError(
                f"look_ahead: {self.look_ahead} samples of the future, but direction is "
                '"causal"; say direction = "bidirectional", or leave it out'
            )
        if self.direction == "bidirectional" and not self.look_ahead:
            raise ValueError('look_ahead: direction = "bidirectional" needs 1–1000 samples, got 0')
        if self.direction == "bidirectional" and self.kind not in BACKWARD:
            raise ValueError(
                f'direction: "bidirectional" is for kind {", ".join(BACKWARD)}, got {self.kind!r}'
            )

    def _check_branches(self) -> None:
        named: list[str] = []
        for i, branch in enumerate(self.branches):
            if not branch:
                raise ValueError(f"branches[{i}]: expected channel names, got none")
            for name in branch:
                if name in named:
                    raise ValueError(f"branches[{i}]: channel {name!r} is in two places")
                named.append(name)

    def _check_calendar(self) -> None:
        for i, cycle in enumerate(self.calendar):
            if cycle not in CYCLES:
                raise ValueError(f"calendar: expected of {', '.join(CYCLES)}, got {cycle!r}")
            if cycle in self.calendar[:i]:
                raise ValueError(f"calendar: {cycle!r} is named twice")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is asked for and has no effect, in sentences."""
        parts = self.layers + (self.conv > 0) + (self.attention > 0)
        idle = [("dropout", self.dropout > 0 and parts == 1 and self.kind != "tcn")]
        idle += [("residual", self.residual and self.layers + (self.conv > 0) == 1)]
        why = "acts between layers, and there is one"
        return tuple(f"network.{key} {why}" for key, is_idle in idle if is_idle)

    def __str__(self) -> str:
        """Such as "conv 5 → gru 32 ×2 → attention 16"."""
        parts = [f"conv {self.conv}"] if self.conv else []
        parts.append(f"{self.kind} {self.hidden}" + (f" ×{self.layers}" if self.layers > 1 else ""))
        parts += [f"attention {self.attention}"] if self.attention else []
        text = " → ".join(parts)
        text += f", {len(self.branches)} branches" if self.branches else ""
        text += f", time of {' and '.join(self.calendar)}" if self.calendar else ""
        return text + (f", {self.look_ahead} samples ahead" if self.look_ahead else "")


class Stack(Stateful):
    """Layers on top of each other; layer i's state `h` is the network's `layer.i.h`."""

    def __init__(
        self, layers: Sequence[Stateful], *, dropout: float = 0.0, residual: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self._adds = [
            residual and i > 0 and layers[i - 1].width == layer.width and not layer.is_residual
            for i, layer in enumerate(layers)
        ]
        self._counts = [len(layer.state_shapes) for layer in layers]
        self.width = layers[-1].width
        self.state_shapes = {
            f"layer.{i}.{name}": shape
            for i, layer in enumerate(layers)
            for name, shape in layer.state_shapes.items()
        }

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        left = iter(state)
        following: tuple[Tensor, ...] = ()
        for i, layer in enumerate(self.layers):
            given = self.dropout(x) if i else x
            y, after = layer(given, *islice(left, self._counts[i]))
            x = x + y if self._adds[i] else y  # (T, N, width)
            following += after
        return x, following


class Branches(Stateful):
    """Groups of inputs, each through a network of its own; their features side by side."""

    def __init__(self, groups: Sequence[Sequence[int]], networks: Sequence[Stateful]) -> None:
        """`groups`: which inputs each network is given."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._groups = [list(group) for group in groups]
        self._counts = [len(network.state_shapes) for network in networks]
        self.width = sum(network.width for network in networks)
        self.state_shapes = {
            f"branch.{i}.{name}": shape
            for i, network in enumerate(networks)
            for name, shape in network.state_shapes.items()
        }

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        left = iter(state)
        features, following = [], ()
        for group, network, count in zip(self._groups, self.networks, self._counts, strict=True):
            y, after = network(x[..., group], *islice(left, count))
            features.append(y)
            following += after
        return torch.cat(features, dim=-1), following


class Bidirectional(Stateful):
    """What was before a sample and what came after it, without the sample itself.

    Schuster and Paliwal (1997), for a stream: the way back is run afresh for every sample over the
    `look_ahead` samples after it, so features come that much later.
    """

    def __init__(self, forth: Stateful, back: BackwardWindow, *, look_ahead: int) -> None:
        super().__init__()
        self.look_ahead = look_ahead
        self.forth, self.back = forth, back
        self.before = Delay(forth.width, look_ahead + 1)
        self.width = forth.width + back.width
        parts = {"forth": forth, "before": self.before, "back": back}
        self._counts = [len(part.state_shapes) for part in parts.values()]
        self.state_shapes = {
            f"{part}.{name}": shape
            for part, module in parts.items()
            for name, shape in module.state_shapes.items()
        }

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        left = iter(state)
        forth, forth_next = self.forth(x, *islice(left, self._counts[0]))
        before, before_next = self.before(forth, *islice(left, self._counts[1]))
        after, after_next = self.back(x, *left)
        return torch.cat([before, after], dim=-1), (*forth_next, *before_next, *after_next)


Layer = Callable[[int, NetworkConfig, int], Stateful]
"""Inputs, `[network]`, and which layer of the stack it is → one layer."""

NETWORKS: Mapping[str, Layer] = MappingProxyType(
    {
        "rnn": lambda inputs, c, i: RnnLayer(inputs, c.hidden, activation=c.activation),
        "lstm": lambda inputs, c, i: LstmLayer(inputs, c.hidden),
        "gru": lambda inputs, c, i: GruLayer(inputs, c.hidden),
        "fastgrnn": lambda inputs, c, i: FastGrnnLayer(inputs, c.hidden, rank=c.rank),
        "mingru": lambda inputs, c, i: MinGruLayer(inputs, c.hidden),
        "tcn": lambda inputs, c, i: TcnBlock(
            inputs, c.hidden, kernel=c.kernel, dilation=2**i, dropout=c.dropout
        ),
    }
)


def build_network(channels: Sequence[str], config: NetworkConfig, *, seed: int) -> Stateful:
    """A freshly initialised network over scaled values, observed flags and, behind them, two
    columns for each cycle of the calendar: 2·C inputs or more; the same seed gives the same
    weights. Raises EdgernnError where `branches` do not fit the channels."""
    if not channels:
        raise EdgernnError("a network needs at least 1 channel, got none")
    count = len(channels)
    groups = _groups(channels, config.branches)
    times = range(2 * count, 2 * count + 2 * len(config.calendar))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = [_one_network(2 * len(group) + len(times), config) for group in groups]
        network = networks[0]
        if config.branches:
            inputs = [[*group, *(count + c for c in group), *times] for group in groups]
            network = Branches(inputs, networks)
        if config.direction == "bidirectional":
            layer = NETWORKS[config.kind](times.stop, config, 0)
            back = BackwardWindow(times.stop, layer, config.look_ahead)
            network = Bidirectional(network, back, look_ahead=config.look_ahead)
        initialise(network, config.start)
    return network


def _one_network(inputs: int, config: NetworkConfig) -> Stateful:
    front = [CausalConv(inputs, config.hidden, kernel=config.conv)] if config.conv else []
    widths = [config.hidden if front else inputs, *[config.hidden] * config.layers]
    layers = [NETWORKS[config.kind](w, config, i) for i, (w, _) in enumerate(pairwise(widths))]
    end = [Attention(config.hidden, config.attention)] if config.attention else []
    dropout = 0.0 if config.kind == "tcn" else config.dropout  # its blocks drop out on their own
    return Stack([*front, *layers, *end], dropout=dropout, residual=config.residual)


def _groups(channels: Sequence[str], branches: Sequence[Sequence[str]]) -> list[list[int]]:
    """Each branch as places in `channels`; all of them if there are no branches."""
    if len(branches) > len(channels):
        raise EdgernnError(
            f"network.branches: {len(branches)} branches for {len(channels)} channels "
            f"({', '.join(channels)}); expected at most one each"
        )
    named = [name for branch in branches for name in branch]
    if unknown := [name for name in named if name not in channels]:
        raise EdgernnError(
            f"network.branches: {', '.join(unknown)} is no channel; there are {', '.join(channels)}"
        )
    if branches and (left := [name for name in channels if name not in named]):
        raise EdgernnError(f"network.branches: {', '.join(left)} is in no branch")
    return [[channels.index(name) for name in branch] for branch in branches or [channels]]
