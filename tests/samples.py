"""A recording as the device reads it: the standard library and numpy, no polars."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgernn.layout import Columns, find_layout, read_rows


def read_samples(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """time_s (T,) and x (T, C) of a recording with one stream."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = list(read_rows(lines, find_layout(header, lines[:9], Columns(), where="a"), where="a"))
    time_s = np.array([row.time_s for row in rows])
    return time_s, np.array([row.values for row in rows], np.float32)
