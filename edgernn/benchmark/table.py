"""CSV files of benchmarks: every row, in the order of the file, which a recording would sort."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl
from numpy.typing import NDArray

from edgernn.benchmark.series import Bools, Samples, Times
from edgernn.errors import EdgernnError
from edgernn.layout import ANOMALOUS, FLOAT32_LIMIT, MISSING
from edgernn.recording import read_bytes
from edgernn.times import parse_time

USUAL_TIME = "%Y-%m-%d %H:%M:%S%.f"
NOT_ANOMALOUS = ("0", "0.0", "false")


class Table:
    """A file's cells as text, and what columns of them mean."""

    def __init__(self, path: Path, *, delimiter: str = ",", has_header: bool = True) -> None:
        self.path = path
        self._first_line = 2 if has_header else 1
        data = read_bytes(path)
        try:
            self._cells = pl.read_csv(
                data, separator=delimiter, has_header=has_header, infer_schema=False
            )
        except pl.exceptions.PolarsError as exc:
            first_line = next(iter(data.splitlines()), b"")
            self._refuse_ragged(data, delimiter, first_line.count(delimiter.encode()) + 1)
            raise EdgernnError(f"{path}: {str(exc).splitlines()[0]}") from exc
        self._cells = self._cells.rename(str.strip) if has_header else self._cells
        lines = self._cells.height + has_header
        if not self._cells.height:
            raise EdgernnError(f"{path}: a header and no rows")
        if data.count(delimiter.encode()) != lines * (self._cells.width - 1):
            # polars fills short rows up without a word
            self._refuse_ragged(data, delimiter, self._cells.width)

    def __len__(self) -> int:
        return self._cells.height

    @property
    def titles(self) -> tuple[str, ...]:
        """Of the columns; "column_1" … where the file has no header."""
        return tuple(self._cells.columns)

    def require(self, *titles: str) -> None:
        """Refuse a file without these columns."""
        if absent := [title for title in titles if title not in self.titles]:
            raise EdgernnError(
                f"{self.path}: expected columns {_listed(titles)}, got {_listed(self.titles)}:"
                f" {_listed(absent)} not there"
            )

    def samples(self, titles: Sequence[str]) -> Samples:
        """(T, C) of the columns named; an empty cell or nan is missing."""
        return np.stack([self._numbers(title) for title in titles], axis=1)

    def times(self, title: str) -> Times:
        """(T,) seconds since 1970 of ISO 8601 text, epoch seconds or milliseconds."""
        cells = self._cells[title].str.strip_chars()
        moments = cells.str.to_datetime(USUAL_TIME, strict=False, time_unit="us")
        if not moments.has_nulls():
            return moments.dt.timestamp("us").to_numpy() / 1e6
        times = []
        for row, cell in enumerate(cells):
            try:
                times.append(parse_time(cell or ""))
            except (ValueError, OverflowError):
                self._refuse_cell(row, title, "a time")
        return np.array(times)

    def flags(self, title: str) -> Bools:
        """(T,) of a column of 0 and 1."""
        cells = self._cells[title].fill_null("").str.strip_chars().str.to_lowercase()
        wrong = ~cells.is_in([*ANOMALOUS, *NOT_ANOMALOUS])
        if wrong.any():
            self._refuse_cell(int(wrong.arg_true()[0]), title, "0 or 1")
        return cells.is_in(list(ANOMALOUS)).to_numpy()

    def _numbers(self, title: str) -> NDArray[np.float32]:
        cells = self._cells[title].fill_null("").str.strip_chars()
        numbers = cells.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        is_missing = cells.str.to_lowercase().is_in(list(MISSING)).to_numpy()
        wrong = ~is_missing & ~(np.abs(numbers) < FLOAT32_LIMIT)
        if wrong.any():
            self._refuse_cell(int(np.argmax(wrong)), title, "a number of float32")
        return numbers.astype(np.float32)

    def _refuse_cell(self, row: int, title: str, expected: str) -> NoReturn:
        found = self._cells[title][row]
        raise EdgernnError(
            f'{self.path}: line {row + self._first_line}, column "{title}": expected {expected},'
            f" got {'nothing' if found is None else repr(found)}"
        )

    def _refuse_ragged(self, data: bytes, delimiter: str, width: int) -> None:
        for line, text in enumerate(data.splitlines(), start=1):
            cells = text.count(delimiter.encode()) + 1
            if text.strip() and cells != width:
                raise EdgernnError(f"{self.path}: line {line}: expected {width} cells, got {cells}")


def _listed(titles: Sequence[str]) -> str:
    return ", ".join(f'"{title}"' for title in titles)
