"""A lock of the journal of trials that dies with whoever holds it."""

import fcntl
import os
from pathlib import Path

from optuna.storages.journal._file import BaseJournalFileLock  # private: hence optuna < 6


class KernelLock(BaseJournalFileLock):
    """flock(2) on a file beside the journal.

    Optuna's own locks are files that a killed process leaves behind. The others then wait for 30 s,
    and for ever if the journal's path is relative.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(f"{journal.name}.lock")
        self._descriptor = -1

    def acquire(self) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self._descriptor)
