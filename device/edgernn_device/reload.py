"""SIGHUP: settings and artefact are read again; what is wrong with them changes nothing."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from edgernn.errors import EdgernnError
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """What an agent runs, found to fit together."""

    config: AgentConfig
    engine: Engine


class Reload:
    """Asked by a running agent whether another is to take its place."""

    def __init__(
        self, load: Callable[[], Loaded], *, rehearse: Callable[[AgentConfig, AgentConfig], None]
    ) -> None:
        """`load` raises EdgernnError for what is refused, and `rehearse(next, running)` for what
        could not start in the running one's place."""
        self.loaded = load()
        """What is to run, now or next."""
        self.is_first = True
        """Nothing has been taken since the start."""
        self._load = load
        self._rehearse = rehearse
        self._is_wanted = False

    def ask(self) -> None:
        """As the signal does."""
        self._is_wanted = True

    def is_due(self) -> bool:
        """Whether `loaded` is another since it was asked for, and in order."""
        if not self._is_wanted:
            return False
        self._is_wanted = False
        old = self.loaded
        try:
            found = self._load()
            if (found.config, found.engine.hash) == (old.config, old.engine.hash):
                logger.info("read again: nothing has changed")
                return False
            self._rehearse(found.config, old.config)
        except EdgernnError as exc:
            logger.error("not taken, the old one keeps running: %s", exc)  # noqa: TRY400 - a sentence
            return False
        except Exception:  # a defect of ours must not end what runs
            logger.exception("not taken, the old one keeps running")
            return False
        logger.info("read again: taken")
        self.loaded, self.is_first = found, False
        return True

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        """Inside, SIGHUP asks; not where there is a terminal, whose end it means. Only in the main
        thread."""
        if sys.stdin is not None and sys.stdin.isatty():
            yield
            return

        def hear(_number: int, _frame: FrameType | None) -> None:
            self.ask()

        usual = signal.signal(signal.SIGHUP, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, usual)
