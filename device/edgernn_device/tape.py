"""Samples in, rows of a CSV recording out, up to a limit. No broker, no clock."""

import csv
import io
import logging
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import BinaryIO

from edgernn.errors import EdgernnError
from edgernn.layout import FLOAT32_LIMIT, STREAM_NAMES, join_unit
from edgernn_device.payload import RawSample

LEARN_S = 1.0
"""From the first sample on: the keys seen in this time are the channels, if none are given."""
LONGEST_KEY = 128
MOST_CHANNELS = 1000
MOST_HELD = 10_000
"""Samples; with so many the channels are known well enough."""
REMEMBERED = 50_000
"""Samples against which repeats are told; about 10 MB."""

logger = logging.getLogger(__name__)


class Tape:
    """Columns are time, stream and the channels; a sample of a stream and time is written once.

    Every `add` ends with its rows in the hands of the system: a killed process loses none of them.
    Where it cannot, the disk being full, it raises OSError and the file ends with a whole row.
    """

    def __init__(
        self,
        open_file: Callable[[], BinaryIO],
        channels: Sequence[str],
        *,
        max_samples: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """`open_file` is called for the first row, and gives a file without a buffer of its own. No
        channels: the first second's keys are."""
        self.channels = tuple(channels)
        self.samples = 0
        self.size_bytes = 0
        self.repeated = 0
        self.streams: set[str] = set()
        self.unknown: Counter[str] = Counter()
        """Keys that are not among the channels, with the samples that had them."""
        self.out_of_range = 0
        """Values beyond float32, written as missing."""
        self.is_out_of_bytes = False
        self._open_file = open_file
        self._file: BinaryIO | None = None
        self._max_samples = max_samples
        self._max_bytes = max_bytes
        self._recent: OrderedDict[tuple[str, float], None] = OrderedDict()
        self._held: list[tuple[str, RawSample]] = []  # while the channels are being learnt
        self._learn_until_s: float | None = None
        wrong = [name for name in channels if not _is_channel(name)]
        if wrong or len(set(channels)) < len(self.channels):
            raise EdgernnError(f"channels: {wrong[0]!r} cannot be one" if wrong else "one twice")

    @property
    def is_full(self) -> bool:
        enough = self._max_samples is not None and self.samples >= self._max_samples
        return enough or self.is_out_of_bytes

    def add(self, samples: Sequence[tuple[str, RawSample]], *, now_s: float) -> None:
        """Write (stream, sample) pairs, or hold them back while the channels are not known."""
        if self.channels:
            self._write(samples)
            return
        self._held += samples
        if self._held and self._learn_until_s is None:
            self._learn_until_s = now_s + LEARN_S
        is_late = self._learn_until_s is not None and now_s >= self._learn_until_s
        if is_late or len(self._held) >= MOST_HELD:
            self._write_held()

    def close(self) -> None:
        """Write what is held back; from here on the file survives a power cut, too."""
        try:
            self._write_held()
        finally:
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()

    def _write_held(self) -> None:
        if not self._held:
            return
        keys = dict.fromkeys(key for _, sample in self._held for key in sample.values)
        self.channels = tuple(key for key in keys if _is_channel(key))
        if not 0 < len(self.channels) <= MOST_CHANNELS:
            raise EdgernnError(f"expected 1–{MOST_CHANNELS} channels, got {len(self.channels)}")
        held, self._held = self._held, []
        self._write(held)

    def _write(self, samples: Iterable[tuple[str, RawSample]]) -> None:
        lines = [] if self._file else [_line(["time", "stream", *titles(self.channels)])]
        size_bytes = self.size_bytes + sum(map(len, lines))
        before = self.samples
        for stream, sample in samples:
            if self.is_full:
                break
            if self._is_repeat(stream, sample.time_s):
                self.repeated += 1
                continue
            line = _line([_iso(sample.time_s), stream, *self._cells(sample.values)])
            size_bytes += len(line)
            if self._max_bytes is not None and size_bytes > self._max_bytes:
                self.is_out_of_bytes = True
                break
            lines.append(line)
            self.samples += 1
            self.streams.add(stream)
        if not self.samples:
            return
        try:
            self._put(b"".join(lines))
        except OSError:
            self.samples = before
            raise

    def _put(self, data: bytes) -> None:
        """All of it or nothing: a full disk takes a part, and a torn row would be read as data."""
        if self._file is None:
            self._file = self._open_file()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self.size_bytes)
            self._file.seek(self.size_bytes)
            raise
        self.size_bytes += len(data)

    def _is_repeat(self, stream: str, time_s: float) -> bool:
        key = (stream, time_s)
        is_repeat = key in self._recent
        self._recent[key] = None
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return is_repeat

    def _cells(self, values: dict[str, float]) -> list[str]:
        cells = [self._cell(values.get(name, math.nan)) for name in self.channels]
        if len(values) > len(cells) or not values.keys() <= set(self.channels):
            self._count_unknown(values.keys() - set(self.channels))
        return cells

    def _cell(self, value: float) -> str:
        if abs(value) >= FLOAT32_LIMIT:
            self.out_of_range += 1
            return ""
        return "" if math.isnan(value) else repr(value)

    def _count_unknown(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self.unknown:
                if len(self.unknown) >= MOST_CHANNELS:
                    continue
                logger.warning(
                    "%s is not among the channels: not recorded", ascii(key)[:LONGEST_KEY]
                )
            self.unknown[key] += 1


def titles(channels: Sequence[str]) -> list[str]:
    """Column titles that are read back as exactly these names, brackets in them included."""
    return [join_unit(name, "") for name in channels]


def _is_channel(key: str) -> bool:
    """Whether a column of this name can be read back."""
    is_text = bool(key) and key == key.strip() and key.isprintable() and len(key) <= LONGEST_KEY
    return is_text and key.lower() not in ("time", *STREAM_NAMES)


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _iso(time_s: float) -> str:
    """To the microsecond: two samples of different times must not become equal."""
    moment = datetime.fromtimestamp(time_s, tz=UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
