"""Lag → nothing at all for one sample: what comes out is the state, what came in is the next."""

from typing import Any

import torch
from torch import Tensor, nn

from edgernn.nets.windows import Lag
from edgernn_export.ops.branch import if_one_sample
from edgernn_export.ops.order import op


@torch.library.custom_op("edgernn::lag", mutates_args=())
def lag(x: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, N, K), the sample before (N, K) → x of one sample ago (T, N, K), its last (N, K)."""
    return torch.cat([last[None], x[:-1]]), x[-1].clone()


@lag.register_fake
def _(x: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(last)


def _onnx_lag(x, last):  # type: ignore[no-untyped-def]  # traced by onnxscript
    def one():  # type: ignore[no-untyped-def]
        return op.Unsqueeze(last, [0]), op.Squeeze(x, [0])

    def several():  # type: ignore[no-untyped-def]
        joined = op.Concat(op.Unsqueeze(last, [0]), x, axis=0)
        return op.Slice(joined, [0], [-1], [0]), op.Gather(joined, -1, axis=0)

    return if_one_sample(x, one, several)


class ExportedLag(nn.Module):
    """A Lag as one opaque op."""

    def __init__(self, _: Lag) -> None:
        super().__init__()

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, last = lag(x, *state)
        return y, (last,)


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.lag.default: _onnx_lag}
