"""The classifier: which of the known conditions a stream is in, sample by sample."""

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from edgernn.card import OUTPUTS
from edgernn.nets.model import Model
from edgernn.nets.networks import NetworkConfig
from edgernn.nets.windows import Delay

LARGEST_WEIGHT = 10.0
"""A rare class counts at most this many times what it would by its share of the samples."""


class Classifier(Model):
    """Scaling, missing values, network, one linear layer, softmax.

    The linear layer reads the sample beside its features, which leave it out where they look ahead.
    Training samples carry one more column than channels: the index of the class, NaN where it is
    not known.
    """

    outputs = OUTPUTS["classify"]
    weights: Tensor
    temperature: Tensor

    def __init__(
        self,
        channels: Sequence[str],
        network: NetworkConfig,
        *,
        classes: Sequence[str],
        seed: int,
        period_s: float = 1.0,
    ) -> None:
        super().__init__(channels, network, seed=seed, period_s=period_s)
        self.delay = self.network.look_ahead
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.read_out = nn.Linear(self.network.width + 2 * self.channels, len(classes))
        self.sample = Delay(2 * self.channels, self.delay)
        self.target = Delay(2, self.delay)
        self.register_buffer("weights", torch.ones(len(classes)))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        sample = {f"sample.{name}": shape for name, shape in self.sample.state_shapes.items()}
        return dict(self.seeing) | sample

    def weigh(self, counts: Tensor) -> None:
        """Let every class count alike, `counts` (L,) samples of each being learnt from: weights
        are inverse to them, 1 for a class of the mean size, at most `LARGEST_WEIGHT`."""
        fair = counts.sum() / (len(counts) * counts.clamp(min=1))
        self.weights = fair.clamp(max=LARGEST_WEIGHT).float()

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them.

        Returns probability (T, N, L) of each class at sample t − `delay`, NaN where nothing of
        that sample was observed, then the next states.
        """
        said, observed, following = self._say(*self.scaled(x), state)
        probability = torch.softmax(said / self.temperature, dim=-1)
        there = observed.amax(-1, keepdim=True) > 0  # (T, N, 1)
        return torch.where(there, probability, torch.nan), *following

    def logits(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, N, C) → what the softmax is given at temperature 1 (T, N, L), next states."""
        said, _, following = self._say(*self.scaled(x), state)
        return said, following

    def loss(
        self, x: Tensor, hidden: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Weighted cross-entropy. x and hidden (T, N, C + 1), the last column the class."""
        label = x[..., -1:]
        x, hidden = x[..., :-1], hidden[..., :-1]
        z, observed = self.scaled(x)
        shown = 1 - hidden
        said, _, following = self._say(z * shown, observed * shown, state)
        memory = state[len(following) :] or tuple(
            label.new_zeros(label.shape[1], *shape) for shape in self.target.state_shapes.values()
        )
        answered = 1 - label.isnan().to(label.dtype)
        answer = torch.cat([label.nan_to_num(), answered], dim=-1)  # (T, N, 2)
        answer, memory = self.target(answer, *memory)
        wanted, is_known = answer[..., 0].long(), answer[..., 1]
        log_p = torch.log_softmax(said, dim=-1)  # (T, N, L)
        weight = self.weights[wanted] * is_known  # (T, N)
        nll = -log_p.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
        return (weight * nll).sum(), weight.sum(), (*following, *memory)

    def _say(
        self, z: Tensor, observed: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """z and observed (T, N, C) as they come → of sample t − delay what the softmax is given
        (T, N, L) and what was observed (T, N, C); next states."""
        seen, features, following = self.features(z, observed, state)
        mine = islice(state, len(following), len(following) + len(self.sample.state_shapes))
        sample, after = self.sample(seen, *mine)
        said: Tensor = self.read_out(torch.cat([features, sample], dim=-1))
        return said, sample.chunk(2, dim=-1)[1], (*following, *after)
