"""GruLayer → one ONNX GRU node."""

from typing import Any

import torch
from torch import Tensor, nn

from edgernn.nets.layers import GruLayer
from edgernn_export.ops.order import onnx_weights, op, torch_weights

ORDER = (1, 0, 2)
"""torch's r, z, n ↔ ONNX's z, r, h: its own inverse."""


@torch.library.custom_op("edgernn::gru", mutates_args=())
def gru(x: Tensor, h: Tensor, w: Tensor, r: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, N, I), h (N, H), ONNX-ordered w (1, 3H, I), r (1, 3H, H), b (1, 6H) → y (T, N, H), h.

    Runs what the ONNX node will compute, through torch's own GRU.
    """
    parameters = torch_weights(w, r, b, ORDER)
    # biases, one layer, no dropout, not training, one direction, time first
    y, last = torch.gru(x, h.unsqueeze(0), parameters, True, 1, 0.0, False, False, False)
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
    """A GruLayer with its weights in ONNX's order."""

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, layer: GruLayer) -> None:
        super().__init__()
        for name, weight in zip("wrb", onnx_weights(layer.gru, ORDER), strict=True):
            self.register_buffer(name, weight)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        y, last = gru(x, h, self.w, self.r, self.b)
        return y, (last,)


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.gru.default: _onnx_gru}
