"""Files to samples and back, what reading puts right, what it refuses, and even segments."""

import gzip
import os
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgernn.errors import EdgernnError
from edgernn.layout import Columns, find_layout, read_rows
from edgernn.recording import (
    Recording,
    Times,
    Track,
    read_recording,
    segments,
    write_recording,
)
from edgernn.times import steps_between

DATA = Path(os.environ.get("EDGERNN_DATA", Path(__file__).parents[2] / "shared" / "data"))
in_one_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

VALUES = st.floats(width=32, allow_infinity=False)
WORDS = st.text(st.sampled_from('abcß°,;"-_ .1'), min_size=1, max_size=8)
STREAMS = WORDS.filter(lambda text: text == text.strip())
LABELS = st.sampled_from(["", "anomaly", "leak, small", 'a "bad" one'])
TITLES = st.sampled_from(["flow", "p_1", "pump (left)", "a,b", "heat; out", "Ü", "t", "2"])
UNITS = st.sampled_from(["", "mm/s", "°C", "%"])


@st.composite
def times(draw: st.DrawFn, *, least: int = 1) -> Times:
    """(T,) whole milliseconds or microseconds, strictly increasing."""
    unit = draw(st.sampled_from([1_000, 1_000_000]))
    start = draw(st.integers(-(10**9), 2 * 10**9)) * unit
    intervals = draw(st.lists(st.integers(1, 10 * unit), min_size=least, max_size=12))
    return (start + np.cumsum(intervals)) / unit


@st.composite
def tracks(draw: st.DrawFn, *, stream: str, channels: int, is_labelled: bool) -> Track:
    time_s = draw(times(least=2))
    size = len(time_s)
    x = draw(st.lists(VALUES, min_size=size * channels, max_size=size * channels))
    label = draw(st.lists(LABELS, min_size=size, max_size=size)) if is_labelled else None
    return Track(
        stream,
        time_s,
        np.array(x, dtype=np.float32).reshape(size, channels),
        None if label is None else np.array(label, dtype=np.str_),
    )


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    channels = tuple(draw(st.lists(TITLES, min_size=1, max_size=4, unique=True)))
    is_labelled = draw(st.booleans())
    made = tuple(
        draw(tracks(stream=stream, channels=len(channels), is_labelled=is_labelled))
        for stream in draw(st.lists(STREAMS, min_size=1, max_size=3, unique=True))
    )
    period_s = float(np.median(np.concatenate([np.diff(track.time_s) for track in made])))
    return Recording(channels, tuple(draw(UNITS) for _ in channels), made, period_s, ())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, so that sentences open with a bare file name."""
    monkeypatch.chdir(tmp_path)
    return Path()


def read(folder: Path, text: str | bytes, name: str = "x.csv", **said: str) -> Recording:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_recording(path, columns=Columns(**said))  # type: ignore[arg-type]  # all are str here


def assert_same(one: Recording, other: Recording) -> None:
    assert (one.channels, one.units, one.period_s) == (other.channels, other.units, other.period_s)
    for a, b in zip(one.tracks, other.tracks, strict=True):
        assert a.stream == b.stream
        np.testing.assert_array_equal(a.time_s, b.time_s)
        np.testing.assert_array_equal(a.x, b.x)
        assert (a.label is None) == (b.label is None)
        if a.label is not None and b.label is not None:
            assert a.label.tolist() == b.label.tolist()


# --- round trips ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@in_one_folder
@given(recording=recordings())
def test_what_is_written_is_read_back(recording: Recording, suffix: str, folder: Path) -> None:
    path = folder / f"pump{suffix}"
    write_recording(path, recording)
    assert_same(read_recording(path), recording)


@in_one_folder
@given(recording=recordings())
def test_the_fast_reader_agrees_with_the_row_by_row_one(recording: Recording, folder: Path) -> None:
    path = folder / "pump.csv"
    write_recording(path, recording)
    with path.open(encoding="utf-8", newline="") as lines:
        layout = find_layout(next(lines), [], Columns(delimiter=","), where="")
        rows = list(read_rows(lines, layout, where=""))
    fast = read_recording(path).tracks
    np.testing.assert_array_equal(
        np.array([row.values for row in rows], dtype=np.float32),
        np.concatenate([track.x for track in fast]),
    )
    np.testing.assert_array_equal(
        [row.time_s for row in rows], np.concatenate([track.time_s for track in fast])
    )


def test_csv_has_iso_times_units_and_short_numbers(folder: Path) -> None:
    x = np.array([[0.1, np.nan], [2.5, 3]], dtype=np.float32)
    track = Track("pump", np.array([0.0, 0.5]), x, np.array(["", "leak"]))
    write_recording(folder / "pump.csv", Recording(("a", "b"), ("V", ""), (track,), 0.5, ()))
    assert (folder / "pump.csv").read_text().replace('""', "") == (
        "time,a [V],b,label\n"
        "1970-01-01T00:00:00.000Z,0.1,,\n"
        "1970-01-01T00:00:00.500Z,2.5,3.0,leak\n"
    )


def test_stream_is_written_where_the_file_name_does_not_say_it(folder: Path) -> None:
    recording = read(folder, "time,a\n0,1\n1,2\n", "pump.csv")
    write_recording(folder / "other.csv", recording)
    assert [track.stream for track in read_recording(folder / "other.csv").tracks] == ["pump"]


def _recording(**changes: object) -> Recording:
    track = Track("p", np.array([0.0, 1.0]), np.zeros((2, 1), np.float32), None)
    fields = {"channels": ("a",), "units": ("",), "tracks": (track,), "period_s": 1.0, "notes": ()}
    return Recording(**{**fields, **changes})  # type: ignore[arg-type]  # the test's own dict


def _track(stream: str = "p", value: float = 0.0, label: str | None = None) -> Track:
    x = np.full((2, 1), value, np.float32)
    return Track(stream, np.array([0.0, 1.0]), x, None if label is None else np.array([label] * 2))


@pytest.mark.parametrize(
    ("name", "recording", "sentence"),
    [
        ("x.xlsx", _recording(), "x.xlsx: expected a name in .csv or .parquet"),
        ("x.csv.gz", _recording(), "x.csv.gz: expected a name in .csv or .parquet"),
        ("no/x.csv", _recording(), "no/x.csv: cannot be written: No such file or directory"),
        ("x.csv", _recording(channels=("label",)), 'x.csv: no channels: "time", "stream", "label"'),
        ("x.csv", _recording(channels=(" a",)), "x.csv: channel names that could not be read back"),
        ("x.csv", _recording(units=("]",)), "x.csv: channel names that could not be read back"),
        (
            "x.csv",
            _recording(tracks=(_track(value=float("inf")),)),
            "x.csv: infinite values that could not be read back",
        ),
        (
            "x.csv",
            _recording(tracks=(_track(label="1"),)),
            "x.csv: labels that could not be read back",
        ),
        (
            "x.csv",
            _recording(tracks=(_track(), _track("q", label=""))),
            "x.csv: labels on some streams only that could not be read back",
        ),
        (
            "x.csv",
            _recording(tracks=(_track(), _track())),
            "x.csv: two streams of one name that could not be read back",
        ),
        (
            "x.csv",
            _recording(tracks=(_track(" "),)),
            "x.csv: stream names that could not be read back",
        ),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    folder: Path, name: str, recording: Recording, sentence: str
) -> None:
    with pytest.raises(EdgernnError) as caught:
        write_recording(folder / name, recording)
    assert str(caught.value).startswith(sentence)


# --- what reading puts right ---------------------------------------------------------------


def test_rows_are_sorted_by_time_and_repeated_times_keep_the_first(folder: Path) -> None:
    recording = read(folder, "time,a\n0,1\n3,2\n1,3\n2,4\n1,5\n")
    track = recording.tracks[0]
    assert track.time_s.tolist() == [0, 1, 2, 3]
    assert track.x[:, 0].tolist() == [1, 3, 4, 2]
    assert recording.notes == (
        "3 of 5 rows were out of order and are sorted by time",
        "1 of 5 rows repeat a time; the first of each is kept",
    )


def test_streams_stay_apart_and_in_order_of_appearance(folder: Path) -> None:
    recording = read(folder, "time,stream,a\n0,q,1\n0,p,2\n1,q,3\n2,p,4\n")
    assert [(track.stream, track.x[:, 0].tolist()) for track in recording.tracks] == [
        ("q", [1, 3]),
        ("p", [2, 4]),
    ]
    assert recording.notes == ()


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "null", " NA", '""'])
def test_missing_values_are_nan_and_counted(folder: Path, cell: str) -> None:
    recording = read(folder, f"time,a,b\n0,1,2\n1,{cell},3\n2,4,5\n")
    assert np.isnan(recording.tracks[0].x).tolist() == [[False] * 2, [True, False], [False] * 2]
    assert recording.notes == ('channel "a": 1 of 3 values are missing',)


def test_a_channel_without_values_is_noted(folder: Path) -> None:
    assert read(folder, "time,a,b\n0,1,\n1,2,\n").notes == ('channel "b" has no values',)


@pytest.mark.parametrize("empty", ["", ",", "  ", " , "])
def test_empty_rows_are_skipped_and_counted(folder: Path, empty: str) -> None:
    recording = read(folder, f"time,a\n0,1\n{empty}\n1,2\n{empty}\n")
    assert recording.tracks[0].time_s.tolist() == [0, 1]
    assert recording.notes == ("empty rows are skipped: 2",)


def test_period_is_the_median_interval_and_irregular_ones_are_counted(folder: Path) -> None:
    recording = read(folder, "time,a\n0,1\n2,1\n4.9,1\n7,1\n11,1\n13,1\n")
    assert recording.period_s == pytest.approx(2.1)
    assert recording.notes == ("1 of 5 intervals differ from 2.1 s by more than half",)


def test_a_given_period_is_kept(folder: Path) -> None:
    (folder / "x.csv").write_text("time,a\n0,1\n2,1\n")
    assert read_recording(folder / "x.csv", period_s=1.0).period_s == 1.0


def test_decimal_commas_are_read_between_semicolons(folder: Path) -> None:
    recording = read(folder, "time;a [°C];b\r\n0;1,5;2\r\n1;-2,25;3.5\r\n")
    assert recording.tracks[0].x.tolist() == [[1.5, 2], [-2.25, 3.5]]
    assert recording.units == ("°C", "")


def test_labels_are_words_and_ignored_columns_are_noted(folder: Path) -> None:
    recording = read(folder, "time,a,fault,changepoint\n0,1,0.0,0\n1,1,1,1\n2,1,leak,0\n3,1,,0\n")
    label = recording.tracks[0].label
    assert label is not None
    assert label.tolist() == ["", "anomaly", "leak", ""]
    assert recording.notes == ('column "changepoint" is ignored',)


@pytest.mark.parametrize(
    "cells",
    [
        ("1000000000", "1000000001.5"),
        ("1000000000000", "1000000001500"),
        ("2001-09-09 01:46:40", "2001-09-09 01:46:41.5"),
        ("2001-09-09T01:46:40Z", "2001-09-09T01:46:41.500Z"),
        ("2001-09-09T03:46:40+02:00", "2001-09-09T01:46:41.5Z"),
        ("2001-09-09 01:46:40", "2001-09-09T03:46:41.5+02:00"),
        ("20010909T014640Z", " 2001-09-09 01:46:41.5"),
    ],
)
def test_times_of_every_form_become_seconds(folder: Path, cells: tuple[str, str]) -> None:
    recording = read(folder, f"time,a\n{cells[0]},1\n{cells[1]},2\n")
    assert recording.tracks[0].time_s.tolist() == [1e9, 1e9 + 1.5]


@pytest.mark.parametrize(
    "values",
    [
        [datetime(2001, 9, 9, 1, 46, 40), datetime(2001, 9, 9, 1, 46, 42)],
        [
            datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC),
            datetime(2001, 9, 9, 3, 46, 42, tzinfo=timezone(timedelta(hours=2))).astimezone(UTC),
        ],
        [1_000_000_000, 1_000_000_002],
        [1e12, 1e12 + 2000],
        ["2001-09-09 01:46:40", "2001-09-09 01:46:42"],
    ],
)
def test_parquet_times_of_every_type_become_seconds(folder: Path, values: list[object]) -> None:
    frame = pl.DataFrame({"time": values, "a": [1, None], "on": [True, False], "label": [0, 1]})
    frame.write_parquet(folder / "x.parquet")
    track = read_recording(folder / "x.parquet").tracks[0]
    assert track.time_s.tolist() == [1e9, 1e9 + 2]
    np.testing.assert_array_equal(track.x, np.array([[1, 1], [np.nan, 0]], np.float32))
    assert track.label is not None
    assert track.label.tolist() == ["", "anomaly"]


@pytest.mark.parametrize("name", ["pump.csv.gz", "pump.tsv", "pump.txt"])
def test_other_text_suffixes_are_csv_too(folder: Path, name: str) -> None:
    data = b"\xef\xbb\xbftime\ta\n0\t1\n1\t2\n"
    recording = read(folder, gzip.compress(data) if name.endswith(".gz") else data, name)
    assert [track.stream for track in recording.tracks] == ["pump"]
    assert recording.tracks[0].x.tolist() == [[1], [2]]


# --- what reading refuses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x.csv", b"", "the file is empty"),
        ("x.csv", b" \n\n", "the file is empty"),
        ("x.csv", b"time,a\n", "a header and no rows"),
        ("x.csv", b"time,a\n\n\n", "a header and no rows"),
        ("x.csv", b"time,a\n0,1\n", "expected at least 2 samples of a stream"),
        ("x.csv", b"time,a\n0,1\n0,2\n", "expected at least 2 samples of a stream"),
        ("x.csv", b"time,stream,a\n0,p,1\n1,q,2\n", "expected at least 2 samples of a stream"),
        ("x.csv", b"time,a\n0,1\n\n1,abc\n", 'line 4, column "a": expected a number, got "abc"'),
        ("x.csv", b"time,a\n0,inf\n1,1\n", 'line 2, column "a": expected a number, got "inf"'),
        ("x.csv", b"time,a\n0,1e39\n1,1\n", 'line 2, column "a": expected a number, got "1e39"'),
        ("x.csv", b'time,a\n0,1\n1,"1,5"\n', 'line 3, column "a": expected a number, got "1,5"'),
        ("x.csv", b"time,a,b\n0,1,2\n1,2\n", "line 3: expected 3 cells, got 2"),
        ("x.csv", b"time,a,b\n0,1,2\n1,2,3,4\n", "line 3: expected 3 cells, got 4"),
        ("x.csv", b"time,stream,a\n0,p,1\n1,,2\n", 'line 3, column "stream": expected a stream'),
        ("x.csv", b"time,a\n0,1\nnoon,2\n", 'line 3, column "time": expected a time (ISO 8601, '),
        ("x.csv", b"time,a\n0,1\n,2\n", 'line 3, column "time": expected a time (ISO 8601, '),
        ("x.csv", b"time,a\n0,1\nnan,2\n", 'line 3, column "time": expected a time (ISO 8601, '),
        ("x.csv", b"time,a\n03/04/2020,1\n", 'line 2, column "time": expected a time (ISO 8601, '),
        ("x.csv", b"time,a [\xb0C]\n0,1\n", "line 1: expected text in UTF-8, got byte 0xB0"),
        ("x.csv", b"time,a\n0,\0\n", "expected text in UTF-8, got binary data"),
        ("x.csv", b"PAR1\x15\x04\x15\xc8", "line 1: expected text in UTF-8, got byte 0xC8"),
        (
            "x.csv",
            b"time,a\n0,1\n" + b"1,1\n" * 30 + b"x" * 200_000,
            "line 33: field larger than field limit (131072)",
        ),
        ("x.csv", b"time,a,a\n0,1,2\n1,2,3\n", 'line 1: two columns are named "a"'),
        ("x.csv.gz", b"time,a\n0,1\n", "not a gzip file, or damaged: "),
        ("x.csv.gz", gzip.compress(b"time,a\n", mtime=0)[:-4], "not a gzip file, or damaged: "),
        ("x.parquet", b"time,a\n0,1\n", "not a Parquet file, or damaged: "),
        ("x.xlsx", b"time,a\n0,1\n", "expected .csv, .tsv, .txt (each also .gz) or .parquet"),
    ],
)
def test_wrong_input_is_refused_with_one_sentence(
    folder: Path, name: str, data: bytes, sentence: str
) -> None:
    with pytest.raises(EdgernnError) as caught:
        read(folder, data, name)
    assert str(caught.value).startswith(f"{name}: {sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"time": [0, 1], "a": [1.0, float("inf")]}, 'row 2, column "a": expected a number, got'),
        ({"time": [0, None], "a": [1, 2]}, 'row 2, column "time": expected a time, got nothing'),
        ({"time": [0, 1], "a": ["1", "x"]}, 'row 2, column "a": expected a number, got "x"'),
        ({"time": [0, 1], "a": [[1], [2]]}, 'row 1, column "a": expected numbers, got List(Int64)'),
        ({"time": [True, False], "a": [1, 2]}, 'row 1, column "time": expected times, got Boolean'),
        ({"time": ["0", "x"], "a": [1, 2]}, 'row 2, column "time": expected a time, got "x"'),
        ({"time": [], "a": []}, "a header and no rows"),
    ],
)
def test_wrong_parquet_columns_are_refused_with_one_sentence(
    folder: Path, columns: dict[str, list[object]], sentence: str
) -> None:
    pl.DataFrame(columns).write_parquet(folder / "x.parquet")
    with pytest.raises(EdgernnError) as caught:
        read_recording(folder / "x.parquet")
    assert str(caught.value).startswith(f"x.parquet: {sentence}")


def test_a_missing_file_and_a_folder_are_refused(folder: Path) -> None:
    (folder / "y.csv").mkdir()
    with pytest.raises(EdgernnError, match=r"^x\.csv: no such file$"):
        read_recording(folder / "x.csv")
    with pytest.raises(EdgernnError, match=r"^y\.csv: is a folder, expected a file$"):
        read_recording(folder / "y.csv")


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_period_that_is_none_is_refused(folder: Path, period_s: float) -> None:
    with pytest.raises(EdgernnError, match="period_s: expected seconds above 0"):
        read_recording(folder / "x.csv", period_s=period_s)


# --- segments ------------------------------------------------------------------------------


def test_short_gaps_are_filled_and_long_gaps_cut() -> None:
    label = np.array(["", "leak", "leak", "", ""])
    x = np.arange(5, dtype=np.float32)[:, None]
    track = Track("p", np.array([0.0, 1.0, 4.0, 6.0, 20.0]), x, label)
    first, second = segments(track, period_s=1.0, max_gap_s=5.0)
    assert first.time_s.tolist() == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(first.x[:, 0], [0, 1, np.nan, np.nan, 2, np.nan, 3])
    assert first.label is not None
    assert first.label.tolist() == ["", "leak", "leak", "leak", "leak", "", ""]
    assert (second.time_s.tolist(), second.x.tolist()) == ([20.0], [[4.0]])


def test_consecutive_samples_are_never_cut() -> None:
    track = Track("p", np.array([0.0, 1.0, 2.0]), np.zeros((3, 1), np.float32), None)
    assert [len(piece.x) for piece in segments(track, period_s=1.0, max_gap_s=0.1)] == [3]


@given(time_s=times(), period_s=st.sampled_from([0.5, 1.0, 3.0]), max_gap_s=st.floats(0, 20))
def test_segments_keep_every_sample_and_step_evenly(
    time_s: Times, period_s: float, max_gap_s: float
) -> None:
    x = np.arange(len(time_s), dtype=np.float32)[:, None]
    pieces = segments(Track("p", time_s, x, None), period_s=period_s, max_gap_s=max_gap_s)
    kept = [~np.isnan(piece.x[:, 0]) for piece in pieces]
    pairs = list(zip(pieces, kept, strict=True))
    np.testing.assert_array_equal(np.concatenate([p.time_s[k] for p, k in pairs]), time_s)
    np.testing.assert_array_equal(np.concatenate([p.x[k] for p, k in pairs]), x)
    for piece, is_kept in pairs:
        assert is_kept[0]
        assert is_kept[-1]
        assert np.all(np.diff(piece.time_s) > 0)
        for i, j in pairwise(np.flatnonzero(is_kept).tolist()):
            between = steps_between(piece.time_s[i], piece.time_s[j], period_s=period_s)
            assert j - i == between
    for one, other in pairwise(pieces):
        assert other.time_s[0] - one.time_s[-1] > max_gap_s


# --- real data -----------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark data")
@pytest.mark.parametrize(
    ("name", "label", "channels", "samples", "period_s"),
    [
        ("skab/valve1/0.csv", "", 8, 1147, 1.0),
        ("skab/anomaly-free/anomaly-free.csv", "", 8, 9405, 1.0),
        ("nab/data/realKnownCause/ec2_request_latency_system_failure.csv", "", 1, 4021, 300.0),
        ("gecco2018/train.csv.gz", "EVENT", 9, 139566, 60.0),
    ],
)
def test_public_benchmark_files_are_read(
    name: str, label: str, channels: int, samples: int, period_s: float
) -> None:
    recording = read_recording(DATA / name, columns=Columns(label=label))
    assert recording.tracks[0].x.shape == (samples, channels)
    assert recording.period_s == period_s
    assert (recording.tracks[0].label is None) == ("anomaly-free" in name or "nab" in name)
