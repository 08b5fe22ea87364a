"""The forecaster: the next samples of every channel, a mean and a spread for each."""

from collections.abc import Mapping, Sequence

import msgspec
import torch
from torch import Tensor

from edgernn.card import OUTPUTS
from edgernn.nets.heads import ReadOut, gaussian_nll, split
from edgernn.nets.model import LARGEST_INPUT, Model
from edgernn.nets.networks import NetworkConfig
from edgernn.nets.windows import with_past


class ForecastConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[forecast]` in a training file."""

    horizon: int = 12
    """Samples ahead, 1 to 1000."""

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= 1000:
            raise ValueError(f"horizon: expected 1–1000 samples, got {self.horizon}")


class Forecaster(Model):
    """Scaling, missing values, network, one linear layer for all steps ahead at once.

    It reads the last sample beside the features, so that "as now" is the easiest thing to say.
    """

    outputs = OUTPUTS["forecast"]

    def __init__(
        self,
        channels: Sequence[str],
        network: NetworkConfig,
        *,
        horizon: int,
        seed: int,
        period_s: float = 1.0,
    ) -> None:
        super().__init__(channels, network, seed=seed, period_s=period_s)
        self.horizon = horizon
        self.width = self.network.width + 2 * self.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.read_out = ReadOut(self.width, horizon * self.channels)

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.seeing

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them.

        Returns forecast (T, N, H, C), the mean of samples t + 1 … t + H in sensor units, and
        spread (T, N, H, C), their standard deviation; then the next states.
        """
        seen, features, following = self.features(*self.scaled(x), state)
        mean, log_scale = self._say(torch.cat([features, seen], dim=-1))
        forecast = mean * self.scale + self.centre
        return forecast, torch.exp(log_scale) * self.scale, *following

    def errors(self, x: Tensor, *state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T + H, N, C), of which the last H samples are only asked for → (x − forecast) in
        standard deviations, (T, N, H, C), NaN where missing, and the states after sample T."""
        ahead = self.horizon
        forecast, spread, *following = self(x[:-ahead], *state)
        later = [x[h : len(forecast) + h] for h in range(1, ahead + 1)]
        return (torch.stack(later, dim=2) - forecast) / spread, tuple(following)

    def loss(
        self, x: Tensor, hidden: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Negative log-likelihood of each value under the forecasts made 1 … H samples before it.

        So no chunk needs to see beyond its end: what was seen when the last H forecasts were made
        is carried on as one more state, which only training has.
        """
        z, observed = self.scaled(x)
        shown = 1 - hidden
        seen, features, following = self.features(z * shown, observed * shown, state)
        samples, streams, _ = x.shape
        basis = torch.cat([features, seen, torch.ones_like(seen[..., :1])], dim=-1)
        memory = state[len(following) :] or (
            x.new_zeros(streams, self.horizon, self.width + 1),
        )  # its last column is 1 once there was a sample
        basis, memory = with_past(basis, memory)  # (H + T, N, width + 1)
        aim = z.clamp(-LARGEST_INPUT, LARGEST_INPUT)
        mean, log_scale = self._say(basis[..., :-1])  # (H + T, N, H, C)
        was_there = basis[..., -1:].detach()
        loss, count = x.new_zeros(()), x.new_zeros(())
        for h in range(1, self.horizon + 1):
            rows = slice(self.horizon - h, self.horizon - h + samples)
            asked = observed * was_there[rows]
            nll = gaussian_nll(aim, mean[rows, :, h - 1], log_scale[rows, :, h - 1])
            loss, count = loss + (nll * asked).sum(), count + asked.sum()
        return loss, count, (*following, *memory)

    def _say(self, basis: Tensor) -> tuple[Tensor, Tensor]:
        """basis (T, N, width) → means and log standard deviations (T, N, H, C), scaled."""
        mean, log_scale = split(self.read_out(basis))
        shape = (*basis.shape[:2], self.horizon, self.channels)
        return mean.reshape(shape), log_scale.reshape(shape)
