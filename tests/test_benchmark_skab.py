"""SKAB's figures, against sums by hand and against its rules second by second."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.benchmark.profiles import LOW_FN, LOW_FP, PROFILES, STANDARD, Profile
from edgernn.benchmark.skab import (
    JudgedFile,
    change_score,
    change_scores,
    change_windows,
    flipped,
    point_wise,
    worth,
)
from edgernn.errors import EdgernnError
from edgernn.times import parse_time

DATA = Path(os.environ.get("EDGERNN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "skab"
FIT_ROWS = 400


def rows(total: int, *spans: tuple[int, int]) -> NDArray[np.bool_]:
    """True from the first row of each span to before its second."""
    on = np.zeros(total, bool)
    for start, end in spans:
        on[start:end] = True
    return on


def judged(
    total: int, *alarms: tuple[int, int], changes: tuple[int, ...] = (), name: str = "one.csv"
) -> JudgedFile:
    """A row a second."""
    time_s, changed = np.arange(float(total)), np.zeros(total, bool)
    changed[list(changes)] = True
    return JudgedFile(name, time_s, rows(total, *alarms), np.zeros(total, bool), changed)


@st.composite
def files(draw: st.DrawFn) -> JudgedFile:
    steps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=30))
    flags = st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)).map(np.array)
    changes = draw(st.lists(st.sampled_from([False, False, True]), min_size=30, max_size=30))
    time_s = np.cumsum(steps, dtype=float)
    changed = np.array(changes[: len(steps)])
    return JudgedFile("some.csv", time_s, draw(flags), draw(flags), changed)


CORPORA = st.lists(files(), min_size=1, max_size=4)


def slow_points(file: JudgedFile, profile: Profile) -> float:
    """SKAB's protocol in words."""
    flips, before = [], False
    for time_s, is_on in zip(file.time_s.tolist(), file.is_on.tolist(), strict=True):
        if is_on != before:
            flips.append(time_s)
        before = is_on
    windows: list[list[float]] = []
    for time_s in file.time_s[file.is_changepoint].tolist():
        windows.append([time_s, time_s + 60])
        if len(windows) > 1 and windows[-2][1] >= time_s:
            windows[-1][0] = windows[-2][1]
    points = 0.0
    for start_s, end_s in windows:
        inside = [time_s for time_s in flips if start_s <= time_s <= end_s]
        if not inside:
            points -= profile.miss
            continue
        scale = np.linspace(-np.pi / 2, np.pi / 2, 1000)
        step = min(int((inside[0] - start_s) / (end_s - start_s) * 1000), 999)
        height = (profile.hit + profile.false) / 2
        points += height - height * np.tanh(scale[step]) / np.tanh(np.pi / 2) - profile.false
    return points - profile.false * sum(not any(a <= t <= b for a, b in windows) for t in flips)


def test_a_change_point_is_worth_most_at_once_and_costs_as_a_false_one_at_the_end() -> None:
    for profile in PROFILES:
        assert worth(0.0, profile) == pytest.approx(1.0)
        assert worth(1.0, profile) == pytest.approx(-profile.false)
        # step 500 of 0 … 999 lies half a step, worth 0.001, behind the middle of both
        assert worth(0.5, profile) == pytest.approx((1.0 - profile.false) / 2, abs=1.5e-3)
    # a quarter: step 250, x = π (250/999 − ½) = −0.784612, tanh x = −0.655346, tanh π/2 = 0.917152,
    # 1.11/2 · (1 + 0.655346/0.917152) − 0.11 = 0.841572
    assert worth(0.25, STANDARD) == pytest.approx(0.841572, abs=1e-6)


def test_change_points_are_those_added_up_by_hand() -> None:
    """Changes at 100 and 300 s. The alarm is on from 115 to 200 s and from 500 s to the end.

    flip at 115: 15 s of 60 into the first window                     0.841572
    flip at 200: in no window                                        −0.11
    the window from 300 to 360 s: missed                             −1
    flip at 500: in no window                                        −0.11
                                                               sum = −0.378428
    null −2, perfect 2             100 · (−0.378428 + 2) / 4         = 40.5393
    """
    file = judged(600, (115, 200), (500, 600), changes=(100, 300))
    found = change_score([file], STANDARD)
    assert found.score == pytest.approx(40.5393, abs=1e-4)
    assert (found.changes, found.found, found.false, found.mean_delay_s) == (2, 1, 2, 15.0)
    # with A_FP 0.22: 1.22/2 · (1 + 0.655346/0.917152) − 0.22 = 0.825872, and
    # 100 · (0.825872 − 0.22 − 1 − 0.22 + 2) / 4 = 34.6468
    assert change_score([file], LOW_FP).score == pytest.approx(34.6468, abs=1e-4)
    # with A_FN 2: 100 · (0.841572 − 0.11 − 2 − 0.11 + 4) / (2 + 4) = 43.6929
    assert change_score([file], LOW_FN).score == pytest.approx(43.6929, abs=1e-4)


def test_an_alarm_that_is_on_at_the_first_row_flips_there() -> None:
    assert np.flatnonzero(flipped(rows(9, (0, 3), (5, 6)))).tolist() == [0, 3, 5, 6]


def test_a_window_that_begins_in_another_begins_where_that_ends() -> None:
    file = judged(400, (160, 400), changes=(100, 130, 250))
    assert change_windows(file) == [(100, 160), (160, 190), (250, 310)]
    # 160 s belongs to both: worth −A_FP at the end of the first, 1 at the beginning of the second
    found = change_score([file], STANDARD)
    assert (found.found, found.false, found.mean_delay_s) == (2, 0, 30.0)
    # 1 − 0.11 − 1 (the third is missed) + 3, of −3 … 3
    assert found.score == pytest.approx(100 * 2.89 / 6)


def test_seconds_count_not_rows() -> None:
    """A gap of 50 s after the change point, then a flip: 51 s late."""
    time_s = np.array([0.0, 1.0, 52.0, 53.0])
    changed = np.array([False, True, False, False])
    on = np.array([False, False, True, True])
    found = change_score([JudgedFile("gap", time_s, on, on, changed)], STANDARD)
    assert found.mean_delay_s == 51.0
    assert found.score == pytest.approx(100 * (worth(0.85, STANDARD) + 1) / 2)


@given(CORPORA, st.sampled_from(PROFILES))
def test_change_scores_are_those_of_the_protocol(
    corpus: list[JudgedFile], profile: Profile
) -> None:
    found = change_score(corpus, profile)
    points = sum(slow_points(file, profile) for file in corpus)
    if not found.changes:
        assert found.score is None
        return
    null, perfect = -profile.miss * found.changes, profile.hit * found.changes
    assert found.score == pytest.approx(100 * (points - null) / (perfect - null))


@given(CORPORA)
def test_neither_alarms_nor_flips_are_0_and_order_does_not_matter(corpus: list[JudgedFile]) -> None:
    for one, other in zip(change_scores(corpus), change_scores(corpus[::-1]), strict=True):
        assert one.score == (None if other.score is None else pytest.approx(other.score))
    quiet = [
        JudgedFile(f.name, f.time_s, np.zeros_like(f.is_on), f.is_anomalous, f.is_changepoint)
        for f in corpus
    ]
    for found in change_scores(quiet):
        assert found.score == (pytest.approx(0.0) if found.changes else None)
    assert point_wise(corpus) == point_wise(corpus[::-1])


def test_flips_at_every_change_point_and_nowhere_else_are_100() -> None:
    file = judged(600, (100, 200), (300, 420), changes=(100, 200, 300, 420))
    assert [found.score for found in change_scores([file])] == pytest.approx([100.0] * 3)


def test_rows_of_all_files_are_pooled() -> None:
    """First file: 10 rows, faulty 4 … 7, on 6 … 8: TP 2, FP 1, FN 2, TN 5. Second: 10 healthy rows,
    2 of them on: FP 2, TN 8. F1 = 2·2/(2·2 + 3 + 2) = 4/9, FAR = 3/16, MAR = 2/4."""
    time_s, none = np.arange(10.0), np.zeros(10, bool)
    one = JudgedFile("one", time_s, rows(10, (6, 9)), rows(10, (4, 8)), none)
    other = JudgedFile("other", time_s, rows(10, (0, 2)), none, none)
    found = point_wise([one, other])
    assert (found.tp, found.fp, found.fn, found.tn) == (2, 3, 2, 13)
    assert found.f1 == pytest.approx(4 / 9)
    assert found.false_alarm_rate == pytest.approx(3 / 16)
    assert found.missed_alarm_rate == pytest.approx(1 / 2)
    assert (found.precision, found.recall) == pytest.approx((2 / 5, 1 / 2))


def test_without_rows_to_count_a_share_is_none() -> None:
    found = point_wise([])
    assert found.f1 is found.false_alarm_rate is found.missed_alarm_rate is found.recall is None


@pytest.mark.parametrize("second", [5.0, 4.0, math.nan])
def test_times_that_do_not_rise_are_refused(second: float) -> None:
    none = np.zeros(2, bool)
    with pytest.raises(EdgernnError, match=r"one\.csv: expected times that rise, got"):
        JudgedFile("one.csv", np.array([5.0, second]), none, none, none)


def read_valve1() -> list[JudgedFile]:
    """Scored rows, with an alarm where the flow is beyond 3 of its standard deviations."""
    found = []
    for path in sorted((DATA / "valve1").glob("*.csv")):
        with path.open(newline="") as lines:
            read = list(csv.DictReader(lines, delimiter=";"))
        flow = np.array([float(row["Volume Flow RateRMS"]) for row in read])
        on = np.abs(flow - flow[:FIT_ROWS].mean()) > 3 * flow[:FIT_ROWS].std()
        anomalous, changed = (
            np.array([float(row[name]) == 1 for row in read])[FIT_ROWS:]
            for name in ("anomaly", "changepoint")
        )
        time_s = np.array([parse_time(row["datetime"]) for row in read])[FIT_ROWS:]
        found.append(JudgedFile(path.name, time_s, on[FIT_ROWS:], anomalous, changed))
    return found


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no SKAB recordings (EDGERNN_DATA)")
def test_figures_of_valve1_are_those_of_skabs_own_scorer() -> None:
    """The figures are of tsad 0.19.4, which SKAB's scorer is part of: `evaluating(…,
    window_width="60s", anomaly_window_destination="righter")`, rounded as it does."""
    files = read_valve1()
    rows = point_wise(files)
    assert (rows.tp, rows.tn, rows.fp, rows.fn) == (3427, 5439, 12, 2882)
    found = change_scores(files)
    assert [one.score for one in found] == pytest.approx([-2.4, -47.47, 14.8], abs=0.005)
    assert (found[0].changes, found[0].found, found[0].false) == (63, 63 - 32, 508)
    assert found[0].mean_delay_s == pytest.approx(16.741935)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no SKAB recordings (EDGERNN_DATA)")
def test_always_on_and_flips_at_the_change_points_of_valve1() -> None:
    """An alarm that is always on has F1 0.698 on these files: read F1 beside FAR."""
    always, perfect = [], []
    for file in read_valve1():
        labels = (file.is_anomalous, file.is_changepoint)
        on, flips = np.ones(len(file.time_s), bool), np.logical_xor.accumulate(labels[1])
        always.append(JudgedFile(file.name, file.time_s, on, *labels))
        perfect.append(JudgedFile(file.name, file.time_s, flips, *labels))
    found = point_wise(always)
    assert found.f1 == pytest.approx(0.698, abs=5e-4)
    assert (found.false_alarm_rate, found.missed_alarm_rate) == (1.0, 0.0)
    # Two changes are less than a minute apart: the second one's window begins after it. One of 63
    # is missed, then, by flips at the changes themselves: 100 · (63 − 2·1 + 63) / (63 + 63).
    at_once = change_score(perfect, STANDARD)
    assert (at_once.changes, at_once.found, at_once.false) == (63, 62, 0)
    assert at_once.score == pytest.approx(100 * 124 / 126)
