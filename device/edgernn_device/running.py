"""What tasks without an alarm share: a memory for every stream, and a state that says it runs."""

import math
from typing import Generic, TypeVar

import msgspec

from edgernn.times import format_time
from edgernn_device.monitor import StreamState
from edgernn_device.stream import Stream


class RunningMemory(msgspec.Struct):
    """Of one stream; a task adds what it needs, each with a default."""

    running_s: float = math.nan
    """Time of the first sample after the warm-up."""


M = TypeVar("M", bound=RunningMemory)


class Running(Generic[M]):
    """The bookkeeping of a `monitor.Task`."""

    def __init__(self, memory: type[M]) -> None:
        """`memory`: of a stream of which nothing is known yet when made without arguments."""
        self._memory = memory
        self._of: dict[str, M] = {}

    def begin(self, stream: Stream) -> None:
        self._of[stream.name] = self._memory()

    def remember(self, stream: Stream) -> bytes:
        return msgspec.msgpack.encode(self._of[stream.name])

    def recall(self, stream: Stream, kept: bytes) -> None:
        self._of[stream.name] = msgspec.msgpack.decode(kept, type=self._memory)

    def forget(self, name: str) -> None:
        del self._of[name]

    def state_of(self, stream: Stream) -> StreamState:
        running_s = self._of[stream.name].running_s
        is_running = not math.isnan(running_s)
        return StreamState(
            state="running" if is_running else "warming_up",
            score=None,
            since=format_time(running_s if is_running else stream.last_s),
        )
