"""Stacked gates from torch's order into ONNX's and back, and onnxscript's operators."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from onnxscript import opset21
from torch import Tensor, nn

op = cast("Any", opset21)  # its annotations know tensors only, not the lists it takes as well


def reordered(parameter: Tensor, order: Sequence[int]) -> Tensor:
    """(G·H, …) → the same G gates, gate `order[i]` in place i."""
    gates = parameter.chunk(len(order))
    return torch.cat([gates[i] for i in order])


def onnx_weights(layer: nn.RNNBase, order: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """w (1, G·H, I), r (1, G·H, H), b (1, 2·G·H) as an ONNX node takes them, of one torch layer."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    p = [reordered(layer.get_parameter(name).detach(), order) for name in names]
    return p[0].unsqueeze(0).contiguous(), p[1].unsqueeze(0).contiguous(), torch.cat(p[2:])[None]


def torch_weights(w: Tensor, r: Tensor, b: Tensor, order: Sequence[int]) -> list[Tensor]:
    """The inverse of `onnx_weights`; `order` leads back."""
    bias_w, bias_r = b[0].chunk(2)
    return [reordered(p, order) for p in (w[0], r[0], bias_w, bias_r)]
