"""Volumes under surfaces, against their definition written down as slowly as it reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scored_rows import ROWS, unpack

from edgernn.evaluation.curves import rank
from edgernn.evaluation.vus import THRESHOLDS, USUAL_WIDTH, range_auc, soft_width, vus, vus_pr


def slow_areas(
    score: NDArray[np.float64], faulty: NDArray[np.bool_], width: int
) -> tuple[float, float]:
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
    pr = roc = recall_before = far_before = 0.0
    for threshold in (ordered[place] for place in places):
        on = {t for t in range(len(score)) if counts[t] and score[t] >= threshold}
        true = sum(soft[t] for t in on)
        beyond = sum(soft[t] for t in on if not faulty[t])
        positive = (faulty & counts).sum() + beyond / 2
        touched = np.mean([bool(group & on) for group in groups])
        recall = min(true / positive, 1.0) * touched
        far = (len(on) - true) / (counts.sum() - positive)
        pr += (recall - recall_before) * true / len(on)
        roc += (far - far_before) * (recall + recall_before) / 2
        recall_before, far_before = recall, far
    roc += (1 - far_before) * (1 + recall_before) / 2
    return float(pr), float(roc)


@given(ROWS, st.integers(0, 7))
def test_areas_and_volumes_are_those_of_the_definition(
    rows: list[tuple[int, bool, bool]], window: int
) -> None:
    score, faulty = unpack(rows)
    areas, volumes = range_auc(score, faulty, width=window), vus(score, faulty, window=window)
    if rank(score, faulty) is None:
        assert areas is None and volumes is None
        assert vus_pr(score, faulty, window=window) is None
        return
    assert areas is not None and volumes is not None
    slow = [slow_areas(score, faulty, width) for width in range(window + 1)]
    assert (areas.pr, areas.roc) == pytest.approx(slow[-1])
    assert (volumes.pr, volumes.roc) == pytest.approx(np.mean(slow, axis=0))
    assert vus_pr(score, faulty, window=window) == volumes.pr


def test_areas_and_volumes_are_those_of_tsb_ad() -> None:
    """The figures are of TSB_AD 1.5, `generate_curve(label, score, 20)`, on these rows."""
    rng = np.random.default_rng(7)
    score, faulty = rng.normal(size=500), np.zeros(500, bool)
    for start, length in ((40, 30), (75, 5), (300, 60), (490, 10)):
        faulty[start : start + length] = True
    volumes = vus(score + faulty, faulty, window=20)
    assert volumes is not None
    assert volumes.pr == pytest.approx(0.6034605863824462, abs=1e-12)
    assert volumes.roc == pytest.approx(0.8489268102477323, abs=1e-12)


def test_the_area_at_one_width_can_be_added_up_by_hand() -> None:
    """Width 4 reaches 2 rows: labels 0 √½ √¾ 1 √¾ √½ 0 (√(1 − 2/4) = √½, √(1 − 1/4) = √¾)."""
    faulty = np.array([0, 0, 0, 1, 0, 0, 0], bool)
    score = np.array([1.0, 2, 3, 6, 4, 5, 0])
    q, h = np.sqrt(3 / 4), np.sqrt(1 / 2)
    # (rows that alarm, of them faulty, of these beyond the fault) as the threshold sinks
    steps = [(1, 1.0), (2, 1 + h), (3, 1 + h + q), (4, 1 + h + 2 * q), (5, 1 + 2 * h + 2 * q)]
    steps += [(6, steps[-1][1]), (7, steps[-1][1])]
    # recall: 1 / 1, and (1 + b) / (1 + b/2) ≥ 1 is held at 1, so that all of it comes with the
    # first row, whose precision is 1
    area = range_auc(score, faulty, width=4)
    assert area is not None
    assert area.pr == pytest.approx(1.0)
    # far: (n − true) / (7 − 1 − beyond/2); recall is 1 all along, so the area from 0 on is
    # Σ (far_k − far_k−1) · 1, but for the first step, which is a triangle of no width (far₁ = 0)
    far = [(n - true) / (7 - 1 - (true - 1) / 2) for n, true in steps]
    assert far[0] == 0 and far == sorted(far)
    assert area.roc == pytest.approx(1.0)
    late = range_auc(-score, faulty, width=4)  # the fault has the lowest score of all
    assert late is not None
    # rows fall in as 6, 0, 1, 2, 4, 5, 3: nothing, nothing, then √½, √¾, √¾, √½, 1
    true = np.cumsum([0, 0, h, q, q, h, 1])
    beyond = np.cumsum([0, 0, h, q, q, h, 0])
    recall = np.minimum(true / (1 + beyond / 2), 1)
    assert late.pr == pytest.approx(sum(np.diff([0, *recall]) * true / np.arange(1, 8)))
    far_late = (np.arange(1, 8) - true) / (6 - beyond / 2)
    across, up = np.array([0, *far_late, 1]), np.array([0, *recall, 1])
    assert late.roc == pytest.approx(sum(np.diff(across) * (up[1:] + up[:-1]) / 2))


def test_only_the_order_of_the_scores_matters() -> None:
    rng = np.random.default_rng(3)
    score, faulty = rng.normal(size=400), np.zeros(400, bool)
    faulty[100:140] = True
    assert vus(score, faulty, window=30) == vus(np.exp(score), faulty, window=30)


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
