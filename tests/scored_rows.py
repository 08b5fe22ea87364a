"""Rows for properties of curves and volumes: many ties, unknown scores, short faults."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([False, False, True]), st.booleans()),
    min_size=2,
    max_size=40,
)


def unpack(rows: list[tuple[int, bool, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores with many ties, one in four unknown, and labels."""
    score = np.array([np.nan if a % 4 == 3 and hide else a for a, _, hide in rows], float)
    return score, np.array([faulty for _, faulty, _ in rows])
