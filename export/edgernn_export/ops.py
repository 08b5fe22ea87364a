"""Stateful layers as the exporter sees them: one torch custom op each → one fused ONNX node each.

Why: `torch.onnx.export` freezes the time axis of `nn.GRU` to the example's length and unrolls or
splits the rest (pytorch#191855). A custom op is opaque to it, so T and N stay free. The weights are
put into ONNX's order beforehand, in torch, so that no Split or Concat of them is left in the graph.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from onnx import numpy_helper
from onnxscript import opset21
from torch import Tensor, nn

from edgernn.nets.layers import Ewma, GruLayer

op = cast("Any", opset21)  # its annotations know tensors only, not the lists it takes as well

# -- GRU ------------------------------------------------------------------------------------------


@torch.library.custom_op("edgernn::gru", mutates_args=())
def gru(x: Tensor, h: Tensor, w: Tensor, r: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, N, I), h (N, H), ONNX-ordered w (1, 3H, I), r (1, 3H, H), b (1, 6H) → y (T, N, H), h.

    Runs what the ONNX node will compute, through torch's own GRU.
    """
    hidden = h.shape[1]
    bias_w, bias_r = torch.split(b[0], 3 * hidden)
    parameters = [_gate_order(p, hidden) for p in (w[0], r[0], bias_w, bias_r)]
    y, last = torch.gru(
        x,
        h.unsqueeze(0),
        parameters,
        True,
        1,
        0.0,
        False,
        False,
        False,  # one layer, one direction
    )
    return y, last[0].clone()


@gru.register_fake
def _(x: Tensor, h: Tensor, w: Tensor, r: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], x.shape[1], h.shape[1]), torch.empty_like(h)


def _onnx_gru(x, h, w, r, b):  # type: ignore[no-untyped-def]  # traced by onnxscript
    y, last = op.GRU(
        x, w, r, b, None, op.Unsqueeze(h, [0]), hidden_size=h.shape[1], linear_before_reset=1
    )
    return op.Squeeze(y, [1]), op.Squeeze(last, [0])


class ExportedGru(nn.Module):
    """A GruLayer with its weights in ONNX's order: z, r, h instead of torch's r, z, n."""

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, layer: GruLayer) -> None:
        super().__init__()
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        p = [_gate_order(layer.gru.get_parameter(name).detach(), layer.width) for name in names]
        self.register_buffer("w", p[0].unsqueeze(0).contiguous())  # (1, 3H, I)
        self.register_buffer("r", p[1].unsqueeze(0).contiguous())  # (1, 3H, H)
        self.register_buffer("b", torch.cat(p[2:]).unsqueeze(0))  # (1, 6H)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        y, last = gru(x, h, self.w, self.r, self.b)
        return y, (last,)


def _gate_order(parameter: Tensor, hidden: int) -> Tensor:
    """(3H, …) with its first two gates swapped: r, z, n ↔ z, r, n. Its own inverse."""
    a, b, c = torch.split(parameter, hidden)
    return torch.cat([b, a, c])


# -- exponentially weighted mean ------------------------------------------------------------------


@torch.library.custom_op("edgernn::ewma", mutates_args=())
def ewma(x: Tensor, mean: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """x (T, N, K), mean (N, K) → means (T, N, K), the last (N, K)."""
    means, last = Ewma(alpha)(x, mean)
    return means, last.clone()


@ewma.register_fake
def _(x: Tensor, mean: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(mean)


def _onnx_ewma(x, mean, alpha):  # type: ignore[no-untyped-def]  # traced by onnxscript
    # An Elman node with one unit and no squashing is this mean. Every column of every stream is a
    # row of its batch, so that its weights are two numbers.
    y, last = op.RNN(
        op.Reshape(x, [0, -1, 1]),
        _constant(alpha),
        _constant(1.0 - alpha),
        None,
        None,
        op.Reshape(mean, [1, -1, 1]),
        hidden_size=1,
        activations=["Affine"],
        activation_alpha=[1.0],
        activation_beta=[0.0],
    )
    return op.Reshape(y, op.Shape(x)), op.Reshape(last, op.Shape(mean))


def _constant(value: float) -> Any:
    return op.Constant(value=numpy_helper.from_array(np.full((1, 1, 1), value, np.float32)))


class ExportedEwma(nn.Module):
    """An Ewma as one opaque op."""

    def __init__(self, layer: Ewma) -> None:
        super().__init__()
        self.alpha = layer.alpha

    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        means, last = ewma(x, mean, self.alpha)
        return means, last


EXPORTED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    GruLayer: ExportedGru,
    Ewma: ExportedEwma,
}
"""What stands in for each layer of `edgernn.nets.layers` while exporting."""

TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.edgernn.gru.default: _onnx_gru,
    torch.ops.edgernn.ewma.default: _onnx_ewma,
}
"""Custom op → the ONNX nodes it becomes."""
