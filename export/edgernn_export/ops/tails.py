"""TailScores → three small matrix products in place of a vector operation for each view and knot.

A vector along the last axis is added stream by stream in ONNX Runtime, which costs more than a
product that does the same for all of them.
"""

import torch
from torch import Tensor, nn

from edgernn.nets.detector import TailScores


class ExportedTailScores(nn.Module):
    """The calibration as: spread · s − start → how far s is from each knot to the last one, from 0
    to 1, and how far into the tail, from 1 on; then a weight for each."""

    spread: Tensor
    start: Tensor
    gain: Tensor
    factor: Tensor

    def __init__(self, layer: TailScores) -> None:
        super().__init__()
        knots = layer.knots[:, :-1].double()  # (K, B − 1)
        last = layer.knots[:, -1:].double()  # (K, 1)
        ratio = layer.tail_ratio.double()  # (K,)
        way = last - knots
        own = torch.eye(len(knots)).unsqueeze(-1)  # (K, K, 1): what is of one view alone
        spread = (own / way).flatten(1)  # (K, K · (B − 1))
        gain = (own * layer.slopes * way).flatten(1).T.contiguous()  # (K · (B − 1), K)
        self.sizes = [len(gain), len(knots)]
        self.register_buffer("spread", torch.cat([spread, ratio.diag()], dim=1).float())
        start = [(knots / way).flatten(), ratio * last[:, 0] - 1]
        self.register_buffer("start", torch.cat(start).float())
        self.register_buffer("gain", gain.float())
        self.register_buffer("factor", layer.tail_factor.diag())

    def forward(self, surprise: Tensor) -> Tensor:
        """Surprise (T, N, K) ≥ 0 → −log10 p (T, N, K)."""
        where = surprise @ self.spread - self.start  # (T, N, K · B)
        body, tail = torch.split(where, self.sizes, dim=-1)
        y: Tensor = body.clamp(0.0, 1.0) @ self.gain + torch.log(tail.clamp(min=1.0)) @ self.factor
        return y
