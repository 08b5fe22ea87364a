"""How many log lines there may be: a flood of them fills an SD card and hides what matters."""

import logging
import time
from collections.abc import Callable

BURST = 200
"""Lines at once."""
PER_MINUTE = 60.0
"""Lines in the long run: at 150 bytes each, 13 MB a day."""


class LogRate(logging.Filter):
    """Lets a burst through, then a line a second; says how many it held back. Critical ones pass.

    Handlers call it under their own lock; one filter belongs to one handler.
    """

    def __init__(
        self,
        burst: int = BURST,
        per_minute: float = PER_MINUTE,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._burst = burst
        self._per_s = per_minute / 60
        self._clock = clock
        self._left = float(burst)
        self._seen_s = clock()
        self.held_back = 0
        """Lines since the last that passed."""

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = self._clock()
        self._left = min(self._burst, self._left + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s
        if record.levelno < logging.CRITICAL:
            if self._left < 1:
                self.held_back += 1
                return False
            self._left -= 1
        if self.held_back:
            record.msg = f"{record.getMessage()} ({self.held_back} lines before this held back)"
            record.args = ()
            self.held_back = 0
        return True
