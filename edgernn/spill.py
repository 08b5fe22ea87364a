"""Arrays in memory while there is room, and beyond that in files: recordings larger than memory."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgernn.errors import EdgernnError

REGION = 2**30
"""Bytes of a file that arrays are put into one after the other: a file for each would be thousands
of open ones. It is sparse: what is not written takes no room."""

Item = TypeVar("Item")
Number = TypeVar("Number", bound=np.generic)


class Spill:
    """Hands out arrays: the first `limit_bytes` of them in memory, the rest mapped from files.

    A mapped array reads and writes like any other; the system keeps of it in memory what it has
    room for.
    """

    def __init__(self, folder: Path | None = None, *, limit_bytes: float = np.inf) -> None:
        """`folder`: where the files are; they have no names, so that whatever ends the process
        leaves none behind. Made when it is first needed."""
        self._folder = folder
        self._left = limit_bytes
        self._regions: list[mmap.mmap] = []
        self._used = 0

    @property
    def is_used(self) -> bool:
        """Whether any array is in a file."""
        return bool(self._regions)

    def keep(self, array: NDArray[Number]) -> NDArray[Number]:
        """The array itself, or its copy in a file."""
        if self._takes(array.nbytes):
            return array
        copy: NDArray[Number] = self._mapped(array.shape, array.dtype)
        copy[:] = array
        self.release()
        return copy

    def empty(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """A float32 array of this shape, filled with NaN."""
        if self._takes(4 * int(np.prod(shape))):
            return np.full(shape, np.nan, np.float32)
        mapped: NDArray[np.float32] = self._mapped(tuple(shape), np.dtype(np.float32))
        for start in range(0, len(mapped), 4096):
            mapped[start : start + 4096] = np.nan
        self.release()
        return mapped

    def release(self) -> None:
        """Let go of the pages that are in memory; they are read again when they are needed."""
        for region in self._regions:
            region.madvise(mmap.MADV_DONTNEED)  # shared: what was written is in the file

    def one_by_one(self, items: Iterable[Item]) -> Iterator[Item]:
        """Each of the items; what was read for one is let go before the next."""
        for item in items:
            yield item
            self.release()

    def beside(self) -> "Spill":
        """Another one, for arrays of a shorter life, with the room that is left."""
        return Spill(self._folder, limit_bytes=self._left)

    def close(self) -> None:
        """Let the files go. Arrays that are still in use keep theirs until they are gone."""
        self._regions.clear()

    def _takes(self, size: int) -> bool:
        if self._folder is not None and size > self._left:
            return False
        self._left -= size
        return True

    def _mapped(self, shape: tuple[int, ...], dtype: "np.dtype[Number]") -> NDArray[Number]:
        size = int(np.prod(shape)) * dtype.itemsize
        if not self._regions or self._used + size > len(self._regions[-1]):
            self._regions.append(self._new_region(max(REGION, size)))
            self._used = 0
        offset = self._used
        self._used += -(-size // 64) * 64  # the next one begins on a cache line
        return np.ndarray(shape, dtype, buffer=self._regions[-1], offset=offset)

    def _new_region(self, size: int) -> mmap.mmap:
        assert self._folder is not None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                file.truncate(size)
                return mmap.mmap(file.fileno(), size)
        except OSError as exc:
            raise EdgernnError(f"{self._folder}: cannot be written to: {exc.strerror}") from exc

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


IN_MEMORY = Spill()
"""Without a folder nothing is put into files."""
