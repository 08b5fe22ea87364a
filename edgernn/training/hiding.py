"""What training hides from the network, so that a gap or a missing sensor is nothing new to it."""

import torch
from torch import Tensor

KINDS = 3
"""Single values, runs of whole samples, channels for a whole chunk: as much of each.

Three detectors trained without the runs raised 30 alarms on 12 hours of a healthy pump with a gap
of 5 to 55 s every ten minutes, with them 15; faults were found as soon (docs/training.md)."""


def hide(chunk: tuple[int, int, int], share: float, generator: torch.Generator) -> Tensor:
    """1 where the network must do without a value of a chunk (T, N, C), else 0: `share` of all."""
    t, n, c = chunk
    each = 1 - (1 - share) ** (1 / KINDS)  # where two kinds meet, a value is hidden once
    values, channels = (_drawn(shape, each, generator) for shape in ((t, n, c), (1, n, c)))
    return values.maximum(channels).maximum(_runs(t, n, each, generator))


def _runs(t: int, n: int, share: float, generator: torch.Generator) -> Tensor:
    """1 (T, N, 1) in at most one run a stream, of 1 to T samples, any length as likely.

    A run that reaches the end goes on at the beginning, so that no place is hidden more often.
    """
    lengths, starts = torch.rand((2, n, 1), generator=generator, device=generator.device) * t
    chance = min(1.0, share * 2 * t / (t + 1))  # a run has (T + 1)/2 samples in the mean
    there = _drawn((n, 1), chance, generator)
    steps = torch.arange(t, device=generator.device)[:, None, None]
    runs: Tensor = ((steps - starts.floor()) % t <= lengths) * there
    return runs


def _drawn(shape: tuple[int, ...], share: float, generator: torch.Generator) -> Tensor:
    """1 with probability `share`, else 0."""
    return torch.empty(shape, device=generator.device).bernoulli_(share, generator=generator)
