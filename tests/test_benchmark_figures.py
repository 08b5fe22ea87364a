"""What is published of a method's scores, and figures of it by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.benchmark.figures import best_f1_within, rows_of
from edgernn.benchmark.method import Said, ask, rising_times
from edgernn.benchmark.plain import Plain
from edgernn.benchmark.published import anomaly_score, onsets
from edgernn.benchmark.series import Corpus, Rows, Series, Truth
from edgernn.errors import EdgernnError

DAY_S = 86_400.0
NAN = np.nan

scores = st.lists(st.one_of(st.floats(0, 300), st.just(NAN)), min_size=1, max_size=60)


def series(rows: int, *, channels: int = 1, first_rows: int = 0) -> Series:
    x = np.random.default_rng(0).normal(size=(rows, channels)).astype(np.float32)
    names = tuple(map(str, range(channels)))
    return Series("one.csv", names, DAY_S, None, x, x[:0], first_rows)


def said(
    score: list[float], *, on: list[int] | None = None, parts: NDArray[np.float64] | None = None
) -> Said:
    """Of a budget of one alarm a day."""
    is_on = np.isin(np.arange(len(score)), on or [])
    return Said(np.array(score, float), 4.0, is_on, 1 / DAY_S, parts=parts)


def corpus(name: str, *windows: Rows, rows: int, scored_from: int = 0, **more: object) -> Corpus:
    faulty = np.zeros(rows, bool)
    for start, end in windows:
        faulty[start:end] = True
    truth = Truth(faulty, windows, scored_from, **more)  # type: ignore[arg-type]
    return Corpus(name, "official", (series(rows, channels=4),), (truth,))


def test_the_threshold_is_a_half_and_the_last_known_score_stands() -> None:
    found = anomaly_score(said([NAN, 0, 4, NAN, 12, NAN]))
    assert found.tolist() == [0, 0, 0.5, 0.5, 0.75, 0.75]


@given(scores, st.integers(0, 12), st.data())
def test_no_later_score_changes_what_was_published(
    score: list[float], quiet: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(score)))
    whole = anomaly_score(said(score), quiet=quiet)
    np.testing.assert_array_equal(whole[:cut], anomaly_score(said(score[:cut]), quiet=quiet))


@given(st.lists(st.floats(0, 300), min_size=2, max_size=40))
def test_a_higher_score_is_published_as_a_higher_one(score: list[float]) -> None:
    found = anomaly_score(said(score))
    order = np.argsort(score, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_of_a_method_with_its_own_quiet_what_it_told_is_published() -> None:
    quieted = replace(said([1.0, 4.0, 4.0, 12.0]), told=np.array([1.0, 4.0, 0.0, 12.0]))
    assert anomaly_score(quieted, quiet=3).tolist() == [0.2, 0.5, 0.0, 0.75]
    assert anomaly_score(quieted).tolist() == [0.2, 0.5, 0.5, 0.75]  # other sets take the score


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 8))
def test_quiet_lets_through_what_is_higher_than_all_of_so_many_before(
    score: list[int], quiet: int
) -> None:
    plain = anomaly_score(said([*map(float, score)]))
    found = anomaly_score(said([*map(float, score)]), quiet=quiet)
    for row, value in enumerate(score):
        is_news = all(value > before for before in score[max(row - quiet, 0) : row])
        assert found[row] == (plain[row] if is_news else 0)


def test_an_alarm_that_begins_with_the_first_row_goes_on_there() -> None:
    assert np.flatnonzero(onsets(np.array([1, 1, 0, 1, 1, 0, 1], bool))).tolist() == [0, 3, 6]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_best_f1_within_a_rate_is_that_of_the_best_threshold(
    rows: list[tuple[int, bool]],
) -> None:
    score, faulty = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    found = best_f1_within(score, faulty, 0.25)
    if faulty.all() or not faulty.any():
        assert found is None
        return
    best = 0.0
    for threshold in set(score.tolist()):
        on = score >= threshold
        if (on & ~faulty).sum() <= 0.25 * (~faulty).sum():
            best = max(best, 2 * (on & faulty).sum() / (on.sum() + faulty.sum()))
    assert found == pytest.approx(best)


def test_false_alarms_are_those_in_healthy_rows_behind_what_was_learnt_and_the_aftermath() -> None:
    one = corpus("gecco", (100, 110), rows=300, scored_from=10)
    # on: while learning and still at row 10; in the fault; 50 and 70 rows behind it; at the end
    on = [8, 9, 10, 11, 105, 160, 180, 299]
    (together, of_file) = rows_of(one, "m", [said([0.0] * 300, on=on)], [], quiet=0)
    assert together.figures["false_alarms"] == 3  # at rows 10, 180 and 299
    days = 300 - 10 - 10 - 60
    assert together.figures["healthy_hours"] == days * 24
    assert together.figures["asked_times"] == pytest.approx(3 / days)
    assert of_file.figures == together.figures


def test_an_alarm_from_a_fault_on_is_not_false_while_it_lasts() -> None:
    one = corpus("gecco", (100, 110), rows=300)
    (row, _) = rows_of(one, "m", [said([0.0] * 300, on=[*range(105, 300)])], [], quiet=0)
    assert row.figures["false_alarms"] == 0


def test_hit_rates_count_the_true_channels_among_those_with_the_largest_parts() -> None:
    stretches = (((20, 30), (0, 1)), ((40, 50), (3,)))
    one = corpus("smd", (20, 30), (40, 50), rows=100, blamed=stretches)
    parts = np.zeros((100, 4))
    parts[20:30] = [5, 1, 2, 0]  # two are asked for: 0 and 2; three: also 1
    parts[40:50] = [0, 3, 0, 2]  # one is asked for, and one and a half is one
    parts[45] = NAN
    (row, _) = rows_of(one, "m", [said([0.0] * 100, parts=parts)], [], quiet=0)
    assert (row.figures["hits_100"], row.figures["hits_150"]) == (0.25, 0.5)


def test_a_method_that_is_given_too_few_rows_learns_from_more_and_is_silent_until_then() -> None:
    found = ask(Plain("z-score"), series(400, first_rows=50))
    again = Plain("z-score").judge(series(400, first_rows=220))
    assert found.silent_rows == 220
    assert np.isnan(found.score[:220]).all()
    np.testing.assert_array_equal(found.score[220:], again.score[220:])


def test_a_series_too_short_to_learn_from_is_refused_by_name() -> None:
    with pytest.raises(EdgernnError, match=r"one.csv: z-score needs 220 rows .* there are 210"):
        ask(Plain("z-score"), series(210, first_rows=50))


def test_rows_that_repeat_a_time_or_go_back_come_half_a_period_later() -> None:
    times = np.array([0.0, 60.0, 60.0, 30.0, 200.0])
    one = replace(series(5, first_rows=2), period_s=60.0, time_s=times)
    assert rising_times(one).tolist() == [0, 60, 90, 120, 200]
    trained = replace(one, before=one.x[:2])
    assert rising_times(trained).tolist() == [-120, -60, 0, 60, 90, 120, 200]
