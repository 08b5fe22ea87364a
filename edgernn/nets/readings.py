"""A sample as every view of it begins: what is there, what may be learnt, counted from where."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LARGEST_READING = 1e15
"""Sensor units: what is beyond is never learnt, so that no square leaves float32."""
MOST_COUNTED = 1e6
"""Samples: float32 counts to 16 million."""


class Reading(NamedTuple):
    """One sample of all channels, (N, 1, C) each."""

    x: Floats
    """From the channel's first sample on, so that a small change of a large reading stays a
    float32; of a missing one, anything."""
    origin: Floats
    """That first sample."""
    n: Floats
    """Samples of the channel before this one."""
    is_there: Floats
    """1 or 0, as is the next."""
    is_learnt: Floats
    rate: Floats
    """1 / (n + 1): a mean of all samples moves so much."""

    @property
    def counted(self) -> Floats:
        """Samples of the channel after this one."""
        counted: Floats = np.minimum(self.n + self.is_learnt, np.float32(MOST_COUNTED))
        return counted


def read(x: Floats, n: Floats, origin: Floats) -> Reading:
    """x (N, C) in sensor units, NaN = missing; n and origin (N, 1, C)."""
    x = x[:, None]
    is_there = ~np.isnan(x)
    is_learnt = is_there & (np.abs(x) < LARGEST_READING)
    x = np.clip(np.where(is_there, x, 0), -LARGEST_READING, LARGEST_READING)
    origin = np.where(n == 0, x, origin)
    one = np.float32(1)
    return Reading(
        x - origin,
        origin,
        n,
        is_there.astype(np.float32),
        is_learnt.astype(np.float32),
        one / (n + one),
    )
