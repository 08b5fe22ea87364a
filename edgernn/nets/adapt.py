"""What a detector goes on learning on the device: its read-out, and how large errors usually are.

Both work on residuals of a trained head, in standard deviations it said. A correction, linear in
the head's features, is learnt by recursive least squares; a scale for each channel follows how much
residuals vary. Weights, covariance and scale are states like any other, all 0 where a stream
begins: then the head speaks as it was trained. Only arithmetic is in the graph, no gradient.

What is surprising is learnt slowly, so that a fault is not learnt away while it lasts. How
surprising a channel has been of late is asked after the sample was judged, never before.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgernn.nets.layers import Stateful
from edgernn.nets.windows import Delay, Lag

Floats = NDArray[np.float32]

MEMORY, GUARD, FEATURES = 10_000, 100.0, 16
"""Defaults of `AdaptConfig`."""
EARLIER_GUARD = 20.0
"""The default before levels were learnt faster: runs that do not adapt say it as well."""
LARGEST_BEFORE = 1e4
"""Standard deviations of a residual that is corrected: a level may wander far from where it was
trained, and only infinities are kept out."""
LARGEST_FEATURE = 5.0
"""Standard deviations of a feature on healthy data."""
LEVEL_PACE = 5.0
"""How many times faster than the directions each channel's level is learnt: what drifts is first of
all a sensor's zero, and one number of a channel is known sooner than a direction of many features.
A regressor that is this constant in place of 1 does it: its covariance settles at 1/(5 · memory),
and 5² of that is the weight of a sample. No other regressor may be larger, nor this one."""
LARGEST_LESSON = 5.0
"""Standard deviations of a residual that is learnt from."""
LARGEST_FACTOR = 8.0
"""Of the trained spread, either way."""
SMALLEST_VARIANCE = 0.01
"""Of recent residuals, relative to the spread's: a frozen sensor is at this floor."""
PRIOR_PACE = 10.0
"""How many times faster than in the long run a fresh stream may learn."""
NORMAL_UNREST = 0.344
"""Mean of o²/(1 + o²) of normal residuals."""
LARGEST_CHANGE = math.log(LARGEST_FACTOR)
SCALE_PACE = 3.0
"""Of the scale's steps. Near 1 the mean of o²/(1 + o²) answers to the logarithm of the scale with
a slope of −1/3 for normal residuals, so that 3/memory a sample follows in `memory` samples."""


class AdaptConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[adapt]` in a training file."""

    readout: bool = False
    """Whether the forecast's read-out goes on learning."""
    scale: bool = False
    """Whether each channel's spread follows its residuals."""
    memory: int = MEMORY
    """Samples that it takes to learn what is new but not surprising, 100 to 1,000,000: directions
    of the features and scales; levels are learnt five times as fast."""
    guard: float = GUARD
    """How many times slower the surprising is learnt, 1 (as fast as all else) to 1000."""
    features: int = FEATURES
    """Directions of the network's features that the read-out is corrected by, 0 to 32; 0 = a level
    for each channel alone."""

    def __post_init__(self) -> None:
        if not 100 <= self.memory <= 1_000_000:
            raise ValueError(f"memory: expected 100–1000000 samples, got {self.memory}")
        if not 1 <= self.guard <= 1000:
            raise ValueError(f"guard: expected 1–1000, got {self.guard:g}")
        if not 0 <= self.features <= 32:
            raise ValueError(f"features: expected 0–32, got {self.features}")
        if self.features != FEATURES and not self.readout:
            raise ValueError("features: only with readout = true")
        asked = self.memory != MEMORY or self.guard not in (GUARD, EARLIER_GUARD)
        if asked and not self.is_on:
            raise ValueError(
                "readout: expected true, or scale = true, beside memory or guard: nothing adapts"
            )

    @property
    def is_on(self) -> bool:
        return self.readout or self.scale


class Paces(NamedTuple):
    """Numbers of the update that no recording changes."""

    recent: float
    """Weight of a sample among the recent ones."""
    floor: float
    """Share of its pace that learning keeps, however surprising a sample is."""
    prior: float
    """Variance of each weight's correction where a stream begins."""
    forget: float
    """Share of the way back to that variance, a sample."""
    scale: float
    """Of the logarithm of the scale, a sample; 0 where it does not follow."""

    @classmethod
    def of(cls, config: AdaptConfig, span: int) -> "Paces":
        """Weights are taken to walk at random, 1/memory² a sample: over features of variance 1
        their covariance settles at 1/memory, and so does the weight of a sample."""
        return cls(
            recent=2.0 / (span + 1),
            floor=1.0 / config.guard,
            prior=PRIOR_PACE / config.memory,
            forget=1.0 / (PRIOR_PACE * config.memory),
            scale=SCALE_PACE / config.memory if config.scale else 0.0,
        )


class Adapter(nn.Module):
    """One head's residuals, corrected and rescaled by what was learnt before each sample."""

    basis: Tensor
    origin: Tensor

    def __init__(
        self, width: int, channels: int, config: AdaptConfig, *, span: int, waits: int | None
    ) -> None:
        """`width`: of the head's features. `span`: samples that are recent. `waits`: how many
        samples the features come before what is said from them, 1 for a plain forecast; None:
        the head's read-out does not learn, its scale alone follows."""
        super().__init__()
        self.waits = waits
        size = 0
        shapes: dict[str, tuple[int, ...]] = {}
        if waits is not None:
            size = 1 + min(config.features, width)
            self.register_buffer("basis", torch.zeros(width, size))
            self.register_buffer("origin", -LEVEL_PACE * torch.eye(size)[0])  # the level's
            self.wait: Stateful = Lag(size) if waits == 1 else Delay(size, waits)
            shapes |= self.wait.state_shapes
        self.waiting = len(shapes)
        self.learner = Learner(channels, size, Paces.of(config, span), span)
        self.state_shapes: Mapping[str, tuple[int, ...]] = {**shapes, **self.learner.state_shapes}

    def forward(
        self, features: Tensor, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """features (T, N, width) as they come; residuals of sample t − delay in standard
        deviations and 1 where observed, both (T, N, C); states (N, …) → by how much the mean
        moves, in the same unit, and the residuals from there in standard deviations as they are
        now, both (T, N, C); next states."""
        r = r.clamp(-LARGEST_BEFORE, LARGEST_BEFORE)
        if self.waits is None:
            moved, r, following = self.learner(None, r, observed, *state)
            return moved, r, following
        phi, waiting = self.wait(self.regressors(features), *state[: self.waiting])
        moved, r, following = self.learner(phi, r, observed, *state[self.waiting :])
        return moved, r, (*waiting, *following)

    def regressors(self, features: Tensor) -> Tensor:
        """features (…, width) → `LEVEL_PACE` and the directions they vary in, scaled to variance 1,
        (…, F)."""
        return (features @ self.basis - self.origin).clamp(-LARGEST_FEATURE, LARGEST_FEATURE)

    def span_directions(self, mean: NDArray[np.float64], basis: NDArray[np.float64]) -> None:
        """Take over what healthy features (width,) are on average, and the directions (width,
        F − 1) that they vary in by 1."""
        self.basis[:, 1:] = torch.from_numpy(basis)
        self.origin[1:] = torch.from_numpy(mean @ basis)


class Learner(nn.Module):
    """The update, sample by sample. The exporter knows it by its class: this is its twin.

    φ (N, F) are the features of a sample, r (N, C) its residuals in trained standard deviations, P
    (N, F, F) the covariance of the corrections B (N, F, C), s (N, C) the scale:

        judged:  r' = (r − φB) / s
        recent:  o = r' − m clipped,  m += α o,  v += α (o² − v),  α = 2 / (span + 1)
        guard:   u = (m² + v − 1 − ln v) / usual,  w = 1/guard + (1 − 1/guard) / (1 + u²)
        learnt:  B += Pφ · w d s / (1 + w φPφ),  d = r' clipped
                 P −= Pφ · Pφ · W / (1 + W φPφ),  P += W · forget · (prior · 1 − P),  W = max w
        scale:   ln s += pace · w · (o² / (1 + o²) − unrest)

    w is 0 where a channel is missing: nothing of it changes, and in a gap nothing at all. All
    channels share P, as the surest of them has it: who learns slowly is never too sure to learn on.
    Source: the Kalman filter of a regression whose weights walk at random (Haykin, Adaptive Filter
    Theory, ch. 14), with the walk ending at the prior's covariance; u is the window view's.
    """

    usual: Tensor
    unrest: Tensor

    def __init__(self, channels: int, size: int, paces: Paces, span: int) -> None:
        """`size`: F, 0 where no read-out learns. `usual` and `unrest` are of healthy data: what u
        seldom exceeds, and the mean of o² / (1 + o²); both (C,)."""
        super().__init__()
        self.size = size
        self.paces = paces
        self.span = span
        shapes: dict[str, tuple[int, ...]] = {"scale": (channels,), "recent": (2 * channels,)}
        if size:
            shapes["readout"] = (size, size + channels)
        self.state_shapes: Mapping[str, tuple[int, ...]] = shapes
        self.register_buffer("usual", torch.ones(channels))
        self.register_buffer("unrest", torch.full((channels,), NORMAL_UNREST))

    def forward(
        self, phi: Tensor | None, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """φ (T, N, F), r and observed (T, N, C); states: ln s (N, C), m and v − 1 (N, 2·C), P and B
        (N, F, F + C) → φB, r' (T, N, C), next states."""
        moved, judged, following = learn(
            None if phi is None else phi.detach().numpy(),  # no gradient goes through a state
            r.detach().numpy(),
            observed.numpy(),
            tuple(one.numpy() for one in state),
            self.usual.numpy(),
            self.unrest.numpy(),
            self.paces,
        )
        return (
            torch.from_numpy(moved),
            torch.from_numpy(judged),
            tuple(torch.from_numpy(one) for one in following),
        )


def learn(
    phi: Floats | None,
    r: Floats,
    observed: Floats,
    state: tuple[Floats, ...],
    usual: Floats,
    unrest: Floats,
    paces: Paces,
) -> tuple[Floats, Floats, tuple[Floats, ...]]:
    """`Learner.forward` in NumPy, whose small steps take a third of torch's: a loop over samples,
    as each is judged by what was learnt from those before it."""
    scale, recent, *rest = state
    channels = r.shape[-1]
    moved, judged = np.zeros_like(r), np.empty_like(r)
    m, v = recent[:, :channels], 1 + recent[:, channels:]
    if phi is not None:
        size = phi.shape[-1]
        prior, forget = walk(size, channels, paces)
        a = np.where(rest[0][:, :1, :1] == 0, prior, rest[0])  # a fresh stream's is all 0
        row = np.empty((len(a), 1, size + channels), np.float32)
    for t in range(len(r)):
        there, wanted = observed[t], r[t]
        if phi is not None:
            x = phi[t]
            both = (x[:, None] @ a)[:, 0]  # (N, F + C): Pφ and φB
            way = both[:, :size]
            moved[t] = both[:, size:]
            wanted = wanted - moved[t]
        factor = np.exp(scale)
        error = wanted * there / factor
        judged[t] = error
        m, v, square = look_back(error, there, m, v, paces.recent)
        u = guard_of(m, v) / usual
        w = there * (paces.floor + (1 - paces.floor) / (1 + u * u))  # (N, C)
        if phi is not None:
            d = np.minimum(np.maximum(error, -LARGEST_LESSON), LARGEST_LESSON)
            g = (way * x).sum(-1, keepdims=True)  # (N, 1)
            most = w.max(-1, keepdims=True)
            row[:, 0, :size] = -way * (most / (1 + most * g))
            row[:, 0, size:] = w * d * factor / (1 + w * g)
            a = a + way[:, :, None] * row + (most * forget)[:, None] * (prior - a)
        scale = scale + paces.scale * w * (square / (1 + square) - unrest)
        scale = np.minimum(np.maximum(scale, -LARGEST_CHANGE), LARGEST_CHANGE)
    following = (scale, np.concatenate([m, v - 1], axis=-1))
    return moved, judged, following if phi is None else (*following, a)


def walk(size: int, channels: int, paces: Paces) -> tuple[Floats, Floats]:
    """P and B where a stream begins (F, F + C), and which share of the way back each column goes
    a sample (F + C,): none of B's."""
    prior = np.zeros((size, size + channels), np.float32)
    np.fill_diagonal(prior, paces.prior)
    forget = np.zeros(size + channels, np.float32)
    forget[:size] = paces.forget
    return prior, forget


def look_back(
    error: Floats, there: Floats, m: Floats, v: Floats, share: float
) -> tuple[Floats, Floats, Floats]:
    """Mean m and variance v of recent residuals once one more is known, and how far it was off the
    mean before, squared. One wild sample moves neither by more than a few standard deviations."""
    off = np.minimum(np.maximum(error - m, -LARGEST_LESSON), LARGEST_LESSON)
    step, square = share * there, off * off
    return m + step * off, v + step * (square - v), square


def guard_of(m: Floats, v: Floats) -> Floats:
    """How unlike N(0, 1) recent residuals of mean m and variance v are, ≥ 0: twice the window
    view's surprise for each sample of the window."""
    v = np.maximum(v, SMALLEST_VARIANCE)
    return m * m + (v - 1 - np.log(v))
