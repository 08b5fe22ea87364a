"""Captures live samples into a recording: CSV as they arrive, or Parquet made from it at the end.

A message is acknowledged only once its rows are written.
"""

import logging
import os
import queue
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from edgernn.errors import EdgernnError, Exit, MissingExtraError, ending_with
from edgernn_device.address import Access
from edgernn_device.intake import Intake
from edgernn_device.link import Link, Message
from edgernn_device.mapping import Mapping
from edgernn_device.payload import PayloadError, RawSample
from edgernn_device.tape import Tape, titles
from edgernn_device.topics import DEFAULT_PATTERN, TopicPattern

BATCH = 1000
"""Messages that are written at once."""
INBOX_LIMIT = 10_000
"""Messages that wait to be written; further ones are dropped and counted."""

logger = logging.getLogger(__name__)

Ending = Literal["stopped", "samples", "bytes", "duration"]


class Recorded(msgspec.Struct, frozen=True):
    """What was written, and what was not."""

    samples: int
    streams: int
    channels: tuple[str, ...]
    size_bytes: int
    """Of the CSV."""
    ended_by: Ending
    repeated: int
    """Samples of a stream and time already written."""
    refused: dict[str, int]
    """Messages that could not be used, by reason."""
    unknown: dict[str, int]
    """Keys that are not among the channels, with the samples that had them."""
    out_of_range: int
    """Values beyond float32, written as missing."""


def record(
    path: Path,
    access: Access,
    *,
    pattern: str = DEFAULT_PATTERN,
    mapping: Mapping | None = None,
    channels: Sequence[str] = (),
    period_s: float | None = None,
    hold_s: float | None = None,
    max_samples: int | None = None,
    max_bytes: int | None = None,
    duration_s: float | None = None,
    force: bool = False,
    stop: threading.Event | None = None,
    on_ready: Callable[[], None] | None = None,
) -> Recorded:
    """Write what arrives to a new .csv or .parquet file until `stop` or the first limit is reached.

    It stops at a limit, it does not rotate: the file holds at most `max_samples` rows, the CSV at
    most `max_bytes`. Columns are time, stream and the channels: those given, or those of the first
    second. Where the pattern has {channel}, values are joined into samples, one a `period_s`, as
    the agent does it; then `channels` must be given. `on_ready` is called once it listens.

    Raises EdgernnError if the file exists (unless `force`: then it is replaced when the first
    sample arrives), cannot be written, or if nothing arrived.
    """
    for name, limit in (("max_samples", max_samples), ("max_bytes", max_bytes)):
        if limit is not None and limit < 1:
            raise EdgernnError(f"{name}: expected 1 or more, got {limit}")
    intake = Intake.for_recording(
        topics := TopicPattern.parse(pattern),
        mapping or Mapping(),
        channels,
        period_s=period_s,
        hold_s=hold_s,
    )
    is_parquet = _is_parquet(path)
    spool = path.with_suffix(".partial.csv") if is_parquet else path
    for target in {path, spool}:
        _check_target(target, force=force)
    refused: Counter[str] = Counter()
    tape = Tape(
        lambda: spool.open("wb" if force else "xb", buffering=0),
        channels,
        max_samples=max_samples,
        max_bytes=max_bytes,
    )
    try:
        ended_by = _listen(
            tape,
            access,
            topics,
            intake,
            refused,
            duration_s=duration_s,
            stop=stop,
            on_ready=on_ready,
        )
    except OSError as exc:
        with ending_with(Exit.STATE):
            raise EdgernnError(_why_cut(spool, tape, exc)) from exc
    if not tape.samples:
        seen = ", ".join(f"{n} × {reason}" for reason, n in refused.items()) or "no message came"
        raise EdgernnError(f"nothing recorded from {topics.filter} at {access.address}: {seen}")
    if is_parquet:
        _to_parquet(spool, path, tape.channels)
    return Recorded(
        samples=tape.samples,
        streams=len(tape.streams),
        channels=tape.channels,
        size_bytes=tape.size_bytes,
        ended_by=ended_by,
        repeated=tape.repeated,
        refused=dict(refused + intake.counts),
        unknown=dict(tape.unknown),
        out_of_range=tape.out_of_range,
    )


def _listen(
    tape: Tape,
    access: Access,
    topics: TopicPattern,
    intake: Intake,
    refused: Counter[str],
    *,
    duration_s: float | None,
    stop: threading.Event | None,
    on_ready: Callable[[], None] | None,
) -> Ending:
    inbox: queue.Queue[Message] = queue.Queue(INBOX_LIMIT)

    def take(message: Message) -> None:
        try:
            inbox.put_nowait(message)
        except queue.Full:
            refused["dropped, too many at once"] += 1
            link.ack(message)

    link = Link(
        access,
        client_id=f"edgernn-record-{secrets.token_hex(4)}",
        subscriptions=[(topics.filter, 1)],
        on_message=take,
    )
    link.start()
    if on_ready is not None:
        on_ready()
    until_s = None if duration_s is None else time.monotonic() + duration_s
    try:
        while not tape.is_full:
            if stop is not None and stop.is_set():
                return "stopped"
            if until_s is not None and time.monotonic() > until_s:
                return "duration"
            link.raise_if_dead()
            messages = _next_batch(inbox)
            samples = _samples(messages, intake, refused)
            if inbox.empty():
                samples += intake.due(time.monotonic())
            tape.add(samples, now_s=time.monotonic())
            for message in messages:
                link.ack(message)
    finally:
        link.stop(timeout_s=1.0)
        tape.close()
    return "bytes" if tape.is_out_of_bytes else "samples"


def _why_cut(spool: Path, tape: Tape, exc: OSError) -> str:
    kept = f"; the {tape.samples:,} samples before are in it" if tape.samples else ""
    return f"{spool}: cannot be written any more: {exc.strerror or exc}{kept}"


def _next_batch(inbox: queue.Queue[Message]) -> list[Message]:
    """All that waits, at least one unless none comes for a moment."""
    messages: list[Message] = []
    try:
        messages.append(inbox.get(timeout=0.1))
        while len(messages) < BATCH:
            messages.append(inbox.get_nowait())
    except queue.Empty:
        pass
    return messages


def _samples(
    messages: Iterable[Message], intake: Intake, refused: Counter[str]
) -> list[tuple[str, RawSample]]:
    found: list[tuple[str, RawSample]] = []
    for message in messages:
        try:
            samples = intake.take(
                message.topic, message.payload, received_s=time.time(), now_s=time.monotonic()
            )
            found += samples
            _count_odd((one for _, one in samples), topic=message.topic, refused=refused)
        except PayloadError as exc:
            if not refused[exc.reason]:
                logger.warning("%s: refused: %s", ascii(message.topic[:200]), ascii(str(exc)[:500]))
            refused[exc.reason] += 1
    return found


def _count_odd(samples: Iterable[RawSample], *, topic: str, refused: Counter[str]) -> None:
    """Values that are no numbers are left out of their samples."""
    for sample in samples:
        for key, what in (sample.odd or {}).items():
            if not refused["not_a_number"]:
                logger.warning("%s: %s is %s: not recorded", ascii(topic), ascii(key)[:128], what)
            refused["not_a_number"] += 1


def _is_parquet(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise EdgernnError(f"{path}: expected a name in .csv or .parquet")
    if suffix == ".parquet":
        try:
            import polars  # noqa: F401, PLC0415 - not on the device
        except ModuleNotFoundError as exc:
            raise MissingExtraError(
                f"{path}: Parquet needs polars: pip install 'edgernn[train]', or record a .csv"
            ) from exc
    return suffix == ".parquet"


def _check_target(path: Path, *, force: bool) -> None:
    """Before an hour of recording, not after it."""
    if not path.parent.is_dir():
        raise EdgernnError(f"{path}: there is no folder {path.parent}")
    if path.exists() and not force:
        raise EdgernnError(f"{path}: exists already; choose another name or overwrite it (--force)")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise EdgernnError(f"{path}: cannot be written here")


def _to_parquet(spool: Path, path: Path, channels: Sequence[str]) -> None:
    """The spool as Parquet under its final name, complete or not at all; then the spool goes."""
    import polars as pl  # noqa: PLC0415 - not on the device

    schema = {"time": pl.String, "stream": pl.String} | dict.fromkeys(titles(channels), pl.Float64)
    unfinished = path.with_suffix(".partial.parquet")
    try:
        table = pl.scan_csv(spool, schema=schema).with_columns(
            pl.col("time").str.to_datetime(time_unit="us", time_zone="UTC")
        )
        table.sink_parquet(unfinished)
        unfinished.replace(path)
    except (pl.exceptions.PolarsError, OSError) as exc:
        reason = str(exc).splitlines()[0]
        raise EdgernnError(f"{path}: not written ({reason}); the samples are in {spool}") from exc
    spool.unlink()
