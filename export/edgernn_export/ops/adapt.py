"""Learner → plain nodes for one sample, a Scan over them for several.

P and B lie side by side in one state, so that one product with φ gives both what is corrected and
which way to learn, and one outer product learns both.
"""

from typing import Any

import torch
from onnxscript import ir
from torch import Tensor, nn

from edgernn.nets.adapt import (
    LARGEST_CHANGE,
    LARGEST_LESSON,
    SMALLEST_VARIANCE,
    Learner,
    Paces,
    learn,
    walk,
)
from edgernn_export.ops.loop import Body, Values, sample_by_sample
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import number, split


@torch.library.custom_op("edgernn::adapt", mutates_args=())
def adapt(
    phi: Tensor,
    r: Tensor,
    observed: Tensor,
    scale: Tensor,
    recent: Tensor,
    readout: Tensor,
    usual: Tensor,
    unrest: Tensor,
    prior: Tensor,
    paces: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `Learner.forward` takes and gives them; prior (F, F + C): P, B where a stream begins."""
    state = scale.numpy(), recent.numpy(), readout.numpy()
    given = phi.numpy(), r.numpy(), observed.numpy()
    moved, judged, following = learn(*given, state, usual.numpy(), unrest.numpy(), Paces(*paces))
    s, m, a = (torch.from_numpy(one) for one in following)
    return torch.from_numpy(moved), torch.from_numpy(judged), s, m, a


@adapt.register_fake
def _(
    phi: Tensor,
    r: Tensor,
    observed: Tensor,
    scale: Tensor,
    recent: Tensor,
    readout: Tensor,
    usual: Tensor,
    unrest: Tensor,
    prior: Tensor,
    paces: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    s, m, a = (torch.empty_like(one) for one in (scale, recent, readout))
    return torch.empty_like(r), torch.empty_like(r), s, m, a


@torch.library.custom_op("edgernn::rescale", mutates_args=())
def rescale(
    r: Tensor,
    observed: Tensor,
    scale: Tensor,
    recent: Tensor,
    usual: Tensor,
    unrest: Tensor,
    paces: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """As `Learner.forward` takes and gives them, without a read-out: nothing moves."""
    state = scale.numpy(), recent.numpy()
    _, judged, (s, m) = learn(
        None, r.numpy(), observed.numpy(), state, usual.numpy(), unrest.numpy(), Paces(*paces)
    )
    return torch.from_numpy(judged), torch.from_numpy(s), torch.from_numpy(m)


@rescale.register_fake
def _(
    r: Tensor,
    observed: Tensor,
    scale: Tensor,
    recent: Tensor,
    usual: Tensor,
    unrest: Tensor,
    paces: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(r), torch.empty_like(scale), torch.empty_like(recent)


def _onnx_adapt(phi, r, observed, scale, recent, readout, usual, unrest, prior, paces):  # type: ignore[no-untyped-def]  # traced by onnxscript
    size, channels = phi.shape[2], r.shape[2]
    step = _step(Paces(*paces), usual, unrest, prior, channels, size)
    is_fresh = op.Equal(op.Slice(readout, [0, 0], [1, 1], [1, 2]), number(0.0))
    readout = op.Where(is_fresh, prior, readout)
    states = [channels], [2 * channels], [size, size + channels]
    rows = [*states, [size], [channels], [channels]]
    return sample_by_sample(step, [phi, r, observed], [scale, recent, readout], rows=rows)


def _onnx_rescale(r, observed, scale, recent, usual, unrest, paces):  # type: ignore[no-untyped-def]  # traced by onnxscript
    step = _step(Paces(*paces), usual, unrest, None, r.shape[2], 0)
    channels = r.shape[2]
    rows = [[channels], [2 * channels], [channels], [channels]]
    return sample_by_sample(step, [r, observed], [scale, recent], rows=rows)


def _step(
    paces: Paces,
    usual: ir.Value,
    unrest: ir.Value,
    prior: ir.Value | None,
    channels: int,
    size: int,
) -> Body:
    """The update of one sample, as `Learner` writes it; size 0: of the scale alone."""
    if size:
        forget = number(walk(size, channels, paces)[1])

    def limits(size: float) -> tuple[Any, Any]:
        return number(-size), number(size)

    def step(states: Values, sample: Values) -> tuple[Values, Values]:
        scale, recent, *rest = states
        *features, wanted, there = sample
        said = []
        if size:
            (a,), (phi,) = rest, features
            x = op.Unsqueeze(phi, [1])  # (N, 1, F)
            way, moved = split(op.MatMul(x, a), [size, channels], axis=2)
            moved = op.Squeeze(moved, [1])
            wanted = op.Mul(op.Sub(wanted, moved), there)
            said = [moved]
        factor = op.Exp(scale)
        error = op.Div(wanted, factor)
        m, more = split(recent, [channels, channels], axis=1)  # the mean, the variance − 1
        off = op.Clip(op.Sub(error, m), *limits(LARGEST_LESSON))
        square = op.Mul(off, off)
        weight = op.Mul(there, number(paces.recent))
        m = op.Add(m, op.Mul(weight, off))
        more = op.Add(more, op.Mul(weight, op.Sub(op.Sub(square, number(1.0)), more)))
        bounded = op.Max(more, number(SMALLEST_VARIANCE - 1.0))
        unlike = op.Sub(bounded, op.Log(op.Add(bounded, number(1.0))))
        u = op.Div(op.Add(op.Mul(m, m), unlike), usual)
        pace = op.Div(number(1.0 - paces.floor), op.Add(op.Mul(u, u), number(1.0)))
        w = op.Mul(there, op.Add(pace, number(paces.floor)))
        unruly = op.Sub(op.Div(square, op.Add(square, number(1.0))), unrest)
        change = op.Mul(op.Mul(w, number(paces.scale)), unruly)
        scale = op.Clip(op.Add(scale, change), *limits(LARGEST_CHANGE))
        following = [scale, op.Concat(m, more, axis=1)]
        if size:
            d = op.Clip(error, *limits(LARGEST_LESSON))
            turned = op.Reshape(way, [-1, size, 1])
            g = op.Squeeze(op.MatMul(x, turned), [2])  # (N, 1)
            most = op.ReduceMax(w, [1], keepdims=1)
            known = op.Neg(op.Div(most, op.Add(op.Mul(most, g), number(1.0))))
            lesson = op.Mul(op.Mul(w, d), factor)
            lesson = op.Div(lesson, op.Add(op.Mul(w, g), number(1.0)))
            row = op.Concat(
                op.Mul(way, op.Unsqueeze(known, [2])), op.Unsqueeze(lesson, [1]), axis=2
            )
            learnt = op.Add(a, op.Mul(turned, row))
            back = op.Mul(op.Sub(prior, a), op.Mul(op.Unsqueeze(most, [2]), forget))
            following.append(op.Add(learnt, back))
        return following, [*said, error]

    return step


class ExportedLearner(nn.Module):
    """A Learner as one opaque op."""

    usual: Tensor
    unrest: Tensor
    prior: Tensor

    def __init__(self, layer: Learner) -> None:
        super().__init__()
        self.paces = list(map(float, layer.paces))
        self.register_buffer("usual", layer.usual)
        self.register_buffer("unrest", layer.unrest)
        if layer.size:
            prior, _ = walk(layer.size, len(layer.usual), layer.paces)
            self.register_buffer("prior", torch.from_numpy(prior))

    def forward(
        self, phi: Tensor | None, r: Tensor, observed: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        if phi is None:
            judged, *following = rescale(r, observed, *state, self.usual, self.unrest, self.paces)
            return torch.zeros_like(r), judged, tuple(following)
        moved, judged, *following = adapt(
            phi, r, observed, *state, self.usual, self.unrest, self.prior, self.paces
        )
        return moved, judged, tuple(following)


TRANSLATION: dict[Any, Any] = {
    torch.ops.edgernn.adapt.default: _onnx_adapt,
    torch.ops.edgernn.rescale.default: _onnx_rescale,
}
