"""nn.Linear → MatMul and Add, the weight stored as MatMul takes it.

The exporter would leave a Transpose before every weight that is too large for it to fold, and what
stands behind a Transpose is not found when weights become integers.
"""

from torch import Tensor, nn


class ExportedLinear(nn.Module):
    """A linear map with its matrix turned (inputs, outputs)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().T.contiguous())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias
