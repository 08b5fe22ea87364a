"""Heads: what a detector says of a sample, a mean and a spread for every channel.

A head speaks at sample t of sample t − `delay`, without having seen that one plainly: from the
samples around it, or through a bottleneck.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
import torch
from torch import Tensor, nn

from edgernn.errors import EdgernnError
from edgernn.nets.layers import GruLayer, Stateful
from edgernn.nets.windows import Delay, Lag

LOG_SCALE_RANGE = (-5.0, 3.0)
"""The spread stays between 0.7 % and 20 times the channel's own standard deviation."""


class HeadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[head]` in a training file."""

    kinds: tuple[str, ...] = ("forecast",)
    """One or several of "forecast", "reconstruct", "encoder-decoder"; each is judged on its own,
    and the loudest one speaks."""
    bottleneck: int = 0
    """Width of what "reconstruct" rebuilds a sample from, below the number of channels; 0 = half
    of that."""
    window: int = 20
    """Samples that "encoder-decoder" rebuilds, 2 to 1000; it speaks of the one in their middle."""

    def __post_init__(self) -> None:
        for i, kind in enumerate(self.kinds):
            if kind not in HEADS:
                raise ValueError(f"kinds: expected of {', '.join(HEADS)}, got {kind!r}")
            if kind in self.kinds[:i]:
                raise ValueError(f"kinds: {kind!r} is named twice")
        if not self.kinds:
            raise ValueError(f"kinds: expected at least one of {', '.join(HEADS)}")
        if not 0 <= self.bottleneck <= 1024:
            raise ValueError(f"bottleneck: expected 0–1024, got {self.bottleneck}")
        if not 2 <= self.window <= 1000:
            raise ValueError(f"window: expected 2–1000 samples, got {self.window}")
        for name, default, kind in (
            ("bottleneck", 0, "reconstruct"),
            ("window", 20, "encoder-decoder"),
        ):
            if getattr(self, name) != default and kind not in self.kinds:
                raise ValueError(f'{name}: only for "{kind}", which is not among the kinds')


class ReadOut(nn.Module):
    """Features → a Gaussian for every channel."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.linear.bias)  # a fresh one says: mean 0, spread near 1

    def forward(self, features: Tensor) -> Tensor:
        """features (…, width) → (…, 2·C): means, then log standard deviations."""
        said: Tensor = self.linear(features)
        return said

    def widen(self, factor: Tensor) -> None:
        """Multiply every standard deviation by `factor` (C,), for calibration."""
        with torch.no_grad():
            self.linear.bias[self.channels :] += factor.log()


class Head(nn.Module, ABC):
    """One way to say what a sample should have been."""

    delay: int
    """What is said at t is about sample t − delay."""
    state_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Name → shape of one stream's row, in the order `forward` takes them. Fresh states are 0."""
    read_out: ReadOut

    @abstractmethod
    def forward(
        self, features: Tensor, seen: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """features (T, N, width); seen (T, N, 2·C), scaled values and 1 where observed; states
        (N, …) → means and log standard deviations (T, N, 2·C) in scaled units, next states."""

    def window_loss(self, features: Tensor, z: Tensor, observed: Tensor) -> Tensor | None:
        """Mean negative log-likelihood of a value of what the head says beyond the one sample it
        is judged by; None if that is all it says. features (T, N, width), z, observed (T, N, C)."""
        return None


class ForecastHead(Head):
    """The next sample, from the features of those before it.

    Features that look ahead come without the sample they surround: then nothing waits.
    """

    def __init__(self, network: Stateful, channels: int, config: HeadConfig) -> None:
        super().__init__()
        self.delay = network.look_ahead
        self.read_out = ReadOut(network.width, channels)
        self.next = Lag(2 * channels)
        if not self.delay:
            self.state_shapes = {"next": (2 * channels,)}

    def forward(
        self, features: Tensor, seen: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        said = self.read_out(features)
        if self.delay:
            return said, ()
        before, following = self.next(said, *state)
        return before, following


class ReconstructHead(Head):
    """The sample itself through a bottleneck narrower than it: channels that contradict each other
    do not fit through. The features say how they usually go together just now."""

    def __init__(self, network: Stateful, channels: int, config: HeadConfig) -> None:
        super().__init__()
        if channels < 2:
            raise EdgernnError(
                'head.kinds: "reconstruct" rebuilds a channel from the others, and there is only 1'
            )
        bottleneck = config.bottleneck or channels // 2
        if bottleneck >= channels:
            raise EdgernnError(
                f"head.bottleneck: expected 1–{channels - 1} for {channels} channels, "
                f"got {bottleneck}"
            )
        self.delay = network.look_ahead
        self.target = Delay(2 * channels, self.delay)
        self.state_shapes = self.target.state_shapes
        self.encode = nn.Linear(network.width + 2 * channels, bottleneck)
        self.read_out = ReadOut(bottleneck, channels)

    def forward(
        self, features: Tensor, seen: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        target, following = self.target(seen, *state)
        code = self.encode(torch.cat([features, target], dim=-1))  # (T, N, bottleneck)
        return self.read_out(torch.tanh(code)), following


class EncoderDecoderHead(Head):
    """The last samples, newest first, out of one vector (Malhotra et al. 2016, "LSTM-based
    encoder-decoder for multi-sensor anomaly detection").

    The encoder is the detector's own network, which remembers more than the window; the decoder is
    a GRU that is fed nothing. It speaks of the sample in the window's middle, known from both
    sides, and so comes half a window late.
    """

    def __init__(self, network: Stateful, channels: int, config: HeadConfig) -> None:
        super().__init__()
        self.window = config.window
        self.delay = config.window // 2
        self.width = network.width
        self.encode = nn.Linear(self.width, self.width)
        self.decoder = GruLayer(1, self.width)
        self.read_out = ReadOut(self.width, channels)

    def forward(
        self, features: Tensor, seen: Tensor, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self._decode(features, self.delay + 1)[-1], ()

    def window_loss(self, features: Tensor, z: Tensor, observed: Tensor) -> Tensor | None:
        if len(z) < self.window:
            return None
        ends = torch.arange(self.window - 1, len(z), max(1, self.window // 4), device=z.device)
        ages = torch.arange(self.window, device=z.device)
        when = ends.unsqueeze(0) - ages.unsqueeze(1)  # (W, windows), newest first
        mean, log_scale = split(self._decode(features[ends], self.window))
        there = observed[when]  # (W, windows, N, C)
        return (gaussian_nll(z[when], mean, log_scale) * there).sum() / there.sum().clamp(min=1)

    def _decode(self, features: Tensor, steps: int) -> Tensor:
        """features (T, N, width) → (steps, T, N, 2·C), of samples t, t − 1, …"""
        t, n, _ = features.shape
        vector = torch.tanh(self.encode(features))  # (T, N, W)
        nothing = vector.new_zeros(steps, t * n, 1)
        y, _ = self.decoder(nothing, vector.reshape(t * n, self.width))
        said: Tensor = self.read_out(y.reshape(steps, t, n, self.width))
        return said


HEADS: Mapping[str, Callable[[Stateful, int, HeadConfig], Head]] = MappingProxyType(
    {
        "forecast": ForecastHead,
        "reconstruct": ReconstructHead,
        "encoder-decoder": EncoderDecoderHead,
    }
)


def split(said: Tensor) -> tuple[Tensor, Tensor]:
    """(…, 2·C) → mean (…, C), log standard deviation (…, C), in scaled units."""
    mean, log_scale = said.chunk(2, dim=-1)
    return mean, log_scale.clamp(*LOG_SCALE_RANGE)


def gaussian_nll(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """−log of the Gaussian density, elementwise, same shape as `z`."""
    r = (z - mean) / torch.exp(log_scale)
    return 0.5 * r * r + log_scale + 0.5 * math.log(2 * math.pi)
