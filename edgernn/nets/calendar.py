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
"""What float32 tells apart at a week's end. Steps of so much add up without rounding: after any
split of the samples the clock is the same."""


class Calendar(nn.Module):
    """Sine and cosine of the time in each cycle, from the clock: no weight, nothing learnt."""

    def __init__(self, cycles: Sequence[str], *, period_s: float) -> None:
        """`cycles`: of `CYCLES`; `period_s`: between samples, to be rounded to `GRAIN_S`, which
        matters only between two times that the clock is set."""
        super().__init__()
        self.step_s = GRAIN_S * round(period_s / GRAIN_S)
        self.rates = [2 * math.pi / CYCLES[cycle] for cycle in cycles]
        """Radians in a second."""

    def forward(self, x: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, N, …), of which T alone matters; clock (N, 1), seconds since Monday 00:00 of its
        first sample → sines, then cosines (T, N, 2·cycles), and the clock of the sample after the
        last (N, 1)."""
        return read(x, clock, self.step_s, self.rates)


def read(x: Tensor, clock: Tensor, step_s: float, rates: Sequence[float]) -> tuple[Tensor, Tensor]:
    """As `Calendar` says; `rates` in radians a second."""
    steps = step_s * torch.arange(len(x) + 1, dtype=clock.dtype, device=clock.device)
    speeds = torch.tensor(rates, dtype=clock.dtype, device=clock.device)
    angles = (clock + steps[:-1, None, None]) * speeds  # (T, N, cycles)
    columns = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
    return columns, torch.fmod(clock + steps[-1], WEEK_S)
