"""Runs: where something holds, and how long a value stands still."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgernn.spans import longest_still, runs

NAN = float("nan")


def still(*values: float) -> int:
    (found,) = longest_still(np.array(values, np.float32)[:, None])
    return int(found)


def test_a_value_that_always_moves_stands_for_one_sample() -> None:
    assert (still(1, 2, 1, 2), still(5), still(NAN, NAN)) == (1, 1, 0)


def test_the_longest_of_several_runs_counts() -> None:
    assert still(1, 1, 2, 2, 2, 3, 3) == 3


def test_what_is_missing_neither_counts_nor_interrupts() -> None:
    assert still(1, NAN, 1, NAN, NAN, 1, 2) == 3


def test_each_channel_is_measured_alone() -> None:
    x = np.array([[1, 5], [1, 6], [1, 6]], np.float32)
    assert longest_still(x).tolist() == [3, 2]


@given(st.lists(st.booleans(), max_size=50))
def test_runs_cover_what_is_true_and_nothing_else(where: list[bool]) -> None:
    covered = np.zeros(len(where), bool)
    for start, end in zip(*runs(np.array(where, bool)), strict=True):
        covered[start:end] = True
    assert covered.tolist() == where
