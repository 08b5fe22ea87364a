"""How the columns of a recording are told apart and its rows become samples: one set of rules for
the workstation (polars) and for a device that streams a CSV file with the standard library alone.

A column's role is what `Columns` says, or else follows from its name in any case: the first of
`TIME_NAMES` that is there, and so on. A column in `IGNORED_NAMES` is left out unless it is named.
Everything else is a channel, and a unit may follow its name: `vibration [mm/s]` or `flow (l/h)`.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from edgernn.errors import EdgernnError
from edgernn.times import parse_time

DELIMITERS = (",", ";", "\t", "|")
TIME_NAMES = ("time", "timestamp", "datetime", "date", "ts", "t")
LABEL_NAMES = ("label", "labels", "anomaly", "is_anomaly", "fault", "event")
STREAM_NAMES = ("stream", "stream_id")
IGNORED_NAMES = ("changepoint",)
"""SKAB's second label column."""

MISSING = ("", "nan", "null", "na", "n/a")
HEALTHY = ("", "0", "0.0", "false", "normal", "healthy", "nan", "null")
ANOMALOUS = ("1", "1.0", "true")
FLOAT32_LIMIT = 3.4028235677973366e38
"""From here on float32 rounds to infinity."""


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user says about the columns; empty means: find it."""

    time: str = ""
    label: str = ""
    stream: str = ""
    ignore: tuple[str, ...] = ()
    delimiter: str = ""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Which column is what, as indices into a row."""

    delimiter: str
    """Empty for a file that is not text."""
    header: tuple[str, ...]
    time: int
    label: int | None
    stream: int | None
    channels: tuple[int, ...]
    ignored: tuple[int, ...]
    names: tuple[str, ...]
    """Of the channels, without units."""
    units: tuple[str, ...]

    @property
    def has_decimal_commas(self) -> bool:
        """Between semicolons `1,5` is a number (as is `1.5`): what a German Excel writes."""
        return self.delimiter == ";"


class Row(msgspec.Struct, frozen=True):
    """One line of a recording."""

    time_s: float
    stream: str
    """Empty if there is no stream column."""
    values: tuple[float, ...]
    """One per channel, NaN = missing."""
    label: str
    """Empty = healthy or not known."""


def find_layout(
    header_line: str, first_rows: Sequence[str], columns: Columns, *, where: str
) -> Layout:
    """Tell the columns of a CSV file apart by its first line and a few of the next ones.

    Raises EdgernnError, its sentence opened by `where`, for a header that leaves any doubt.
    """
    lines = [header_line.removeprefix("\ufeff"), *(row for row in first_rows if row.strip())]
    if not lines[0].strip():
        raise EdgernnError(f"{where}: line 1: expected a header, got an empty line")
    if lines[0].count('"') % 2:
        raise EdgernnError(f"{where}: line 1: a quotation mark is not closed")
    try:
        delimiter = columns.delimiter or _find_delimiter(lines)
        if len(delimiter) != 1 or delimiter in '" \r\n':
            raise EdgernnError(f"{where}: delimiter: expected one character, got {delimiter!r}")
        header, *rows = csv.reader(lines, delimiter=delimiter)
    except csv.Error as exc:
        raise EdgernnError(f"{where}: not a CSV file: {exc}") from exc
    return layout_of(header, rows, columns, where=where, delimiter=delimiter)


def layout_of(
    header: Sequence[str],
    first_rows: Sequence[Sequence[str]],
    columns: Columns,
    *,
    where: str,
    delimiter: str = "",
) -> Layout:
    """Tell columns apart by their titles, and by the first one's values if no title says time."""
    titles = tuple(title.strip() for title in header)
    _check_titles(titles, where)
    ignored = {_named(titles, name, "--ignore", where) for name in columns.ignore}
    free = [i for i in range(len(titles)) if i not in ignored]
    label = _role(titles, free, columns.label, LABEL_NAMES, flag="--label", where=where)
    stream = _role(titles, free, columns.stream, STREAM_NAMES, flag="--stream-column", where=where)
    time = _role(titles, free, columns.time, TIME_NAMES, flag="--time", where=where)
    if time is None and 0 in free and _are_iso_times([row[0] for row in first_rows if row]):
        time = 0
    if time is None:
        raise EdgernnError(
            f"{where}: no column of times among {_listed(titles)}; name it with --time"
        )
    taken = [i for i in (time, label, stream) if i is not None]
    if len(set(taken)) < len(taken) or ignored & set(taken):
        raise EdgernnError(f"{where}: one column is named for two purposes")
    ignored |= {i for i in free if titles[i].lower() in IGNORED_NAMES and i not in taken}
    channels = tuple(i for i in free if i not in taken and i not in ignored)
    if not channels:
        raise EdgernnError(f"{where}: no channels: {_listed(titles)} have other purposes")
    names, units = zip(*(split_unit(titles[i]) for i in channels), strict=True)
    _check_unique(names, where)
    return Layout(
        delimiter=delimiter,
        header=titles,
        time=time,
        label=label,
        stream=stream,
        channels=channels,
        ignored=tuple(sorted(ignored)),
        names=names,
        units=units,
    )


def read_rows(lines: Iterable[str], layout: Layout, *, where: str) -> Iterator[Row]:
    """The samples on the lines after the header, one at a time; empty rows are skipped.

    Raises EdgernnError with the file's line, the column, and what is wrong there.
    """
    reader = csv.reader(lines, delimiter=layout.delimiter)
    line = 2
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _row(cells, layout, where=f"{where}: line {line}")
            line = reader.line_num + 2
    except csv.Error as exc:
        raise EdgernnError(f"{where}: line {line}: {exc}") from exc


def split_unit(title: str) -> tuple[str, str]:
    """`vibration [mm/s]` → ("vibration", "mm/s"); without a unit the second is empty."""
    match = re.fullmatch(r"(.*\S)\s*(?:\[([^\[\]]*)\]|\(([^()]*)\))", title.strip())
    if match is None:
        return title.strip(), ""
    return match[1], (match[2] or match[3] or "").strip()


def join_unit(name: str, unit: str) -> str:
    """The title that `split_unit` takes apart again."""
    return f"{name} [{unit}]" if unit or split_unit(name) != (name, "") else name


def parse_number(cell: str, *, has_decimal_commas: bool) -> float:
    """A cell's number, NaN where it is missing. Raises ValueError for all else, infinity too."""
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    value = float(text.replace(",", ".", 1) if has_decimal_commas else text)
    if abs(value) >= FLOAT32_LIMIT or "_" in text:
        raise ValueError(f"not a number that float32 can hold: {text}")
    return value


def parse_label(cell: str) -> str:
    """A cell's label: "" where it says healthy, "anomaly" for 1 or true, else its own words."""
    text = cell.strip()
    if text.lower() in HEALTHY:
        return ""
    return "anomaly" if text.lower() in ANOMALOUS else text


def _row(cells: Sequence[str], layout: Layout, *, where: str) -> Row:
    if len(cells) != len(layout.header):
        raise EdgernnError(f"{where}: expected {len(layout.header)} cells, got {len(cells)}")
    index, expected = layout.time, "a time (ISO 8601, or seconds or milliseconds since 1970)"
    values = []
    try:
        time_s = parse_time(cells[index])
        expected = "a number"
        for index in layout.channels:
            values.append(parse_number(cells[index], has_decimal_commas=layout.has_decimal_commas))
    except (ValueError, OverflowError) as exc:
        raise EdgernnError(
            f'{where}, column "{layout.header[index]}": expected {expected}, '
            f'got "{cells[index].strip()[:40]}"'
        ) from exc
    stream = "" if layout.stream is None else cells[layout.stream].strip()
    if layout.stream is not None and not stream:
        raise EdgernnError(
            f'{where}, column "{layout.header[layout.stream]}": expected a stream, got ""'
        )
    label = "" if layout.label is None else parse_label(cells[layout.label])
    return Row(time_s, stream, tuple(values), label)


def _find_delimiter(lines: Sequence[str]) -> str:
    """The one that cuts every line into equally many cells; of several, the one that cuts most."""

    def fit(delimiter: str) -> tuple[bool, int]:
        header, *rows = (len(cells) for cells in csv.reader(lines, delimiter=delimiter))
        return header > 1 and all(size == header for size in rows), header

    return max(DELIMITERS, key=fit)


def _check_titles(titles: Sequence[str], where: str) -> None:
    if all(_is_value(title) for title in titles):
        raise EdgernnError(f"{where}: line 1: expected a header, got only values")
    if len(titles) == 1:
        raise EdgernnError(
            f'{where}: found one column, "{titles[0]}"; expected a time and at least one channel '
            "between commas, semicolons, tabs or bars"
        )
    if "" in titles:
        raise EdgernnError(f"{where}: line 1: column {titles.index('') + 1} has no name")
    _check_unique(titles, where)


def _check_unique(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise EdgernnError(f'{where}: line 1: two columns are named "{name}"')


def _role(
    titles: Sequence[str],
    free: Sequence[int],
    said: str,
    known: Sequence[str],
    *,
    flag: str,
    where: str,
) -> int | None:
    """The column that the user named, else the one with a known name among the free columns.

    Of several times the first in `known` is taken; of several labels none, for the others would
    become channels that tell the answer.
    """
    if said:
        return _named(titles, said, flag, where)
    found = {split_unit(titles[i])[0].lower(): i for i in reversed(free)}
    if len(found.keys() & set(known)) > 1 and known is not TIME_NAMES:
        both = _listed([titles[found[name]] for name in known if name in found])
        raise EdgernnError(f"{where}: {both}: name one with {flag}, leave others out with --ignore")
    return next((found[name] for name in known if name in found), None)


def _named(titles: Sequence[str], name: str, flag: str, where: str) -> int:
    """The column with this title, or with this name before its unit."""
    if name in titles:
        return titles.index(name)
    names = [split_unit(title)[0] for title in titles]
    if names.count(name) != 1:
        raise EdgernnError(f'{where}: no column "{name}" ({flag}) among {_listed(titles)}')
    return names.index(name)


def _are_iso_times(cells: Sequence[str]) -> bool:
    return bool(cells) and all(_is_value(cell) and not _is_number(cell) for cell in cells)


def _is_value(cell: str) -> bool:
    try:
        parse_time(cell)
    except (ValueError, OverflowError):
        return _is_number(cell)
    return True


def _is_number(cell: str) -> bool:
    try:
        return not math.isnan(parse_number(cell, has_decimal_commas=True))
    except ValueError:
        return False


def _listed(titles: Sequence[str]) -> str:
    return ", ".join(f'"{title}"' for title in titles)
