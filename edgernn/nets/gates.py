"""Small gated layers that torch has no kernel for: FastGRNN and minGRU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgernn.nets.layers import Stateful
from edgernn.nets.scan import linear_scan


class FastGrnnLayer(Stateful):
    """One FastGRNN layer: a gate and a candidate that share their matrices.

    z = σ(W x + U h + b_z),  h̃ = tanh(W x + U h + b_h),  h' = (ζ (1 − z) + ν) h̃ + z h, with two
    trained numbers 0 < ζ, ν < 1. With `rank` > 0, W = W₁ W₂ and U = U₁ U₂ of that rank. A third of
    a GRU's weights, or fewer. Source: Kusupati et al. 2018, arXiv:1901.02358.
    """

    def __init__(self, inputs: int, hidden: int, rank: int = 0) -> None:
        super().__init__()
        self.width = hidden
        self.rank = rank
        self.state_shapes = {"h": (hidden,)}
        self.w = _factors(hidden, inputs, rank)
        self.u = _factors(hidden, hidden, rank)
        self.bias_z = nn.Parameter(torch.ones(hidden))
        self.bias_h = nn.Parameter(torch.ones(hidden))
        self.zeta = nn.Parameter(torch.tensor(1.0))  # of the sigmoid; as the authors start them
        self.nu = nn.Parameter(torch.tensor(-4.0))

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = state
        for factor in reversed(self.w):
            x = x @ factor.T  # (T, N, H) at the end
        u = self.u[0] if not self.rank else self.u[0] @ self.u[1]  # (H, H)
        zeta, nu = torch.sigmoid(self.zeta), torch.sigmoid(self.nu)
        y: Tensor = _FastGrnn.apply(x, h, u, self.bias_z, self.bias_h, zeta, nu)  # type: ignore[no-untyped-call]
        return y, (y[-1],)


class _FastGrnn(torch.autograd.Function):
    """The steps with their gradient by hand: three small operations a sample in place of thirty,
    as everything that does not hang on the sample after it is computed for all at once."""

    @staticmethod
    def forward(
        ctx: Any,
        p: Tensor,
        h: Tensor,
        u: Tensor,
        bias_z: Tensor,
        bias_h: Tensor,
        zeta: Tensor,
        nu: Tensor,
    ) -> Tensor:
        """p = W x (T, N, H), h (N, H), u (H, H), two biases (H,), two numbers → every h."""
        p_z, p_h = p + bias_z, p + bias_h
        z, c, y = torch.empty_like(p), torch.empty_like(p), torch.empty_like(p)
        first, u_t = h, u.T.contiguous()
        for t in range(len(p)):
            uh = h @ u_t
            torch.sigmoid(p_z[t] + uh, out=z[t])
            torch.tanh(p_h[t] + uh, out=c[t])
            weight = zeta * (1 - z[t]) + nu
            h = torch.addcmul(weight * c[t], z[t], h, out=y[t])
        ctx.save_for_backward(first, u, zeta, nu, z, c, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        first, u, zeta, nu, z, c, y = ctx.saved_tensors
        before = torch.cat([first.unsqueeze(0), y[:-1]])  # (T, N, H)
        by_z = (before - zeta * c) * z * (1 - z)  # of h' by what enters the gate
        by_h = (zeta * (1 - z) + nu) * (1 - c * c)  # and the candidate
        by_p = by_z + by_h
        g = torch.empty_like(y)
        following = torch.zeros_like(first)
        for t in range(len(y) - 1, -1, -1):
            now = torch.add(grad[t], following, out=g[t])
            following = torch.addmm(now * z[t], now * by_p[t], u)
        d_p = g * by_p
        d_u = d_p.flatten(0, 1).T @ before.flatten(0, 1)
        return (
            d_p,
            following,
            d_u,
            (g * by_z).sum((0, 1)),
            (g * by_h).sum((0, 1)),
            (g * (1 - z) * c).sum(),
            (g * c).sum(),
        )


class MinGruLayer(Stateful):
    """One minGRU layer: gate and candidate know the input only, never h.

    z = σ(W_z x + b_z),  h̃ = W_h x + b_h,  h' = (1 − z) h + z h̃: linear in h, so it trains in
    parallel over time. Source: Feng et al. 2024, "Were RNNs all we needed?", arXiv:2410.01201.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.width = hidden
        self.state_shapes = {"h": (hidden,)}
        self.linear = nn.Linear(inputs, 2 * hidden)  # z, h̃

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = state
        gate, candidate = self.linear(x).chunk(2, dim=-1)  # (T, N, H) each
        y = linear_scan(torch.sigmoid(-gate), torch.sigmoid(gate) * candidate, h)
        return y, (y[-1],)


def _factors(rows: int, columns: int, rank: int) -> nn.ParameterList:
    """One matrix (rows, columns), or two whose product it is; entries of the product have the
    variance that torch starts recurrent layers with, 1/(3 · rows)."""
    if not rank:
        bound = rows**-0.5
        return nn.ParameterList([torch.empty(rows, columns).uniform_(-bound, bound)])
    spread = (3 * rows * rank) ** -0.25
    return nn.ParameterList([spread * torch.randn(rows, rank), spread * torch.randn(rank, columns)])
