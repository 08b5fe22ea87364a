"""The detector: sensor units in, calibrated score out, in one `forward` that is also the graph."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import islice

import torch
from torch import Tensor, nn

from edgernn.card import KNOTS, OUTPUTS, Tail
from edgernn.nets.adapt import AdaptConfig, Adapter
from edgernn.nets.heads import HEADS, Head, HeadConfig, gaussian_nll, split
from edgernn.nets.level_judge import LevelJudge, LevelsConfig
from edgernn.nets.model import LARGEST_INPUT, Model, Modules
from edgernn.nets.networks import NetworkConfig
from edgernn.nets.views import LARGEST_RESIDUAL, Judge, View
from edgernn.nets.windows import Delay

LARGEST_WAITING = 1e6
"""Standard deviations of a sample that waits to be judged: no state is ever infinite, and a
residual of so much is the largest there is."""


class Detector(Model):
    """Scaling, missing values, network, heads, their judges and calibration of one kind of machine.

    Each head says what a sample should have been, and its judge how surprising the difference is.
    """

    outputs = OUTPUTS["anomaly"]

    def __init__(
        self,
        channels: Sequence[str],
        network: NetworkConfig,
        head: HeadConfig | None = None,
        adapt: AdaptConfig | None = None,
        levels: LevelsConfig | None = None,
        *,
        span: int,
        seed: int,
        period_s: float = 1.0,
    ) -> None:
        """`span`: samples in the window view."""
        super().__init__(channels, network, seed=seed, period_s=period_s)
        head, adapt = head or HeadConfig(), adapt or AdaptConfig()
        self.kinds = head.kinds
        heads: list[Head] = []
        for i, kind in enumerate(head.kinds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + 1 + i)
                heads.append(HEADS[kind](self.network, self.channels, head))
        self.delay = max(one.delay for one in heads)
        self.heads = Modules[Head](heads)
        self.waits = Modules[Delay](
            Delay(2 * self.channels, self.delay - one.delay) for one in heads
        )
        self.target = Delay(2 * self.channels, self.delay)
        self.memory = adapt.memory if adapt.is_on else 0
        """Samples in which it learns what is new; 0 = nothing adapts."""
        adapters = self._adapters(adapt, span)
        self.adapting = tuple(adapters)
        """Kinds of head that an adapter learns on of, in the order of `adapters`."""
        self.adapters = Modules[Adapter](adapters.values())
        if levels is None or not levels.is_on:
            self.judges = Modules[Judge](Judge(self.channels, span) for _ in heads)
            self.levels = Modules[LevelJudge]()
        else:
            self.judges = Modules[Judge]()
            self.levels = Modules([LevelJudge(self.channels, levels, heads=len(heads))])
        self.calibration = TailScores(len(self.view_names))

    @property
    def view_names(self) -> tuple[str, ...]:
        """In the order of the calibration's tails, such as "forecast.sample"."""
        return tuple(f"{name}.{view.name}" for name, view in self._views)

    @property
    def _judging(self) -> tuple[tuple[str, Judge | LevelJudge], ...]:
        """A judge for each head under the name of its kind, or one of levels for all."""
        names = self.kinds if self.judges else ("levels",)
        return tuple(zip(names, (*self.judges, *self.levels), strict=True))

    @property
    def _views(self) -> tuple[tuple[str, View], ...]:
        return tuple((name, view) for name, judge in self._judging for view in judge.views)

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        shapes = dict(self.seeing)
        parts: list[tuple[str, Adapter | Delay | Head | Judge | LevelJudge]]
        parts = [("target", self.target)]
        for kind, head, wait in zip(self.kinds, self.heads, self.waits, strict=True):
            parts += [(kind, head), (f"{kind}.wait", wait)]
        for kind, adapter in zip(self.adapting, self.adapters, strict=True):
            parts.append((f"{kind}.adapt", adapter))
        parts += self._judging
        for name, part in parts:
            shapes |= {f"{name}.{state}": shape for state, shape in part.state_shapes.items()}
        return shapes

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them.

        Returns score (T, N), contribution (T, N, C), expected (T, N, C) by the first head, then the
        next states; all of sample t − `delay`. The score is NaN where not one channel of it was
        observed.
        """
        surprise, observed, expected, following = self._look(x, state)
        scores = self.calibration(self._totals(surprise))  # (T, N, K)
        score = torch.relu(scores.amax(-1) - math.log10(len(surprise)))
        nothing = observed.amax(-1) == 0  # (T, N)
        score = torch.where(nothing, torch.nan, score)
        return score, contribution(surprise, scores), expected, *following

    def surprise(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, N, C) → surprise by view and channel (T, N, K, C), next states."""
        surprise, _, _, following = self._look(x, state)
        return torch.stack(surprise, dim=-2), following

    def totals(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What is calibrated: x (T, N, C) → surprise by view (T, N, K), next states; NaN where
        nothing was observed."""
        surprise, observed, _, following = self._look(x, state)
        totals = self._totals(surprise)
        return torch.where(observed.amax(-1, keepdim=True) == 0, torch.nan, totals), following

    def residuals(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(x − expected) in standard deviations, head by head (T, N, heads, C), as each was
        trained, NaN where missing; next states."""
        z, observed, said, _, following = self._say(*self.scaled(x), state)
        parts = []
        for one in said:
            mean, log_scale = split(one)
            r = (z - mean) / torch.exp(log_scale)
            parts.append(torch.where(observed > 0, r, torch.nan))
        left = state[len(following) :]  # the adapters' and judges' are not asked for, and stay
        return torch.stack(parts, dim=-2), (*following, *left)

    def adapted(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`residuals` as the judges get them: from what has been learnt before each sample."""
        z, observed, said, features, following = self._say(*self.scaled(x), state)
        parts, _, after = self._errors(z, observed, said, features, state[len(following) :])
        following = (*following, *after)
        there = [torch.where(observed > 0, one, torch.nan) for one in parts]
        return torch.stack(there, dim=-2), (*following, *state[len(following) :])

    def gathered(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What its levels follow (T, N, inputs·C), NaN where missing; next states."""
        z, observed, said, features, following = self._say(*self.scaled(x), state)
        errors, _, after = self._errors(z, observed, said, features, state[len(following) :])
        following = (*following, *after)
        (judge,) = self.levels
        return judge.gathered(z, errors, observed), (*following, *state[len(following) :])

    def loss(
        self, x: Tensor, hidden: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The heads' negative log-likelihood, for training.

        x (T, N, C) in sensor units; hidden (T, N, C), 1 where the network must do without a value
        that the loss still asks for. Returns the sum over present values, their number, and the
        next states.
        """
        z, observed = self.scaled(x)
        shown = 1 - hidden
        seen, features, following = self.features(z * shown, observed * shown, state)
        said, after = self._heads(features, seen, state)
        aim, there, target_after = self._target(z, observed, state)
        aim = aim.clamp(-LARGEST_INPUT, LARGEST_INPUT)
        loss, count = aim.new_zeros(()), there.sum()
        for head, one in zip(self.heads, said, strict=True):
            beyond = head.window_loss(features, z.clamp(-LARGEST_INPUT, LARGEST_INPUT), observed)
            if beyond is None:
                loss = loss + (gaussian_nll(aim, *split(one)) * there).sum()
            else:
                loss = loss + beyond * count
        following = (*following, *target_after, *after)
        return loss, count, (*following, *state[len(following) :])

    def _adapters(self, config: AdaptConfig, span: int) -> dict[str, Adapter]:
        """Kind of head → what goes on learning of it."""
        found: dict[str, Adapter] = {}
        for kind, head in zip(self.kinds, self.heads, strict=True):
            waits = None
            if config.readout and kind == "forecast":  # a plain one speaks of the next sample
                waits = self.delay - head.delay + (0 if head.delay else 1)
            if config.scale or waits is not None:
                size = self.network.width, self.channels
                found[kind] = Adapter(*size, config, span=span, waits=waits)
        return found

    def _totals(self, surprise: list[Tensor]) -> Tensor:
        """Each view's surprise of the whole sample (T, N, K)."""
        totals = [view.total(one) for (_, view), one in zip(self._views, surprise, strict=True)]
        return torch.cat(totals, dim=-1)

    def _look(
        self, x: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[list[Tensor], Tensor, Tensor, tuple[Tensor, ...]]:
        """Surprise of each view (T, N, C), observed and expected values (T, N, C), next states."""
        z, observed, said, features, following = self._say(*self.scaled(x), state)
        errors, mean, after = self._errors(z, observed, said, features, state[len(following) :])
        following = (*following, *after)
        surprise: list[Tensor] = []
        left = iter(state[len(following) :])
        given: list[tuple[Tensor, ...]] = [(r, observed) for r in errors]
        if self.levels:
            given = [(one.gathered(z, errors, observed),) for one in self.levels]
        for (_, judge), one in zip(self._judging, given, strict=True):
            seen, after = judge(*one, *islice(left, len(judge.state_shapes)))
            surprise += seen
            following += after
        return surprise, observed, mean * self.scale + self.centre, following

    def _errors(
        self,
        z: Tensor,
        observed: Tensor,
        said: list[Tensor],
        features: Tensor,
        state: tuple[Tensor, ...],
    ) -> tuple[list[Tensor], Tensor, tuple[Tensor, ...]]:
        """Each head's residuals in standard deviations, 0 where missing, and the first one's mean,
        (T, N, C) all; states: the adapters' and what follows → the adapters' next ones."""
        left = iter(state)
        adapters = dict(zip(self.adapting, self.adapters, strict=True))
        errors, means = [], []
        following: tuple[Tensor, ...] = ()
        for kind, one in zip(self.kinds, said, strict=True):
            mean, log_scale = split(one)
            spread = torch.exp(log_scale)
            r = (z - mean) / spread
            if (adapter := adapters.get(kind)) is not None:
                mine = islice(left, len(adapter.state_shapes))
                moved, r, after = adapter(features, r * observed, observed, *mine)
                mean = mean + moved * spread
                following += after
            errors.append(r.clamp(-LARGEST_RESIDUAL, LARGEST_RESIDUAL) * observed)
            means.append(mean)
        return errors, means[0], following

    def _say(
        self, z: Tensor, observed: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor, tuple[Tensor, ...]]:
        """z and observed (T, N, C) as they come → those of sample t − delay, what each head says
        of it (T, N, 2·C), features (T, N, width) as they come, next states but for the adapters'
        and judges'."""
        seen, features, following = self.features(z, observed, state)
        aim, there, target_after = self._target(z, observed, state)
        said, after = self._heads(features, seen, state)
        return aim, there, said, features, (*following, *target_after, *after)

    def _target(
        self, z: Tensor, observed: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """z and observed (T, N, C) as they come → those of sample t − delay, next states."""
        if not self.delay:
            return z, observed, ()
        z = z.clamp(-LARGEST_WAITING, LARGEST_WAITING)
        start = len(self.seeing)
        mine = state[start : start + len(self.target.state_shapes)]
        target, after = self.target(torch.cat([z, observed], dim=-1), *mine)
        aim, there = target.chunk(2, dim=-1)
        return aim, there, after

    def _heads(
        self, features: Tensor, seen: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """What each head says of sample t − delay, and its next states."""
        left = iter(state[len(self.seeing) + len(self.target.state_shapes) :])
        said: list[Tensor] = []
        following: tuple[Tensor, ...] = ()
        for head, wait in zip(self.heads, self.waits, strict=True):
            one, after = head(features, seen, *islice(left, len(head.state_shapes)))
            one, waiting = wait(one, *islice(left, len(wait.state_shapes)))
            said.append(one)
            following += (*after, *waiting)
        return said, following


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
        """Take over what `edgernn.training.tails` fitted, one tail a view, in the views' order."""
        knots = torch.tensor([tail.knots for tail in tails])
        scores = torch.tensor([tail.scores for tail in tails])
        slopes = scores.diff(dim=1) / knots.diff(dim=1)  # (K, B−1)
        self.knots = knots
        self.slopes = slopes.diff(dim=1, prepend=torch.zeros(len(tails), 1))
        self.tail_ratio = torch.tensor([tail.shape / tail.scale for tail in tails])
        self.tail_factor = torch.tensor([1 / (tail.shape * math.log(10)) for tail in tails])

    def forward(self, surprise: Tensor) -> Tensor:
        """Surprise (T, N, K) ≥ 0 → −log10 p (T, N, K)."""
        inner = torch.minimum(surprise, self.knots[:, -1])
        body = torch.relu(inner.unsqueeze(-1) - self.knots[:, :-1])  # (T, N, K, B−1)
        tail = torch.log(1.0 + (surprise - inner) * self.tail_ratio) * self.tail_factor
        return (body * self.slopes).sum(-1) + tail


def contribution(surprise: Sequence[Tensor], scores: Tensor) -> Tensor:
    """Each channel's share of the surprise (T, N, C): the views' shares, weighted by their scores.

    Sums to 1; where nothing is surprising at all, all channels share alike.
    """
    tiny = 1e-6
    sums = torch.cat([view.sum(-1, keepdim=True) for view in surprise], dim=-1)
    weights = torch.split(scores / (sums + tiny), 1, dim=-1)  # K times (T, N, 1)
    parts = [view * weight for view, weight in zip(surprise, weights, strict=True)]
    total = reduce(torch.add, parts) + tiny
    return total / total.sum(-1, keepdim=True)
