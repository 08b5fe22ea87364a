"""Ewma → one ONNX RNN node."""

from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgernn.nets.layers import Ewma
from edgernn_export.ops.order import op


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


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.ewma.default: _onnx_ewma}
