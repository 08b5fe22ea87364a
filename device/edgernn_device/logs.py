"""Log lines: text for a person or systemd's journal, or one JSON object a line for a program."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from edgernn.errors import EdgernnError, Exit
from edgernn.times import format_time
from edgernn_device.lines import printable
from edgernn_device.log_rate import LogRate

FORMATS = ("text", "json")
LONGEST_MESSAGE = 4000
"""Characters: what a hostile publisher makes us say must not fill the log."""
PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""Of the journal, as sd-daemon(3) numbers them."""

logger = logging.getLogger("edgernn_device")


def fields(**values: Any) -> Mapping[str, Any]:
    """For `extra=`: what a program wants of a line without reading the sentence."""
    return {"fields": {k: None if v != v else v for k, v in values.items()}}  # NaN is no JSON


def start_logging(kind: str) -> None:
    """From here on the device's INFO and everybody's WARNING go to stderr. `kind`: of `FORMATS`."""
    to_journal = goes_to_journal(sys.stderr, os.environ)
    formatter = JsonFormatter() if kind == "json" else TextFormatter(has_time=not to_journal)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter(formatter) if to_journal else formatter)
    handler.addFilter(LogRate())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("edgernn_device").setLevel(logging.INFO)


@contextmanager
def failures_as_lines(kind: str) -> Iterator[None]:
    """Where a program or the journal reads, what ends the command becomes a line like others."""
    is_read_by_program = kind == "json" or goes_to_journal(sys.stderr, os.environ)
    try:
        yield
    except EdgernnError as exc:
        if not is_read_by_program:
            raise
        logger.critical("%s", exc, extra=fields(exit_code=int(exc.exit_code)))
        sys.exit(exc.exit_code)
    except Exception:
        if not is_read_by_program:
            raise
        logger.critical("ended by an error", exc_info=True, extra=fields(exit_code=1))
        sys.exit(Exit.DEFECT)


def goes_to_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """systemd says in JOURNAL_STREAM which device and inode the journal's socket has."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file behind it
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class TextFormatter(logging.Formatter):
    """ "2026-11-21 10:15:00,000 INFO edgernn_device.agent: …", the time only where nobody adds it.

    A message is one line, whatever is in it; a traceback follows on lines of its own.
    """

    def __init__(self, *, has_time: bool) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s: %(message)s"
            if has_time
            else "%(levelname)s %(name)s: %(message)s"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record), longest=LONGEST_MESSAGE)


class JsonFormatter(logging.Formatter):
    """{"time": …, "level": "info", "logger": …, "message": …, "fields": {…}, "exception": …}."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": format_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage(), longest=LONGEST_MESSAGE),
        }
        if found := getattr(record, "fields", None):
            said["fields"] = found
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=True, separators=(",", ":"), default=str)


class JournalFormatter(logging.Formatter):
    """Another's lines, each with its priority in front, which the journal takes off again."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{PRIORITIES.get(record.levelname, 6)}>"
        lines = self._inner.format(record).splitlines()
        return "\n".join(f"{priority}{line}" for line in lines)
