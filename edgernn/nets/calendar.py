"""Where in the day and in the week a sample is, in UTC: what a network sees of its time."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgernn.times import DAY_S, WEEK_S

CYCLES: Mapping[str, float] = MappingProxyType({"day": DAY_S, "week": WEEK_S})
"""Seconds until the same time comes again, by the words of `[network] calendar`."""
GRAIN_S = 1 / 16
"""What float32 tells apart at a week's end. Steps of so much add up without rounding: any split of
the samples says the same."""


class Calendar(nn.Module):
    """Sine and cosine of the time in each cycle, from the clock: no weight, nothing learnt."""

    rates: Tensor

    def __init__(self, cycles: Sequence[str], *, period_s: float) -> None:
        """`cycles`: of `CYCLES`; `period_s`: between samples, to be rounded to `GRAIN_S`, which
        matters only between two times that the clock is set."""
        super().__init__()
        self.step_s = GRAIN_S * round(period_s / GRAIN_S)
        rates = [2 * math.pi / CYCLES[cycle] for cycle in cycles]
        self.register_buffer("rates", torch.tensor(rates), persistent=False)  # radians in a second

    def forward(self, samples: int, clock: Tensor) -> tuple[Tensor, Tensor]:
        """clock (N, 1), seconds since Monday 00:00 of the first of T `samples` → sines, then
        cosines (T, N, 2·cycles), and the clock of the sample after them (N, 1)."""
        steps = self.step_s * torch.arange(samples + 1, dtype=clock.dtype, device=clock.device)
        angles = (clock + steps[:-1, None, None]) * self.rates  # (T, N, cycles)
        columns = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
        return columns, torch.fmod(clock + steps[-1], WEEK_S)
