"""Areas under curves, against their definitions written down as slowly as they read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.evaluation.curves import THRESHOLDS, USUAL_WIDTH, rank, soft_width, vus_pr

ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([False, False, True]), st.booleans()),
    min_size=2,
    max_size=40,
)


def unpack(rows: list[tuple[int, bool, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores with many ties, one in four unknown, and labels."""
    score = np.array([np.nan if a % 4 == 3 and hide else a for a, _, hide in rows], float)
    return score, np.array([faulty for _, faulty, _ in rows])


def slow_average_precision(score: NDArray[np.float64], faulty: NDArray[np.bool_]) -> float:
    area = recall_before = 0.0
    for threshold in sorted(set(score), reverse=True):
        on = score >= threshold
        recall = (on & faulty).sum() / faulty.sum()
        area += (recall - recall_before) * (on & faulty).sum() / on.sum()
        recall_before = recall
    return float(area)


def slow_vus_pr(score: NDArray[np.float64], faulty: NDArray[np.bool_], window: int) -> float:
    """Row by row, fault by fault, threshold by threshold."""
    counts = np.isfinite(score)
    faults: list[list[int]] = []
    for t in np.flatnonzero(faulty).tolist():
        if faults and faults[-1][-1] == t - 1:
            faults[-1].append(t)
        else:
            faults.append([t])
    faults = [fault for fault in faults if counts[fault].any()]
    ordered = sorted(score[counts], reverse=True)
    places = np.linspace(0, len(ordered) - 1, THRESHOLDS).astype(int)
    areas = []
    for width in range(window + 1):
        soft = faulty.astype(float)
        groups: list[set[int]] = []
        for fault in faults:
            first, last = fault[0] - width // 2, fault[-1] + width // 2
            for t in range(max(first, 0), min(last, len(score) - 1) + 1):
                distance = max(fault[0] - t, t - fault[-1])
                soft[t] += np.sqrt(1 - distance / width) if distance > 0 else 1.0
            rows = set(range(first, last + 1))
            if groups and groups[-1] & rows:
                groups[-1] |= rows
            else:
                groups.append(rows)
        soft = np.minimum(soft, 1.0)
        area = recall_before = 0.0
        for threshold in (ordered[place] for place in places):
            on = {t for t in range(len(score)) if counts[t] and score[t] >= threshold}
            true = sum(soft[t] for t in on)
            certain = (faulty & counts).sum()
            beyond = sum(soft[t] for t in on if not faulty[t])
            touched = np.mean([bool(group & on) for group in groups])
            recall = min(true / (certain + beyond / 2), 1.0) * touched
            area += (recall - recall_before) * true / len(on)
            recall_before = recall
        areas.append(area)
    return float(np.mean(areas))


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


@given(ROWS, st.integers(0, 7))
def test_the_volume_under_the_surface_is_that_of_the_definition(
    rows: list[tuple[int, bool, bool]], window: int
) -> None:
    score, faulty = unpack(rows)
    found = vus_pr(score, faulty, window=window)
    if rank(score, faulty) is None:
        assert found is None
    else:
        assert found == pytest.approx(slow_vus_pr(score, faulty, window))


def test_the_volume_under_the_surface_is_that_of_tsb_ad() -> None:
    """The figures are of TSB_AD 1.5, `generate_curve(label, score, 20)`, on these rows."""
    rng = np.random.default_rng(7)
    score, faulty = rng.normal(size=500), np.zeros(500, bool)
    for start, length in ((40, 30), (75, 5), (300, 60), (490, 10)):
        faulty[start : start + length] = True
    score += faulty
    assert vus_pr(score, faulty, window=20) == pytest.approx(0.6034605863824462, abs=1e-12)


def test_an_alarm_a_little_early_costs_less_than_one_far_off() -> None:
    faulty = np.zeros(300, bool)
    faulty[150:200] = True
    early, far = np.zeros(300), np.zeros(300)
    early[145:195], far[45:95] = 1.0, 1.0
    near = vus_pr(early, faulty, window=40)
    away = vus_pr(far, faulty, window=40)
    assert near is not None and away is not None and near > 0.9 > 0.3 > away


def test_the_softness_is_the_cycle_of_the_channel() -> None:
    t = np.arange(5000)
    wave = np.sin(2 * np.pi * t / 47) + 0.05 * np.random.default_rng(0).normal(size=5000)
    wave[1000:1010] = np.nan
    assert soft_width(wave) == 47


@pytest.mark.parametrize(
    "x", [np.zeros(500), np.full(50, np.nan), np.arange(900.0), np.ones(2), np.sin(np.arange(5))]
)
def test_without_a_cycle_the_softness_is_the_usual_one(x: NDArray[np.float64]) -> None:
    assert soft_width(x) == USUAL_WIDTH


@pytest.mark.parametrize(
    ("cycle", "width"), [(5, USUAL_WIDTH), (6, 6), (303, 303), (304, USUAL_WIDTH)]
)
def test_only_a_cycle_of_6_to_303_samples_counts_as_in_tsb_ad(cycle: int, width: int) -> None:
    x = np.zeros(20_000)
    x[::cycle] = 1.0
    assert soft_width(x) == width
