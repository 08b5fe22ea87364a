"""What weights a network starts training from."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgernn.errors import EdgernnError
from edgernn.nets.attention import Attention
from edgernn.nets.gates import FastGrnnLayer, MinGruLayer

STARTS: Mapping[str, Callable[[Tensor], object] | None] = MappingProxyType(
    {
        "default": None,  # as each layer starts by itself
        "xavier": nn.init.xavier_uniform_,  # Glorot and Bengio 2010
        "he": lambda matrix: nn.init.kaiming_normal_(matrix, nonlinearity="relu"),  # He et al. 2015
        "orthogonal": nn.init.orthogonal_,  # Saxe et al. 2014
    }
)


def initialise(module: nn.Module, start: str) -> None:
    """Draw every input and recurrent matrix in `module` afresh, each gate's by itself.

    `start` is one of `STARTS`; "default" leaves everything as the layers were made. Biases stay
    theirs in any case: an LSTM's forget gate starts at 1. The draw follows `torch.manual_seed`.
    """
    if start not in STARTS:
        raise EdgernnError(f"start: expected one of {', '.join(STARTS)}, got {start!r}")
    fill = STARTS[start]
    if fill is not None:
        for matrix in _matrices(module):
            fill(matrix.detach())


def _matrices(module: nn.Module) -> Iterator[Tensor]:
    """Views of the single matrices that layers store stacked."""
    parts: dict[nn.Module, int] = {}
    for one in module.modules():  # a layer comes before the modules inside it
        match one:
            case MinGruLayer():
                parts[one.linear] = 2
            case Attention():
                parts[one.qkv] = 3
            case FastGrnnLayer():
                yield from (*one.w, *one.u)
            case nn.Linear():
                yield from one.weight.chunk(parts.get(one, 1))
            case nn.RNNBase():
                for name in ("weight_ih_l0", "weight_hh_l0"):
                    yield from torch.split(one.get_parameter(name), one.hidden_size)
