"""LstmLayer → one ONNX LSTM node."""

from typing import Any

import torch
from torch import Tensor, nn

from edgernn.nets.layers import LstmLayer
from edgernn_export.ops.order import onnx_weights, op, torch_weights

ORDER = (0, 3, 1, 2)
"""torch's i, f, g, o → ONNX's i, o, f, c."""
BACK = (0, 2, 3, 1)


@torch.library.custom_op("edgernn::lstm", mutates_args=())
def lstm(
    x: Tensor, h: Tensor, c: Tensor, w: Tensor, r: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x (T, N, I), h and c (N, H), ONNX-ordered w (1, 4H, I), r (1, 4H, H), b (1, 8H) →
    y (T, N, H), h, c. Runs what the ONNX node will compute, through torch's own LSTM."""
    parameters = torch_weights(w, r, b, BACK)
    # biases, one layer, no dropout, not training, one direction, time first
    y, h, c = torch.lstm(x, (h[None], c[None]), parameters, True, 1, 0.0, False, False, False)
    return y, h[0].clone(), c[0].clone()


@lstm.register_fake
def _(
    x: Tensor, h: Tensor, c: Tensor, w: Tensor, r: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    y = x.new_empty(x.shape[0], x.shape[1], h.shape[1])
    return y, torch.empty_like(h), torch.empty_like(c)


def _onnx_lstm(x, h, c, w, r, b):  # type: ignore[no-untyped-def]  # traced by onnxscript
    first = op.Unsqueeze(h, [0]), op.Unsqueeze(c, [0])
    y, h, c = op.LSTM(x, w, r, b, None, *first, hidden_size=h.shape[1])
    return op.Squeeze(y, [1]), op.Squeeze(h, [0]), op.Squeeze(c, [0])


class ExportedLstm(nn.Module):
    """An LstmLayer with its weights in ONNX's order."""

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, layer: LstmLayer) -> None:
        super().__init__()
        for name, weight in zip("wrb", onnx_weights(layer.lstm, ORDER), strict=True):
            self.register_buffer(name, weight)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, h, c = lstm(x, h, c, self.w, self.r, self.b)
        return y, (h, c)


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.lstm.default: _onnx_lstm}
