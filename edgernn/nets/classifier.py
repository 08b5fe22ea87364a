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
    ) -> None:
        super().__init__(channels, network, seed=seed)
        self.delay = self.network.look_ahead
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.read_out = nn.Linear(self.network.width, len(classes))
        self.known = Delay(1, self.delay)
        self.target = Delay(2, self.delay)
        self.register_buffer("weights", torch.ones(len(classes)))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        known = {f"known.{name}": shape for name, shape in self.known.state_shapes.items()}
        return dict(self.network.state_shapes) | known

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
        z, observed = self.scaled(x)
        _, features, following = self.features(z, observed, state)
        seen = observed.amax(-1, keepdim=True)  # (T, N, 1)
        about, after = self.known(seen, *islice(state, len(following), None))
        probability = torch.softmax(self.read_out(features) / self.temperature, dim=-1)
        probability = torch.where(about > 0, probability, torch.nan)
        return probability, *following, *after

    def logits(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, N, C) → what the softmax is given at temperature 1 (T, N, L), next states."""
        z, observed = self.scaled(x)
        _, features, following = self.features(z, observed, state)
        said: Tensor = self.read_out(features)
        return said, (*following, *state[len(following) :])

    def loss(
        self, x: Tensor, hidden: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Weighted cross-entropy. x and hidden (T, N, C + 1), the last column the class."""
        label = x[..., -1:]
        x, hidden = x[..., :-1], hidden[..., :-1]
        z, observed = self.scaled(x)
        shown = 1 - hidden
        _, features, following = self.features(z * shown, observed * shown, state)
        start = len(following)
        memory = state[start + len(self.known.state_shapes) :] or tuple(
            label.new_zeros(label.shape[1], *shape) for shape in self.target.state_shapes.values()
        )
        answered = 1 - label.isnan().to(label.dtype)
        answer = torch.cat([label.nan_to_num(), answered], dim=-1)  # (T, N, 2)
        answer, memory = self.target(answer, *memory)
        wanted, is_known = answer[..., 0].long(), answer[..., 1]
        log_p = torch.log_softmax(self.read_out(features), dim=-1)  # (T, N, L)
        weight = self.weights[wanted] * is_known  # (T, N)
        nll = -log_p.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
        unused = state[start : start + len(self.known.state_shapes)]
        return (weight * nll).sum(), weight.sum(), (*following, *unused, *memory)
