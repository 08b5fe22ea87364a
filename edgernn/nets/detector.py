"""The detector: sensor units in, calibrated score out, in one `forward` that is also the graph."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgernn.card import KNOTS, State, Tail
from edgernn.nets.heads import GaussianHead, gaussian_nll
from edgernn.nets.networks import NetworkConfig, build_network
from edgernn.nets.views import LARGEST_RESIDUAL, SampleView, View, WindowView

LARGEST_INPUT = 10.0
"""Standard deviations; what the network sees is clipped here, so that no reading can blind it."""


class Detector(nn.Module):
    """Scaling, missing values, network, head, views and calibration of one kind of machine."""

    centre: Tensor
    scale: Tensor
    relation: Tensor

    def __init__(self, channels: int, network: NetworkConfig, *, span: int, seed: int) -> None:
        """`span`: samples in the window view."""
        super().__init__()
        self.channels = channels
        self.network = build_network(2 * channels, network, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.head = GaussianHead(self.network.width, channels)
        self.sample = SampleView()
        self.window = WindowView(channels, span)
        self.calibration = TailScores(len(self.views))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("relation", torch.eye(channels))

    @property
    def views(self) -> tuple[View, ...]:
        """In the order of the calibration's tails."""
        return (self.sample, self.window)

    @property
    def states(self) -> tuple[State, ...]:
        """Every memory, in the order `forward` takes them."""
        shapes = {
            **self.network.state_shapes,
            "forecast": (2 * self.channels,),
            **{name: shape for view in self.views for name, shape in view.state_shapes.items()},
        }
        return tuple(State(f"state.{name}", shape, 0.0) for name, shape in shapes.items())

    def fresh_state(self, streams: int) -> tuple[Tensor, ...]:
        """The states of `streams` streams that have seen nothing: each (N, …)."""
        device = self.centre.device
        return tuple(torch.full((streams, *s.shape), s.initial, device=device) for s in self.states)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them.

        Returns score (T, N), contribution (T, N, C), expected (T, N, C), then the next states.
        The score is NaN where not one channel was observed.
        """
        surprise, expected, following = self._look(x, state)
        scores = self.calibration(self._totals(surprise))  # (T, N, K)
        score = torch.relu(scores.amax(-1) - math.log10(len(surprise)))
        nothing = torch.isnan(x).all(-1)  # (T, N)
        score = torch.where(nothing, torch.nan, score)
        return score, contribution(surprise, scores), expected, *following

    def surprise(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, N, C) → surprise by view and channel (T, N, K, C), next states."""
        surprise, _, following = self._look(x, state)
        return torch.stack(surprise, dim=-2), following

    def totals(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What is calibrated: x (T, N, C) → surprise by view (T, N, K), next states."""
        surprise, _, following = self._look(x, state)
        return torch.stack(self._totals(surprise), dim=-1), following

    def residuals(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(x − forecast) in standard deviations of the forecast (T, N, C), NaN where missing."""
        z, observed = self._scale(x)
        mean, log_scale, following = self._forecast(z, observed, state)
        r = (z - mean) * torch.exp(-log_scale)
        return torch.where(observed > 0, r, torch.nan), following

    def loss(
        self, x: Tensor, hidden: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The forecast's negative log-likelihood, for training.

        x (T, N, C) in sensor units; hidden (T, N, C), 1 where the network must do without a value
        that the loss still asks for. Returns the sum over present values, their number, and the
        next states.
        """
        z, observed = self._scale(x)
        shown = 1 - hidden
        mean, log_scale, following = self._forecast(z * shown, observed * shown, state)
        nll = gaussian_nll(z.clamp(-LARGEST_INPUT, LARGEST_INPUT), mean, log_scale) * observed
        return nll.sum(), observed.sum(), following

    def relate(self, covariance: Tensor) -> None:
        """Judge each channel's residual against the others', from the covariance (C, C) of healthy
        residuals: column c of `relation` is what is left of channel c once the others have said
        what they know of it, in standard deviations (P r / √P_cc with the precision matrix P)."""
        precision = torch.linalg.inv(covariance.double())
        self.relation = (precision / precision.diagonal().sqrt()).float().contiguous()

    def _totals(self, surprise: list[Tensor]) -> list[Tensor]:
        """Each view's surprise of the whole sample, K times (T, N)."""
        return [view.total(one) for view, one in zip(self.views, surprise, strict=True)]

    def _look(
        self, x: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[list[Tensor], Tensor, tuple[Tensor, ...]]:
        """Surprise of each view (T, N, C), expected values (T, N, C), next states."""
        z, observed = self._scale(x)
        mean, log_scale, following = self._forecast(z, observed, state)
        r = (z - mean) * torch.exp(-log_scale)
        r = r.clamp(-LARGEST_RESIDUAL, LARGEST_RESIDUAL) * observed
        is_whole = observed.amin(-1, keepdim=True) > 0  # (T, N, 1)
        r = torch.where(is_whole, torch.matmul(r, self.relation), r)  # else nothing to relate to
        surprise, rest = [], state[len(following) :]
        for view in self.views:
            mine, rest = rest[: len(view.state_shapes)], rest[len(view.state_shapes) :]
            seen, view_next = view(r, observed, *mine)
            surprise.append(seen)
            following += view_next
        return surprise, mean * self.scale + self.centre, following

    def _scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sensor units → scaled values, 0 where missing; 1 where observed. Both (T, N, C)."""
        missing = torch.isnan(x)
        z = (x - self.centre) / self.scale
        return torch.where(missing, 0.0, z), torch.where(missing, 0.0, 1.0)

    def _forecast(
        self, z: Tensor, observed: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """z, 0 where missing, and observed (T, N, C) → mean and log σ of each sample given those
        before it (T, N, C); next network states and next forecast."""
        seen = z.clamp(-LARGEST_INPUT, LARGEST_INPUT)
        count = len(self.network.state_shapes)
        features, following = self.network(torch.cat([seen, observed], dim=-1), *state[:count])
        forecasts = torch.cat([state[count].unsqueeze(0), self.head(features)])  # (T + 1, N, 2C)
        mean, log_scale = self.head.split(forecasts[:-1])
        return mean, log_scale, (*following, forecasts[-1])


class TailScores(nn.Module):
    """Surprise → −log10 p, view by view: lines between knots, then a generalised Pareto tail."""

    knots: Tensor
    slopes: Tensor
    tail_ratio: Tensor
    tail_factor: Tensor

    def __init__(self, views: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.arange(KNOTS).float().repeat(views, 1))  # (K, B)
        self.register_buffer("slopes", torch.ones(views, KNOTS - 1))  # change of slope at each
        self.register_buffer("tail_ratio", torch.ones(views))  # ξ/σ
        self.register_buffer("tail_factor", torch.ones(views))  # 1/(ξ ln 10)

    def load(self, tails: Sequence[Tail]) -> None:
        """Take over what `edgernn.tails` fitted, one tail a view, in the views' order."""
        knots = torch.tensor([tail.knots for tail in tails])
        scores = torch.tensor([tail.scores for tail in tails])
        slopes = scores.diff(dim=1) / knots.diff(dim=1)  # (K, B−1)
        self.knots = knots
        self.slopes = slopes.diff(dim=1, prepend=torch.zeros(len(tails), 1))
        self.tail_ratio = torch.tensor([tail.shape / tail.scale for tail in tails])
        self.tail_factor = torch.tensor([1 / (tail.shape * math.log(10)) for tail in tails])

    def forward(self, surprise: Sequence[Tensor]) -> Tensor:
        """K views, each (T, N) ≥ 0 → −log10 p (T, N, K)."""
        s = torch.stack(list(surprise), dim=-1)
        last = self.knots[:, -1]
        body = torch.minimum(s, last).unsqueeze(-1) - self.knots[:, :-1]  # (T, N, K, B−1)
        tail = torch.log(1.0 + torch.relu(s - last) * self.tail_ratio) * self.tail_factor
        return (torch.relu(body) * self.slopes).sum(-1) + tail


def contribution(surprise: Sequence[Tensor], scores: Tensor) -> Tensor:
    """Each channel's share of the surprise (T, N, C): the views' shares, weighted by their scores.

    Sums to 1; where nothing is surprising at all, all channels share alike.
    """
    tiny = 1e-6
    sums = torch.stack([view.sum(-1) for view in surprise], dim=-1)
    weights = scores / (sums + tiny)  # (T, N, K)
    total = surprise[0] * weights[..., :1] + tiny
    for k, view in enumerate(surprise[1:], start=1):
        total = total + view * weights[..., k : k + 1]
    return total / total.sum(-1, keepdim=True)
