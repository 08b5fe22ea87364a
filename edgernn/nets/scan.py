"""A linear recurrence over time without a step for every sample: h_t = a_t · h_(t−1) + b_t."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 32
"""Samples in a block. 32 vectorised steps then serve every block of every stream at once."""


def linear_scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """a, b (T, …), h (…) before them → every h (T, …).

    Exact for any a in [0, 1], 0 and 1 included: nothing is divided, no logarithm taken.
    """
    result: Tensor = _LinearScan.apply(a, b, h)  # type: ignore[no-untyped-call]
    return result


class _LinearScan(torch.autograd.Function):
    """The gradient of the recurrence is the same recurrence, run backwards in time."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        y = _scan(a, b, h)
        ctx.save_for_backward(a, h, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, h, y = ctx.saved_tensors
        # db_t = grad_t + a_(t+1) · db_(t+1), the last one being grad itself
        later = torch.cat([torch.zeros_like(a[:1]), a[1:].flip(0)])
        db = _scan(later, grad.flip(0), torch.zeros_like(h)).flip(0)
        da = torch.empty_like(a)
        torch.mul(db[0], h, out=da[0])
        torch.mul(db[1:], y[:-1], out=da[1:])
        return da, db, a[0] * db[0]


def _scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """The recurrence in blocks (Blelloch 1990, with blocks in place of pairs): what each block
    makes of the h before it is again a linear recurrence, 1/BLOCK as long."""
    y = torch.empty_like(b)
    blocks = len(a) // BLOCK
    whole = blocks * BLOCK
    if blocks > 1:
        shape = (blocks, BLOCK, *a.shape[1:])
        a_block, b_block, y_block = (z[:whole].view(shape) for z in (a, b, y))
        factor, end = a_block[:, 0], b_block[:, 0]  # of the block so far, from h = 0
        for i in range(1, BLOCK):
            factor, end = factor * a_block[:, i], torch.addcmul(b_block[:, i], a_block[:, i], end)
        ends = _scan(factor, end, h)  # (blocks, …)
        before = torch.cat([h.unsqueeze(0), ends[:-1]])
        for i in range(BLOCK):
            before = torch.addcmul(b_block[:, i], a_block[:, i], before, out=y_block[:, i])
        h = ends[-1]
    else:
        whole = 0
    for t in range(whole, len(a)):
        h = torch.addcmul(b[t], a[t], h, out=y[t])
    return y
