"""Where something holds: runs of True."""

import numpy as np
from numpy.typing import NDArray


def runs(where: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every run of True in (T,): where it starts, and where it has ended."""
    padded = np.concatenate([[False], where, [False]])
    starts, ends = padded[1:] & ~padded[:-1], padded[:-1] & ~padded[1:]
    return np.flatnonzero(starts), np.flatnonzero(ends)


def longest_still(x: NDArray[np.float32]) -> NDArray[np.intp]:
    """Most samples in a row with one and the same value, of each channel of (T, C): (C,). What is
    missing neither counts nor interrupts; 0 = there was no value."""
    found = []
    for column in x.T:
        seen = column[~np.isnan(column)]
        starts, ends = runs(seen[1:] == seen[:-1])
        found.append(int((ends - starts).max(initial=0)) + 1 if len(seen) else 0)
    return np.array(found, np.intp)
