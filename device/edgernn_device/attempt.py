"""Something that blocks and cannot be stopped, such as a resolver: waited for, or left alone."""

import threading
from collections.abc import Callable


class Attempt:
    """Runs `work` in a thread of its own, which does not keep the process from ending."""

    def __init__(
        self, work: Callable[[], object], *, undo: Callable[[], object], name: str
    ) -> None:
        """`undo` is called if `work` succeeds after everybody has gone."""
        self._work = work
        self._undo = undo
        self._error: BaseException | None = None
        self._is_good = False
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._is_abandoned = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def is_done(self, *, within_s: float) -> bool:
        """Wait for its end, so long. Raises what `work` raised."""
        if not self._done.wait(within_s):
            return False
        error, self._error = self._error, None
        if error is None:
            return True
        try:
            raise error
        finally:  # else it holds this frame, and what failed with it, until garbage is collected
            del error

    def abandon(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._is_abandoned = True
            is_done = self._done.is_set()
        if is_done and self._is_good:
            self._undo()

    def _run(self) -> None:
        try:
            self._work()
            self._is_good = True
        except Exception as exc:  # noqa: BLE001 - `is_done` raises it
            self._error = exc
        with self._lock:
            self._done.set()
            is_late = self._is_abandoned
        if is_late and self._is_good:
            self._undo()
