"""Areas under curves, against their definitions written down as slowly as they read."""

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray
from scored_rows import ROWS, unpack

from edgernn.evaluation.curves import rank


def slow_average_precision(score: NDArray[np.float64], faulty: NDArray[np.bool_]) -> float:
    area = recall_before = 0.0
    for threshold in sorted(set(score), reverse=True):
        on = score >= threshold
        recall = (on & faulty).sum() / faulty.sum()
        area += (recall - recall_before) * (on & faulty).sum() / on.sum()
        recall_before = recall
    return float(area)


@given(ROWS)
def test_average_precision_and_the_best_f1_are_those_of_the_definition(
    rows: list[tuple[int, bool, bool]],
) -> None:
    score, faulty = unpack(rows)
    found = rank(score, faulty)
    score, faulty = score[np.isfinite(score)], faulty[np.isfinite(score)]
    if not faulty.any() or faulty.all():
        assert found is None
        return
    assert found is not None
    assert found.auc_pr == pytest.approx(slow_average_precision(score, faulty))
    pairs = score[faulty][:, None] - score[~faulty]  # each faulty row against each healthy one
    assert found.auc_roc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    f1 = {s: 2 * (faulty & (score >= s)).sum() / (faulty.sum() + (score >= s).sum()) for s in score}
    assert found.best_f1 == pytest.approx(max(f1.values()))
    assert f1[found.best_f1_threshold] == pytest.approx(found.best_f1)
    best = (found.precision[found.best], found.recall[found.best])
    assert found.best_f1 == pytest.approx(2 * best[0] * best[1] / sum(best))
