"""How far back the gradient reaches: does the loss still teach anything of what came long ago?"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.nets.model import Model
from edgernn.training.stretches import Lanes

PLACES = 8
"""Moments in the recording that are looked back from."""
SHARE = 0.01
"""Of the largest norm: below it, what was so long ago teaches nothing beside what is nearer."""
SHORT = 16
"""The gradient vanishes when it reaches less than a chunk's 16th part."""
GROWTH = 10.0
"""The gradient explodes when a sample more than half a chunk old weighs so many times what the
newest does, and none weighs more."""


class Reach(NamedTuple):
    """The gradient of a loss with respect to the samples before it."""

    norms: NDArray[np.float64]
    """(K,) mean norm at lags 1 to K, per standard deviation of a channel."""
    chunk: int
    """Samples that training lets the gradient go back."""

    @property
    def samples(self) -> int:
        """The longest lag at which the norm is still a hundredth of the largest."""
        there = (self.norms > 0) & (self.norms >= SHARE * self.norms.max())
        return int(np.flatnonzero(there)[-1]) + 1 if there.any() else 0

    @property
    def peak(self) -> int:
        """The lag of the largest norm, or of the first that is no finite number."""
        return int(np.where(np.isfinite(self.norms), self.norms, np.inf).argmax()) + 1

    @property
    def explodes(self) -> bool:
        grown = self.norms.max() > GROWTH * self.norms[0] and self.peak > self.chunk // 2 + 1
        return bool(grown or not np.isfinite(self.norms).all())

    @property
    def vanishes(self) -> bool:
        return not self.explodes and self.samples < max(3, self.chunk / SHORT)

    def sentences(self, kind: str) -> list[str]:
        """What it comes to, and what to change, for a network of this `network.kind`."""
        if self.explodes:
            largest, newest = self.norms[self.peak - 1], self.norms[0]
            if not np.isfinite(largest):
                much = "no finite number"
            elif newest > 0:
                much = f"{largest / newest:.3g} times as large as 1 sample back"
            else:
                much = f"{largest:.3g}, and 0 1 sample back"
            return [
                f"the gradient explodes: {self.peak} samples back it is {much}",
                "lower training.clip_norm or training.learning_rate, set "
                'network.start = "orthogonal", or take a shorter training.chunk',
            ]
        back = f"the gradient reaches back {self.samples} of {self.chunk} samples of a chunk"
        if not self.vanishes:
            return [f"{back}, then it is below {SHARE:.0%} of its largest norm"]
        other = (
            'network.start = "orthogonal"' if kind in ("gru", "lstm") else 'network.kind = "gru"'
        )
        return [
            f"{back}: it vanishes",
            f"what is older is not learnt; set {other}, or if nothing older matters, "
            f"a shorter training.chunk",
        ]


def measure_reach(model: Model, lanes: Lanes, *, chunk: int) -> Reach:
    """Gradient of the loss at a sample with respect to the samples up to two chunks before it.

    Samples as `loss` takes them. Any network has inputs, so this asks for nothing but `loss`: the
    last sample's loss, with the state that came out of the samples before it. Norms are means over
    the streams and over moments in the first part of them, with the state carried on. Model and
    samples on the CPU: cuDNN has no gradient through a network that is not training.
    """
    model.eval()
    x = lanes.x
    span = min(2 * chunk, len(x) - 1)
    places = max(1, min(PLACES, (len(x) - 1) // span))
    state = model.fresh_state(x.shape[1])
    norms = torch.zeros(span, dtype=torch.float64)
    for place in range(places):
        state = model.set_clock(state, lanes.times_at(place * span))
        block = x[place * span : (place + 1) * span].detach().requires_grad_()
        target = x[(place + 1) * span : (place + 1) * span + 1]
        _, _, after = model.loss(block, torch.zeros_like(block), *state)
        loss, values, _ = model.loss(target, torch.zeros_like(target), *after)
        (gradient,) = torch.autograd.grad(loss / values.clamp(min=1), block)  # (K, N, C)
        per_deviation = gradient[..., : model.channels].double() * model.scale
        norms += per_deviation.norm(dim=-1).mean(-1).flip(0) / places  # newest first
        state = tuple(s.detach() for s in after)
    return Reach(norms.numpy(), chunk)
