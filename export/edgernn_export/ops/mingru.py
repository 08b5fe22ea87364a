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
def mingru(x: Tensor, h: Tensor, w_z: Tensor, w_h: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, N, I), h (N, H), w_z and w_h (1, H, I), b (1, 6H) as ONNX has it → y (T, N, H), h.

    Runs what the ONNX node will compute: h' = z h + (1 − z) h̃.
    """
    b_z, _, b_h = torch.split(b[0], h.shape[1])[:3]
    z = x @ w_z[0].T + b_z
    y = linear_scan(torch.sigmoid(z), torch.sigmoid(-z) * (x @ w_h[0].T + b_h), h)
    return y, y[-1].clone()


@mingru.register_fake
def _(x: Tensor, h: Tensor, w_z: Tensor, w_h: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], x.shape[1], h.shape[1]), torch.empty_like(h)


def _onnx_mingru(x, h, w_z, w_h, b):  # type: ignore[no-untyped-def]  # traced by onnxscript
    hidden = h.shape[1]
    y, last = op.GRU(
        x,
        op.Concat(w_z, _zeros(1, hidden, x.shape[2]), w_h, axis=1),
        _zeros(1, 3 * hidden, hidden),
        b,
        None,
        op.Unsqueeze(h, [0]),
        hidden_size=hidden,
        activations=["Sigmoid", "Affine"],
        activation_alpha=[1.0],
        activation_beta=[0.0],
    )
    return op.Squeeze(y, [1]), op.Squeeze(last, [0])


def _zeros(*shape: int) -> Any:
    """Zeros that take no room in the file; ONNX Runtime makes them once, at load."""
    return op.ConstantOfShape(op.Constant(value=numpy_helper.from_array(np.array(shape))))


class ExportedMinGru(nn.Module):
    """A MinGruLayer as a GRU. ONNX's z keeps what ours replaces, so that its sign is turned; the
    reset gate has nothing to reset."""

    w_z: Tensor
    w_h: Tensor
    b: Tensor

    def __init__(self, layer: MinGruLayer) -> None:
        super().__init__()
        gate, candidate = layer.linear.weight.detach().chunk(2)
        self.register_buffer("w_z", -gate.unsqueeze(0))  # (1, H, I)
        self.register_buffer("w_h", candidate.unsqueeze(0).contiguous())
        gate, candidate = layer.linear.bias.detach().chunk(2)
        none = torch.zeros_like(gate)
        self.register_buffer("b", torch.cat([-gate, none, candidate, none, none, none])[None])

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        y, last = mingru(x, h, self.w_z, self.w_h, self.b)
        return y, (last,)


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.mingru.default: _onnx_mingru}
