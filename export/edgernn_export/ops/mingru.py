"""MinGruLayer → one ONNX GRU node without recurrent weights."""

from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgernn.nets.gates import MinGruLayer
from edgernn.nets.scan import linear_scan
from edgernn_export.ops.order import op


@torch.library.custom_op("edgernn::mingru", mutates_args=())
def mingru(x: Tensor, h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, N, I), h (N, H), ONNX-ordered w (1, 3H, I), b (1, 6H) → y (T, N, H), h.

    Runs what the ONNX node will compute: h' = z h + (1 − z) h̃.
    """
    gates = x @ w[0].T + b[0, : w.shape[1]]
    z, _, candidate = gates.chunk(3, dim=-1)
    y = linear_scan(torch.sigmoid(z), torch.sigmoid(-z) * candidate, h)
    return y, y[-1].clone()


@mingru.register_fake
def _(x: Tensor, h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], x.shape[1], h.shape[1]), torch.empty_like(h)


def _onnx_mingru(x, h, w, b):  # type: ignore[no-untyped-def]  # traced by onnxscript
    hidden = h.shape[1]
    shape = numpy_helper.from_array(np.array([1, 3 * hidden, hidden], np.int64))
    y, last = op.GRU(
        x,
        w,
        op.ConstantOfShape(op.Constant(value=shape)),  # zeros that take no room in the file
        b,
        None,
        op.Unsqueeze(h, [0]),
        hidden_size=hidden,
        activations=["Sigmoid", "Affine"],
        activation_alpha=[1.0],
        activation_beta=[0.0],
    )
    return op.Squeeze(y, [1]), op.Squeeze(last, [0])


class ExportedMinGru(nn.Module):
    """A MinGruLayer as a GRU that keeps what minGRU replaces, z = 1 − ours: the sign of its gate
    turned. The reset gate has nothing to reset."""

    w: Tensor
    b: Tensor

    def __init__(self, layer: MinGruLayer) -> None:
        super().__init__()
        weight, bias = layer.linear.weight.detach(), layer.linear.bias.detach()
        self.register_buffer("w", _with_reset(weight).unsqueeze(0))
        self.register_buffer("b", torch.cat([_with_reset(bias), _with_reset(0 * bias)])[None])

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        y, last = mingru(x, h, self.w, self.b)
        return y, (last,)


def _with_reset(parameter: Tensor) -> Tensor:
    """(2H, …) z, h̃ → (3H, …) −z, 0, h̃."""
    gate, candidate = parameter.chunk(2)
    return torch.cat([-gate, torch.zeros_like(gate), candidate])


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.mingru.default: _onnx_mingru}
