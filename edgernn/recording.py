"""Recordings: CSV or Parquet in and out, and evenly stepped segments of them. No scaling."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from edgernn.errors import EdgernnError
from edgernn.layout import (
    MISSING,
    Columns,
    Layout,
    find_layout,
    join_unit,
    layout_of,
    parse_label,
    read_rows,
)
from edgernn.times import MILLISECONDS_FROM, YEAR_S, format_time, parse_time

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIX = ".parquet"
LOOK_AHEAD = 20
"""Rows that the delimiter must fit, and that must hold times in a first column not named so."""
IRREGULAR = 0.5
"""An interval is irregular when it deviates from the period by more than this share of it."""

FIND_ALL = Columns()
"""No word from the user on the columns."""

ISO_NAIVE = r"^\d{4}-\d\d-\d\d[T ]\d\d:[0-5]\d:[0-5]\d(\.\d{1,6})?$"
ISO_ZONED = r"^\d{4}-\d\d-\d\d[T ]\d\d:[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$"

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Track:
    """One stream's samples."""

    stream: str
    time_s: Times
    """(T,) seconds since 1970, strictly increasing."""
    x: Floats
    """(T, C) in sensor units, NaN = missing."""
    label: Labels | None
    """(T,) what was wrong, "" = healthy. None where the recording has no labels."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The samples of one or more streams with the same channels."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    tracks: tuple[Track, ...]
    period_s: float
    """Time between samples."""
    notes: tuple[str, ...]
    """What reading had to put right, as sentences for the user."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A file's rows as they came, N of them, before they are sorted."""

    streams: pl.Series
    time_s: Times
    x: Floats
    label: Labels | None
    empty_rows: int


class _WrongCellError(Exception):
    """A cell that is not what its column should hold: which row (from 0), which column, and why."""

    def __init__(self, row: int, column: str, reason: str) -> None:
        super().__init__(f'row {row + 1}, column "{column}": {reason}')


def read_recording(
    path: Path, *, columns: Columns = FIND_ALL, period_s: float | None = None
) -> Recording:
    """Read a .csv, .tsv, .txt (each also .gz) or .parquet file.

    * Columns are told apart as in `edgernn.layout`. Times are ISO 8601, seconds, or milliseconds.
    * Rows are sorted by time within their stream; of rows with one time the first is kept.
    * Empty cells, nan and null are missing. Rows with no cell filled are skipped.
    * Without a stream column all rows are one stream, named for the file.
    * `period_s` is the median interval unless given.

    What had to be put right stands in `notes`. Raises EdgernnError with file, line and column for
    the first thing that is wrong.
    """
    if period_s is not None and not 0 < period_s < float("inf"):
        raise EdgernnError(f"period_s: expected seconds above 0, got {period_s}")
    data = read_bytes(path)
    table, layout = (
        _read_csv(path, data, columns) if _is_csv(path) else _read_parquet(path, data, columns)
    )
    notes = [f'column "{layout.header[i]}" is ignored' for i in layout.ignored]
    notes += [f"empty rows are skipped: {table.empty_rows}"] if table.empty_rows else []
    tracks, sorting_notes = _tracks(table)
    notes += sorting_notes
    intervals = np.concatenate([np.diff(track.time_s) for track in tracks])
    if not len(intervals):
        raise EdgernnError(f"{path}: expected at least 2 samples of a stream")
    period_s = float(np.median(intervals)) if period_s is None else period_s
    irregular = int(np.sum(np.abs(intervals - period_s) > IRREGULAR * period_s))
    notes += _counted(
        irregular, f"intervals differ from {period_s:g} s by more than half", len(intervals)
    )
    notes += _missing_notes(layout.names, table.x)
    return Recording(layout.names, layout.units, tracks, period_s, tuple(notes))


def write_recording(path: Path, recording: Recording) -> None:
    """Write .csv or .parquet, such that reading it gives the same samples.

    Times are UTC in milliseconds, or in microseconds if the samples need it. A stream column is
    written if there are several streams, or one that is not named for the file. Raises
    EdgernnError for what could not be read back: a channel named like a label, an infinite value.
    """
    if _suffix(path) not in (".csv", PARQUET_SUFFIX) or path.suffix == ".gz":
        raise EdgernnError(f"{path}: expected a name in .csv or .parquet")
    tracks = recording.tracks
    check_readable(path, recording)
    titles = _titles(recording)
    time_us = np.concatenate([np.rint(track.time_s * 1e6).astype(np.int64) for track in tracks])
    x = np.concatenate([track.x for track in tracks])  # (ΣT, C)
    series = [pl.Series("time", time_us).cast(pl.Datetime("us", "UTC"))]
    if _has_stream_column(path, recording):
        streams = [name for track in tracks for name in [track.stream] * len(track.time_s)]
        series.append(pl.Series("stream", streams, dtype=pl.String))
    series += [pl.Series(title, column) for title, column in zip(titles, x.T, strict=True)]
    if labels := [track.label for track in tracks if track.label is not None]:
        series.append(pl.Series("label", np.concatenate(labels).tolist(), dtype=pl.String))
    frame = pl.DataFrame(series)
    try:
        if path.suffix.lower() == PARQUET_SUFFIX:
            frame.write_parquet(path)
        else:
            fraction = "%.3f" if np.all(time_us % 1000 == 0) else "%.6f"
            iso = pl.col("time").dt.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}Z")
            frame.with_columns(iso, pl.col(titles).fill_nan(None)).write_csv(path)
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be written: {exc.strerror or exc}") from exc


def check_readable(path: Path, recording: Recording) -> None:
    """Raises EdgernnError for what could not be read back, were it written to `path`."""
    has_labels = any(track.label is not None for track in recording.tracks)
    stream = ["stream"] * _has_stream_column(path, recording)
    titles = ["time", *stream, *_titles(recording), *["label"] * has_labels]
    layout = layout_of(titles, [], FIND_ALL, where=str(path))
    tracks = recording.tracks
    labels = {word for t in tracks if t.label is not None for word in np.unique(t.label).tolist()}
    problems = [
        (layout.names != recording.channels or layout.units != recording.units, "channel names"),
        ((layout.label is None) != all(t.label is None for t in tracks), "channel names"),
        ((layout.stream is None) != ("stream" not in titles), "channel names"),
        (len({t.label is None for t in tracks}) > 1, "labels on some streams only"),
        (any(parse_label(word) != word for word in labels), "labels"),
        (any(t.stream != t.stream.strip() or not t.stream for t in tracks), "stream names"),
        (len({t.stream for t in tracks}) < len(tracks), "two streams of one name"),
        (any(np.isinf(t.x).any() for t in tracks), "infinite values"),
    ]
    for is_wrong, what in problems:
        if is_wrong:
            raise EdgernnError(f"{path}: {what} that could not be read back")


def check_dated(recording: Recording, what: str) -> None:
    """Raises EdgernnError, its sentence opened by `what` asks, where times are seconds from a
    beginning, which say nothing of the time of day."""
    for track in recording.tracks:
        if (first_s := float(track.time_s[0])) < YEAR_S:
            raise EdgernnError(
                f"{what}: expected dates, and the times of stream {track.stream} begin at "
                f"{first_s:g} s, which is {format_time(first_s)}"
            )


def _titles(recording: Recording) -> list[str]:
    return [join_unit(*pair) for pair in zip(recording.channels, recording.units, strict=True)]


def _has_stream_column(path: Path, recording: Recording) -> bool:
    return len(recording.tracks) > 1 or recording.tracks[0].stream != _stem(path)


def segments(track: Track, *, period_s: float, max_gap_s: float) -> list[Track]:
    """Cut a track at its long gaps and fill the short ones: pieces in which every row is one step.

    Steps are counted from sample to sample as in `edgernn.times.steps_between`. Missing rows are
    filled: x with NaN, time_s evenly between its neighbours, a label only if both neighbours have
    it. A gap is long if samples are missing for more than `max_gap_s`.
    """
    intervals = np.diff(track.time_s)
    steps = np.maximum(1, np.rint(intervals / period_s)).astype(np.int64)  # (T-1,)
    cuts = np.flatnonzero((steps > 1) & (intervals > max_gap_s)) + 1
    bounds = [0, *cuts.tolist(), len(track.time_s)]
    return [
        _filled(track, slice(start, stop), steps[start : stop - 1])
        for start, stop in pairwise(bounds)
        if stop > start
    ]


def _filled(track: Track, rows: slice, steps: npt.NDArray[np.int64]) -> Track:
    """The rows of one segment, each at its step, with NaN rows in between."""
    time_s, x = track.time_s[rows], track.x[rows]
    if (steps == 1).all():  # nothing is missing: the samples as they are
        label = None if track.label is None else track.label[rows]
        return Track(track.stream, time_s, x, label)
    place = np.concatenate([[0], np.cumsum(steps)])  # (T,) of each sample in the segment
    every = np.arange(place[-1] + 1)
    filled = np.full((len(every), x.shape[1]), np.nan, dtype=np.float32)
    filled[place] = x
    label = track.label
    if label is not None:
        label = label[rows]
        before = np.searchsorted(place, every, side="right") - 1
        after = np.searchsorted(place, every, side="left")
        label = np.where(label[before] == label[after], label[before], "")
    return Track(track.stream, np.interp(every, place, time_s), filled, label)


def _suffix(path: Path) -> str:
    """The suffix before .gz."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _is_csv(path: Path) -> bool:
    if _suffix(path) in CSV_SUFFIXES:
        return True
    if path.suffix.lower() != PARQUET_SUFFIX:
        raise EdgernnError(f"{path}: expected .csv, .tsv, .txt (each also .gz) or .parquet")
    return False


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked if its name ends in .gz. Raises EdgernnError where it has none."""
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError as exc:
        raise EdgernnError(f"{path}: no such file") from exc
    except IsADirectoryError as exc:
        raise EdgernnError(f"{path}: is a folder, expected a file") from exc
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise EdgernnError(f"{path}: not a gzip file, or damaged: {exc}") from exc
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be read: {exc.strerror}") from exc
    if not data or data.isspace():
        raise EdgernnError(f"{path}: the file is empty")
    return data


def _read_csv(path: Path, data: bytes, columns: Columns) -> tuple[_Table, Layout]:
    """The fast way, and only if that fails, row by row to the line that is wrong."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise EdgernnError(
            f"{path}: line {line}: expected text in UTF-8, got byte 0x{data[exc.start]:02X}"
        ) from exc
    if "\0" in text:
        raise EdgernnError(f"{path}: expected text in UTF-8, got binary data")
    header_line, *first_rows = text.split("\n", LOOK_AHEAD + 1)[: LOOK_AHEAD + 1]
    layout = find_layout(header_line, first_rows, columns, where=str(path))
    try:
        frame = pl.read_csv(data, separator=layout.delimiter, infer_schema=False)
        # polars fills short rows up without a word
        cuts = data.count(layout.delimiter.encode())
        if cuts != (frame.height + 1) * (frame.width - 1) and _is_ragged(data, layout):
            _refuse_wrong_rows(path, data, layout)
        return _to_table(frame, layout, path), layout
    except (pl.exceptions.PolarsError, _WrongCellError) as exc:
        _refuse_wrong_rows(path, data, layout)
        raise EdgernnError(f"{path}: {str(exc).splitlines()[0]}") from exc


def _lines(data: bytes) -> Iterator[str]:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")


def _is_ragged(data: bytes, layout: Layout) -> bool:
    """Is there a row of another length than the header's? Empty lines do not count."""
    rows = csv.reader(_lines(data), delimiter=layout.delimiter)
    try:
        return any(0 < len(cells) != len(layout.header) for cells in rows)
    except csv.Error:
        return True


def _refuse_wrong_rows(path: Path, data: bytes, layout: Layout) -> None:
    """Raises EdgernnError for the first line that is wrong, returns if none is."""
    lines = _lines(data)
    next(lines)
    for _ in read_rows(lines, layout, where=str(path)):
        pass


def _read_parquet(path: Path, data: bytes, columns: Columns) -> tuple[_Table, Layout]:
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as exc:
        raise EdgernnError(f"{path}: not a Parquet file, or damaged: {exc}") from exc
    first_rows = [[str(row[0])] for row in frame.head(LOOK_AHEAD).rows()]
    layout = layout_of(frame.columns, first_rows, columns, where=str(path))
    try:
        return _to_table(frame, layout, path), layout
    except (pl.exceptions.PolarsError, _WrongCellError) as exc:
        raise EdgernnError(f"{path}: {str(exc).splitlines()[0]}") from exc


def _to_table(frame: pl.DataFrame, layout: Layout, path: Path) -> _Table:
    rows = frame.height
    if frame.to_series(layout.time).cast(pl.String).str.strip_chars().replace("", None).has_nulls():
        text = pl.all().cast(pl.String, strict=False).str.strip_chars()
        frame = frame.filter(pl.any_horizontal(text.fill_null("") != ""))
    if not frame.height:
        raise EdgernnError(f"{path}: a header and no rows")
    streams = pl.repeat(_stem(path), frame.height, dtype=pl.String, eager=True)
    if layout.stream is not None:
        streams = frame.to_series(layout.stream).cast(pl.String).str.strip_chars().replace("", None)
        _refuse_where(streams.is_null(), streams, "a stream")
    label = None
    if layout.label is not None:
        words = frame.to_series(layout.label).cast(pl.String).fill_null("")
        known = {word: parse_label(word) for word in words.unique()}
        label = np.array([known[word] for word in words], dtype=np.str_)
    numbers = [_numbers(frame.to_series(i), layout.has_decimal_commas) for i in layout.channels]
    time_s = _times(frame.to_series(layout.time))
    return _Table(streams, time_s, np.column_stack(numbers), label, rows - frame.height)


def _numbers(cells: pl.Series, has_decimal_commas: bool) -> Floats:
    """A channel's cells as float32, under the rules of `edgernn.layout.parse_number`."""
    if not (cells.dtype.is_numeric() or cells.dtype in (pl.String, pl.Boolean, pl.Null)):
        raise _WrongCellError(0, cells.name, f"expected numbers, got {cells.dtype}")
    values = cells.cast(pl.Float32, strict=False)
    if values.null_count() > cells.null_count():
        text = cells.cast(pl.String).str.strip_chars()
        text = text.set(text.str.to_lowercase().is_in(MISSING), None)
        if has_decimal_commas:
            text = text.str.replace(",", ".", literal=True)
        values = text.cast(pl.Float32, strict=False)
        _refuse_where(values.is_null() & text.is_not_null(), cells, "a number")
    _refuse_where(values.is_infinite().fill_null(False), cells, "a number")
    return values.fill_null(float("nan")).to_numpy()


def _times(cells: pl.Series) -> Times:
    """Times in seconds, under the rules of `edgernn.times.parse_time`."""
    _refuse_where(cells.is_null(), cells, "a time")
    if cells.dtype == pl.String:
        cells = _text_times(cells)
    if cells.dtype in (pl.Datetime, pl.Date):
        return cells.dt.timestamp("us").to_numpy() / 1e6
    if not cells.dtype.is_numeric():
        raise _WrongCellError(0, cells.name, f"expected times, got {cells.dtype}")
    values = cells.cast(pl.Float64)
    _refuse_where(~values.is_finite(), cells, "a time")
    time_s = values.to_numpy()
    return np.where(np.abs(time_s) >= MILLISECONDS_FROM, time_s / 1000.0, time_s)


def _text_times(cells: pl.Series) -> pl.Series:
    """Text to datetimes or bare numbers, column by column where all cells have one usual form."""
    numbers = cells.cast(pl.Float64, strict=False)
    if not numbers.has_nulls():
        return numbers
    for form, zone in ((ISO_NAIVE, "Z"), (ISO_ZONED, "")):
        if cells.str.contains(form).all():
            moments = (cells + zone).str.to_datetime("%+", strict=False, time_unit="us")
            if not moments.has_nulls():
                return moments
    times = []
    for row, cell in enumerate(cells):
        try:
            times.append(parse_time(cell))
        except (ValueError, OverflowError) as exc:
            raise _WrongCellError(row, cells.name, f'expected a time, got "{cell}"') from exc
    return pl.Series(cells.name, times, dtype=pl.Float64)


def _refuse_where(wrong: pl.Series, cells: pl.Series, expected: str) -> None:
    if wrong.any():
        row = wrong.arg_true()[0]
        found = "nothing" if cells[row] is None else f'"{cells[row]}"'
        raise _WrongCellError(row, cells.name, f"expected {expected}, got {found}")


def _tracks(table: _Table) -> tuple[tuple[Track, ...], list[str]]:
    """The rows of each stream in order of time, streams in order of appearance."""
    rows = pl.DataFrame({"stream": table.streams, "row": np.arange(len(table.time_s))})
    tracks, unsorted, repeated = [], 0, 0
    for stream, of_stream in rows.group_by("stream", maintain_order=True).agg("row").iter_rows():
        index = np.asarray(of_stream)
        time_s = table.time_s[index]
        unsorted += int(np.sum(time_s < np.maximum.accumulate(time_s)))
        index = index[np.argsort(time_s, kind="stable")]
        is_first = np.diff(table.time_s[index], prepend=-np.inf) > 0
        repeated += int(np.sum(~is_first))
        index = index[is_first]
        label = None if table.label is None else table.label[index]
        tracks.append(Track(stream, table.time_s[index], table.x[index], label))
    total = len(table.time_s)
    notes = _counted(unsorted, "rows were out of order and are sorted by time", total)
    notes += _counted(repeated, "rows repeat a time; the first of each is kept", total)
    return tuple(tracks), notes


def _missing_notes(channels: Sequence[str], x: Floats) -> list[str]:
    missing = np.isnan(x).sum(axis=0)  # (C,)
    return [
        f'channel "{name}" has no values'
        if count == len(x)
        else f'channel "{name}": {count} of {len(x)} values are missing'
        for name, count in zip(channels, missing.tolist(), strict=True)
        if count
    ]


def _counted(count: int, what: str, total: int) -> list[str]:
    return [f"{count} of {total} {what}"] if count else []
