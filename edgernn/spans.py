"""Where something holds: runs of True."""

import numpy as np
from numpy.typing import NDArray


def runs(where: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every run of True in (T,): where it starts, and where it has ended."""
    padded = np.concatenate([[False], where, [False]])
    starts, ends = padded[1:] & ~padded[:-1], padded[:-1] & ~padded[1:]
    return np.flatnonzero(starts), np.flatnonzero(ends)
