"""What training hides from the network, so that a gap or a missing sensor is nothing new to it."""

import torch
from torch import Tensor

KINDS = 3
"""Single values, runs of whole samples, channels for a whole chunk: as much of each.

Three detectors trained without the runs raised 32 alarms on 12 hours of a healthy pump with a gap
of 5 to 55 s every ten minutes, with them 14, and 3 without any gap; faults were found as soon."""


def hide(chunk: tuple[int, int, int], share: float, generator: torch.Generator) -> Tensor:
    """1 where the network must do without a value of a chunk (T, N, C), else 0: `share` of all."""
    t, n, c = chunk
    each = 1 - (1 - share) ** (1 / KINDS)  # where two kinds meet, a value is hidden once
    values = _chance((t, n, c), generator) < each
    channels = _chance((1, n, c), generator) < each
    hidden: Tensor = values | channels | _runs(t, n, each, generator)
    return hidden.float()


def _runs(t: int, n: int, share: float, generator: torch.Generator) -> Tensor:
    """True (T, N, 1) in at most one run a stream, of 1 to T samples, any length as likely.

    A run that reaches the end goes on at the beginning, so that no place is hidden more often.
    """
    length = torch.floor(_chance((n, 1), generator) * t) + 1  # (T + 1)/2 in the mean
    start = torch.floor(_chance((n, 1), generator) * t)
    there = _chance((n, 1), generator) < share * 2 * t / (t + 1)
    steps = torch.arange(t, device=generator.device)[:, None, None]
    return ((steps - start) % t < length) & there


def _chance(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)
