"""RnnLayer → one ONNX RNN node."""

from typing import Any

import torch
from torch import Tensor, nn

from edgernn.nets.layers import RnnLayer
from edgernn_export.ops.order import onnx_weights, op, torch_weights

ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu"}


@torch.library.custom_op("edgernn::elman", mutates_args=())
def elman(
    x: Tensor, h: Tensor, w: Tensor, r: Tensor, b: Tensor, activation: str
) -> tuple[Tensor, Tensor]:
    """x (T, N, I), h (N, H), w (1, H, I), r (1, H, H), b (1, 2H) → y (T, N, H), h.

    Runs what the ONNX node will compute, through torch's own RNN.
    """
    run = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}[activation]
    parameters = torch_weights(w, r, b, (0,))
    # biases, one layer, no dropout, not training, one direction, time first
    y, last = run(x, h.unsqueeze(0), parameters, True, 1, 0.0, False, False, False)
    return y, last[0].clone()


@elman.register_fake
def _(
    x: Tensor, h: Tensor, w: Tensor, r: Tensor, b: Tensor, activation: str
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], x.shape[1], h.shape[1]), torch.empty_like(h)


def _onnx_elman(x, h, w, r, b, activation):  # type: ignore[no-untyped-def]  # traced by onnxscript
    y, last = op.RNN(
        x,
        w,
        r,
        b,
        None,
        op.Unsqueeze(h, [0]),
        hidden_size=h.shape[1],
        activations=[ACTIVATIONS[activation]],
    )
    return op.Squeeze(y, [1]), op.Squeeze(last, [0])


class ExportedRnn(nn.Module):
    """An RnnLayer as one opaque op."""

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, layer: RnnLayer) -> None:
        super().__init__()
        self.activation = layer.activation
        for name, weight in zip("wrb", onnx_weights(layer.rnn, (0,)), strict=True):
            self.register_buffer(name, weight)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        y, last = elman(x, h, self.w, self.r, self.b, self.activation)
        return y, (last,)


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.elman.default: _onnx_elman}
