"""Publishes a recording over MQTT as its sensors would have, at their pace or any other."""

import gzip
import io
import itertools
import logging
import math
import secrets
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from edgernn.errors import EdgernnError, MissingExtraError
from edgernn.layout import Columns, Layout, Row, find_layout, read_rows
from edgernn_device.address import Access
from edgernn_device.link import Link
from edgernn_device.mapping import VALUE
from edgernn_device.payload import RESERVED, SEQ_KEY, TIME_KEYS
from edgernn_device.topics import CHANNEL, DEFAULT_PATTERN, TopicPattern

LOOKED_AT = 20
"""Rows that decide about the columns."""
SLICE = 10_000
"""Rows of a Parquet file that are text at a time."""
WINDOW = 200
"""Messages that wait for the broker before reading goes on."""
PATIENCE_S = 5.0
"""How long an interrupted replay still waits for confirmations."""

logger = logging.getLogger(__name__)


class Replayed(msgspec.Struct, frozen=True):
    """What was published."""

    samples: int
    """Per stream name: a file replayed as two streams counts twice."""
    messages: int
    duration_s: float
    late_s: float
    """How far the worst sample was behind its schedule; 0 at full speed."""
    is_complete: bool
    """False if it was stopped before the end."""


def replay(
    path: Path,
    access: Access,
    *,
    streams: Sequence[str] = (),
    pattern: str = DEFAULT_PATTERN,
    columns: Columns | None = None,
    speed: float = 1.0,
    block: int = 1,
    qos: Literal[0, 1] = 1,
    rebase: bool = False,
    stop: threading.Event | None = None,
) -> Replayed:
    """Publish every sample of a .csv or .parquet file, in the file's order; never the label.

    `streams`: the names to publish it under, several if wanted; default: the file's stream column,
    else the file's name. `speed`: 60 = an hour in a minute, 0 = as fast as the broker takes it.
    `block`: samples per message. `rebase`: shift all times so that the first sample is now. Where
    the pattern has {channel}, each value is a message on its channel's topic, with time and seq.
    Returns once the broker has confirmed everything. Raises EdgernnError with the reason if not.
    """
    topics = TopicPattern.parse(pattern)
    _check(speed, block, topics)
    stop = stop or threading.Event()
    with _rows_of(path, columns or Columns()) as (layout, rows):
        _check_names(layout, streams, path)
        names = tuple(streams) or (() if layout.stream is not None else (_stem(path),))
        for name in names:
            for channel in layout.names if topics.has_channel else ("",):
                topics.topic(name, channel)  # refused now rather than in the middle
        link = Link(access, client_id=f"edgernn-replay-{secrets.token_hex(4)}")
        link.start()
        player = _Player(link, topics, layout, block=block, qos=qos, stop=stop)
        try:
            player.play(rows, names, speed=speed, rebase=rebase)
        finally:
            undelivered = link.stop(timeout_s=PATIENCE_S)
    if link.refused or (undelivered and not stop.is_set()):
        raise EdgernnError(f"{access.address}: {link.refused or undelivered} messages refused")
    return player.result()


class _Player:
    """Rows in, messages out, on time."""

    def __init__(
        self,
        link: Link,
        topics: TopicPattern,
        layout: Layout,
        *,
        block: int,
        qos: Literal[0, 1],
        stop: threading.Event,
    ) -> None:
        self._link = link
        self._topic = cache(topics.topic)
        self._has_channel = topics.has_channel
        self._layout = layout
        self._block = block
        self._qos: Literal[0, 1] = qos
        self._stop = stop
        self._blocks: dict[str, list[dict[str, float | int | None]]] = {}
        self._seqs: dict[str, int] = {}
        self._anchors: dict[str, tuple[float, float]] = {}
        self._began_s = time.monotonic()
        self._samples = self._messages = 0
        self._late_s = 0.0
        self._is_complete = False

    def play(
        self, rows: Iterable[Row], names: tuple[str, ...], *, speed: float, rebase: bool
    ) -> None:
        shift_s = 0.0
        for number, row in enumerate(rows):
            if rebase and number == 0:
                shift_s = time.time() - row.time_s
            if speed and not self._wait_for(row, speed):
                return
            # the same rows go out under every name, so one block serves all of them
            block = self._blocks.setdefault(row.stream, [])
            block.append(self._sample(row, shift_s))
            if len(block) >= self._block and not self._publish(row.stream, names):
                return
        self._is_complete = all(self._publish(key, names) for key in list(self._blocks))
        while self._is_complete and not self._link.wait_until_waiting(0, timeout_s=0.5):
            self._is_complete = not self._stop.is_set()

    def result(self) -> Replayed:
        return Replayed(
            samples=self._samples,
            messages=self._messages,
            duration_s=time.monotonic() - self._began_s,
            late_s=self._late_s,
            is_complete=self._is_complete,
        )

    def _wait_for(self, row: Row, speed: float) -> bool:
        """Until the row is due. Every stream has its own start, so that files sorted by stream
        keep their pace too; always counted from there, so that nothing drifts."""
        now_s = time.monotonic()
        first_s, started_s = self._anchors.setdefault(row.stream, (row.time_s, now_s))
        wait_s = started_s + (row.time_s - first_s) / speed - now_s
        if wait_s > 0:
            return not self._stop.wait(wait_s)
        self._late_s = max(self._late_s, -wait_s)
        return not self._stop.is_set()

    def _sample(self, row: Row, shift_s: float) -> dict[str, float | int | None]:
        seq = self._seqs[row.stream] = self._seqs.get(row.stream, -1) + 1
        time_s = round(row.time_s + shift_s, 6) if shift_s else row.time_s
        sample: dict[str, float | int | None] = {"time": time_s, "seq": seq}
        for name, value in zip(self._layout.names, row.values, strict=True):
            sample[name] = None if math.isnan(value) else value
        return sample

    def _publish(self, key: str, names: tuple[str, ...]) -> bool:
        """False if stopped while the broker takes no more."""
        samples = self._blocks.pop(key)
        payloads = self._payloads(samples)
        for name in names or (key,):
            for channel, payload in payloads:
                while not self._link.wait_until_waiting(WINDOW, timeout_s=0.5):
                    if self._stop.is_set():
                        return False
                self._link.publish(self._topic(name, channel), payload, qos=self._qos)
                self._messages += 1
            self._samples += len(samples)
        return not self._stop.is_set()

    def _payloads(self, samples: list[dict[str, float | int | None]]) -> list[tuple[str, bytes]]:
        """(channel, message), the channel "" where all come in one."""
        if not self._has_channel:
            content = samples[0] if self._block == 1 else samples
            return [("", msgspec.json.encode(content))]
        (sample,) = samples
        head = {TIME_KEYS[0]: sample[TIME_KEYS[0]], SEQ_KEY: sample[SEQ_KEY]}
        return [
            (name, msgspec.json.encode(head | {VALUE: sample[name]})) for name in self._layout.names
        ]


def _check(speed: float, block: int, topics: TopicPattern) -> None:
    if not (math.isfinite(speed) and speed >= 0):
        raise EdgernnError(f"speed: expected 0 (as fast as it goes) or more, got {speed}")
    if block < 1:
        raise EdgernnError(f"block: expected 1 or more samples a message, got {block}")
    if block > 1 and topics.has_channel:
        raise EdgernnError(
            f"block: expected 1, as with {CHANNEL} in the topic a message is one value, got {block}"
        )


def _check_names(layout: Layout, streams: Sequence[str], path: Path) -> None:
    clashes = [name for name in layout.names if name in RESERVED]
    if clashes:
        raise EdgernnError(
            f"{path}: channel {clashes[0]!r}: in a message this is no channel's name"
        )
    if streams and layout.stream is not None:
        title = layout.header[layout.stream]
        raise EdgernnError(f'{path}: its column "{title}" names the streams; name no others')
    if len(set(streams)) < len(streams):
        raise EdgernnError(f"the stream names must differ, got {', '.join(streams)}")


@contextmanager
def _rows_of(path: Path, columns: Columns) -> Iterator[tuple[Layout, Iterator[Row]]]:
    """The file's layout and its rows, read as they are needed."""
    where = str(path)
    if path.suffix.lower() == ".parquet":
        columns = msgspec.structs.replace(columns, delimiter=",")
        lines = _parquet_lines(path)
        yield _begin(lines, columns, where)
        return
    try:
        with _open(path) as file:
            yield _begin(iter(file), columns, where)
    except UnicodeDecodeError as exc:
        raise EdgernnError(f"{path}: not a text file (byte {exc.start} is not UTF-8)") from exc
    except (OSError, EOFError, zlib.error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else None
        raise EdgernnError(f"{path}: cannot be read: {reason or exc}") from exc


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _begin(lines: Iterator[str], columns: Columns, where: str) -> tuple[Layout, Iterator[Row]]:
    header = next(lines, "")
    first = list(itertools.islice(lines, LOOKED_AT))
    layout = find_layout(header, first, columns, where=where)
    return layout, read_rows(itertools.chain(first, lines), layout, where=where)


def _parquet_lines(path: Path) -> Iterator[str]:
    """The file as lines of CSV, so that one set of rules reads both."""
    try:
        import polars  # noqa: PLC0415 - not on the device
    except ModuleNotFoundError as exc:
        raise MissingExtraError(
            f"{path}: Parquet needs polars: pip install 'edgernn[train]'"
        ) from exc
    try:
        frame = polars.read_parquet(path)
    except (polars.exceptions.PolarsError, OSError) as exc:
        reason = str(exc).splitlines()[0]
        raise EdgernnError(f"{path}: not a readable Parquet file: {reason}") from exc
    yield from io.StringIO(frame.head(0).write_csv(), newline="")
    for part in frame.iter_slices(SLICE):
        yield from io.StringIO(part.write_csv(include_header=False), newline="")
