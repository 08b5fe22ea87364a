"""Heads: what a detector says of the next sample, given the features of the samples so far."""

import math

import torch
from torch import Tensor, nn

LOG_SCALE_RANGE = (-5.0, 3.0)
"""The forecast's standard deviation stays between 0.7 % and 20 times the channel's own."""


class GaussianHead(nn.Module):
    """A Gaussian forecast of the next sample, each channel with its own mean and spread."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.linear.bias)  # a fresh head says: mean 0, spread near 1

    def forward(self, features: Tensor) -> Tensor:
        """features (T, N, width) → forecast (T, N, 2·C): means, then log standard deviations."""
        forecast: Tensor = self.linear(features)
        return forecast

    def split(self, forecast: Tensor) -> tuple[Tensor, Tensor]:
        """(…, 2·C) → mean (…, C), log standard deviation (…, C), in scaled units."""
        mean, log_scale = torch.split(forecast, self.channels, dim=-1)
        return mean, log_scale.clamp(*LOG_SCALE_RANGE)

    def widen(self, factor: Tensor) -> None:
        """Multiply every forecast's standard deviation by `factor` (C,), for calibration."""
        with torch.no_grad():
            self.linear.bias[self.channels :] += factor.log()


def gaussian_nll(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """−log of the Gaussian density, elementwise, same shape as `z`."""
    r = (z - mean) * torch.exp(-log_scale)
    return 0.5 * r * r + log_scale + 0.5 * math.log(2 * math.pi)
