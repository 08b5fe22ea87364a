"""Ewma → a weighted sum for one sample, one ONNX RNN node for several."""

from typing import Any

import torch
from torch import Tensor, nn

from edgernn.nets.layers import Ewma
from edgernn_export.ops.branch import if_one_sample
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import number


@torch.library.custom_op("edgernn::ewma", mutates_args=())
def ewma(x: Tensor, mean: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """x (T, N, K), mean (N, K) → means (T, N, K), the last (N, K)."""
    means, last = Ewma(alpha)(x, mean)
    return means, last.clone()


@ewma.register_fake
def _(x: Tensor, mean: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(mean)


def _onnx_ewma(x, mean, alpha):  # type: ignore[no-untyped-def]  # traced by onnxscript
    width = mean.shape[1]

    def one():  # type: ignore[no-untyped-def]
        means = op.Add(op.Mul(x, number(alpha)), op.Mul(mean, number(1.0 - alpha)))
        return means, op.Squeeze(means, [0])

    def several():  # type: ignore[no-untyped-def]
        # An Elman node with one unit and no squashing is this mean. Every column of every stream
        # is a row of its batch, so that its weights are two numbers.
        y, last = op.RNN(
            op.Reshape(x, [0, -1, 1]),
            number([[[alpha]]]),
            number([[[1.0 - alpha]]]),
            None,
            None,
            op.Reshape(mean, [1, -1, 1]),
            hidden_size=1,
            activations=["Affine"],
            activation_alpha=[1.0],
            activation_beta=[0.0],
        )
        return op.Reshape(y, [0, -1, width]), op.Reshape(last, [-1, width])

    return if_one_sample(x, one, several)


class ExportedEwma(nn.Module):
    """An Ewma as one opaque op."""

    def __init__(self, layer: Ewma) -> None:
        super().__init__()
        self.alpha = layer.alpha

    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        means, last = ewma(x, mean, self.alpha)
        return means, last


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.ewma.default: _onnx_ewma}
