"""NAB's score, against points added up by hand and against its rules row by row."""

import csv
import math
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.benchmark.nab import (
    NEVER,
    ScoredFile,
    Window,
    best_threshold,
    nab_scores,
    probation,
    scaled_sigmoid,
    score_at,
    windows_around,
)
from edgernn.benchmark.profiles import LOW_FN, LOW_FP, PROFILES, STANDARD, Profile
from edgernn.errors import EdgernnError

DATA = Path(os.environ.get("EDGERNN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "nab"

Floats = NDArray[np.float64]


def at(rows: int, *detections: int, windows: tuple[Window, ...] = ()) -> ScoredFile:
    """A file whose score is 1 at these rows and 0 elsewhere."""
    score = np.zeros(rows)
    score[list(detections)] = 1.0
    return ScoredFile("one.csv", score, windows)


@st.composite
def files(draw: st.DrawFn) -> ScoredFile:
    """Few different scores, so that they tie; some unknown; up to three windows."""
    few = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan])
    score = draw(st.lists(few, min_size=1, max_size=40))
    edges = sorted(draw(st.sets(st.integers(0, len(score)), max_size=6)))
    windows = tuple(zip(edges[::2], edges[1::2], strict=False))
    return ScoredFile("some.csv", np.array(score), windows)


CORPORA = st.lists(files(), min_size=1, max_size=4)


def slow_points(file: ScoredFile, profile: Profile, threshold: float) -> float:
    """The official protocol in words, one row after the other."""

    def s(y: float) -> float:
        return -1.0 if y >= 3 else 2 / (1 + math.exp(5 * y)) - 1

    points = 0.0
    rows = range(min(int(0.15 * len(file.score)), 750), len(file.score))
    detections = [t for t in rows if file.score[t] >= threshold]
    for start, end in file.windows:
        if not any(t in rows for t in range(start, end)):
            continue
        inside = [t for t in detections if start <= t < end]
        worths = [profile.hit * s((t - end) / (end - start)) / s(-1) for t in inside]
        points += max(worths, default=-profile.miss)
    for t in detections:
        if any(start <= t < end for start, end in file.windows):
            continue
        before = [(start, end - 1) for start, end in file.windows if end <= t]
        start, last = before[-1] if before else (0, 0)
        is_far = not before or last == start
        points += profile.false * (-1.0 if is_far else s((t - last) / (last - start)))
    return points


@pytest.mark.parametrize(("rows", "unscored"), [(0, 0), (6, 0), (7, 1), (4032, 604), (5000, 750)])
def test_the_probation_is_15_percent(rows: int, unscored: int) -> None:
    assert probation(rows) == unscored


def test_the_probation_is_at_most_15_percent_of_5000_rows() -> None:
    assert probation(22_695) == 750


def test_the_sigmoid_has_the_values_that_nab_documents() -> None:
    y = np.array([-1.0, -0.5, 0.0, 1.0, 2.999, 3.0, 100.0])
    expected = [0.98661, 0.84828, 0.0, -0.98661, -1.0, -1.0, -1.0]
    assert scaled_sigmoid(y) == pytest.approx(expected, abs=1e-5)
    assert scaled_sigmoid(y)[-2:].tolist() == [-1.0, -1.0]


def test_points_are_those_added_up_by_hand() -> None:
    """100 rows, 15 of probation, window of the ten rows 40 … 49. s(y) = 2/(1+e^5y) − 1.

    detection at  5: probation                                             0
    detection at 20: before the first window            −0.11 · 1      = −0.11
    detection at 45: y = −(50 − 45)/10 = −0.5    0.848284 / 0.986614   =  0.859793
    detection at 47: the window has been found                             0
    detection at 52: y = 3/9 = 1/3      s = −0.682262, times 0.11      = −0.075049
    detection at 76: y = 27/9 = 3                       −0.11 · 1      = −0.11
                                                                   sum =  0.564744
    null −1, perfect 1                    100 · (0.564744 + 1) / 2     = 78.2372
    """
    file = at(100, 5, 20, 45, 47, 52, 76, windows=((40, 50),))
    found = score_at([file], STANDARD, 1.0)
    assert found.files[0].points == pytest.approx(0.564744, abs=1e-6)
    assert found.score == pytest.approx(78.2372, abs=1e-4)
    assert (found.files[0].found, found.files[0].windows, found.files[0].false) == (1, 1, 3)
    # false alarms cost twice: 0.859793 − 0.22 − 0.150098 − 0.22 = 0.269695
    low_fp = score_at([file], LOW_FP, 1.0)
    assert low_fp.files[0].points == pytest.approx(0.269695, abs=1e-6)
    # the same points, null −2: 100 · (0.564744 + 2) / 3 = 85.4915
    assert score_at([file], LOW_FN, 1.0).score == pytest.approx(85.4915, abs=1e-4)


def test_a_missed_window_costs_its_weight() -> None:
    """Two windows, one found at once: 1 − 1 = 0 of −2 … 2; with A_FN 2: 1 − 2 = −1 of −4 … 2."""
    file = at(100, 40, windows=((40, 50), (70, 80)))
    assert score_at([file], STANDARD, 1.0).score == pytest.approx(50.0)
    assert score_at([file], LOW_FN, 1.0).score == pytest.approx(50.0)


def test_behind_a_window_of_one_row_false_alarms_cost_in_full() -> None:
    found = score_at([at(100, 51, windows=((50, 51),))], STANDARD, 1.0)
    assert found.files[0].points == pytest.approx(-1.11)


def test_of_two_thresholds_the_one_with_more_points_is_taken() -> None:
    """0.9 alone misses the second file's window; 0.5 finds it at once for one false alarm more."""
    one, other = np.zeros(100), np.zeros(100)
    one[40], one[90], other[60] = 0.9, 0.5, 0.5
    corpus = [ScoredFile("one", one, ((40, 50),)), ScoredFile("other", other, ((60, 70),))]
    assert best_threshold(corpus, STANDARD) == 0.5
    # row 90 is (90 − 49)/9 > 3 widths behind: 2 − 0.11 of −2 … 2
    assert nab_scores(corpus)[0].score == pytest.approx(100 * 3.89 / 4)


@given(CORPORA, st.sampled_from(PROFILES))
def test_the_sweep_finds_the_most_points_that_any_threshold_gives(
    corpus: list[ScoredFile], profile: Profile
) -> None:
    best = best_threshold(corpus, profile)
    points = {
        threshold: sum(slow_points(file, profile, threshold) for file in corpus)
        for threshold in (0.0, 0.25, 0.5, 0.75, 1.0, NEVER)
    }
    assert points[best] == pytest.approx(max(points.values()))
    found = score_at(corpus, profile, best)
    assert sum(file.points for file in found.files) == pytest.approx(points[best])


@given(CORPORA, st.sampled_from(PROFILES))
def test_no_detection_is_0_and_the_best_is_never_less(
    corpus: list[ScoredFile], profile: Profile
) -> None:
    null = score_at(corpus, profile, NEVER).score
    if not any(file.scored_windows for file in corpus):
        assert null is None
        return
    assert null == pytest.approx(0.0)
    best = score_at(corpus, profile, best_threshold(corpus, profile)).score
    assert best is not None and -1e-9 <= best <= 100.0 + 1e-9


@given(CORPORA)
def test_windows_found_at_once_and_nothing_else_are_100(corpus: list[ScoredFile]) -> None:
    perfect = []
    for file in corpus:
        begin = probation(len(file.score))
        windows = tuple(window for window in file.windows if window[0] >= begin)
        starts = (start for start, _ in windows)
        perfect.append(at(len(file.score), *starts, windows=windows))
    for found in nab_scores(perfect):
        total = sum(file.windows for file in found.files)
        assert found.score == (pytest.approx(100.0) if total else None)
        assert found.threshold == (1.0 if total else NEVER)


@given(CORPORA)
def test_neither_the_order_of_files_nor_the_scale_of_scores_matters(
    corpus: list[ScoredFile],
) -> None:
    turned = [ScoredFile(f.name, np.expm1(3 * f.score), f.windows) for f in reversed(corpus)]
    for one, other in zip(nab_scores(corpus), nab_scores(turned), strict=True):
        assert one.score == (None if other.score is None else pytest.approx(other.score))


def test_an_unknown_score_is_no_detection() -> None:
    score = np.full(100, np.nan)
    found = nab_scores([ScoredFile("one", score, ((40, 50),))])
    assert [(one.score, one.threshold) for one in found] == [(0.0, NEVER)] * 3


def test_a_window_within_the_probation_counts_nowhere() -> None:
    found = score_at([at(100, 5, windows=((2, 15),))], STANDARD, 1.0)
    assert (found.score, found.files[0].windows, found.files[0].points) == (None, 0, 0.0)


@pytest.mark.parametrize("windows", [((5, 5),), ((5, 101),), ((-1, 5),), ((5, 9), (8, 12))])
def test_windows_that_overlap_or_leave_the_file_are_refused(windows: tuple[Window, ...]) -> None:
    with pytest.raises(EdgernnError, match=r"one\.csv: expected windows in order and apart within"):
        at(100, windows=windows)


def test_a_corpus_without_files_is_refused() -> None:
    with pytest.raises(EdgernnError, match="at least one file"):
        nab_scores([])


def test_labelled_rows_become_windows_that_share_a_tenth_of_the_file() -> None:
    """1000 rows, 2 labels: 0.1 · 1000 / 2 = 50 rows each, 25 on either side; 150 of probation."""
    assert windows_around([600, 400], 1000) == ((375, 426), (575, 626))
    assert windows_around([400, 440], 1000) == ((375, 466),)  # 425 ≥ 415: joined
    assert windows_around([170, 990], 1000) == ((965, 1000),)  # 145 < 150: in the probation
    assert windows_around([], 1000) == ()


def test_a_label_outside_the_file_is_refused() -> None:
    with pytest.raises(EdgernnError, match="from 0 to 99, got 3 to 100"):
        windows_around([100, 3], 100)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no NAB recordings (EDGERNN_DATA)")
def test_windows_around_nabs_labels_are_nabs_windows() -> None:
    labels, windows = (
        msgspec.json.decode((DATA / "labels" / f"combined_{name}.json").read_bytes())
        for name in ("labels", "windows")
    )
    corpus = []
    for name, official in windows.items():
        with (DATA / "data" / name).open(newline="") as lines:
            times = [row["timestamp"] for row in csv.DictReader(lines)]
        drawn = windows_around([times.index(label) for label in labels[name]], len(times))
        assert [[times[a], times[b - 1]] for a, b in drawn] == [
            [end.removesuffix(".000000") for end in window] for window in official
        ]
        corpus.append(at(len(times), *(start for start, _ in drawn), windows=drawn))
    found = nab_scores(corpus)
    assert [one.score for one in found] == pytest.approx([100.0] * 3)
    assert sum(file.windows for file in found[0].files) == 59


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no NAB recordings (EDGERNN_DATA)")
def test_figures_of_real_scores_are_those_of_nabs_own_rules() -> None:
    """The figures are of NAB 1.1's sweeper, transcribed, on jumps over their exponential mean."""
    windows = msgspec.json.decode((DATA / "labels" / "combined_windows.json").read_bytes())
    corpus = []
    for name, limits in windows.items():
        with (DATA / "data" / name).open(newline="") as lines:
            read = list(csv.DictReader(lines))
        times = [row["timestamp"] for row in read]
        value = np.array([float(row["value"]) for row in read])
        jump, usual = np.abs(np.diff(value, prepend=value[0])), 1e-9
        score = np.zeros(len(jump))
        for t, size in enumerate(jump):
            score[t] = size / (usual + 1e-12)
            usual = 0.99 * usual + 0.01 * size
        score = np.round(score / (1 + score), 4)
        ends = [[times.index(end.removesuffix(".000000")) for end in limit] for limit in limits]
        corpus.append(ScoredFile(name, score, tuple((first, last + 1) for first, last in ends)))
    found = nab_scores(corpus)
    assert [one.threshold for one in found] == [0.9752, 0.9828, 0.9711]
    assert [one.score for one in found] == pytest.approx([22.978792, 16.775004, 27.144206])
