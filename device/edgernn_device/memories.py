"""What is remembered of each stream, by the monitor and by the join of what arrives apart."""

from collections.abc import Iterator

import msgspec

from edgernn_device.join import Join, JoinState
from edgernn_device.monitor import Monitor


class Memory(msgspec.Struct, array_like=True):
    """Of a stream whose channels arrive apart."""

    monitor: bytes | None
    """None: no sample was complete yet."""
    join: JoinState | None
    """None: nothing is held."""


class Memories:
    """Both as one, to be written down and given back."""

    def __init__(self, monitor: Monitor, join: Join | None) -> None:
        self._monitor = monitor
        self._join = join

    @property
    def model(self) -> str:
        """Hash of the artefact that they are of."""
        return self._monitor.engine.hash

    def __contains__(self, name: str) -> bool:
        return name in self._monitor.streams or (self._join is not None and name in self._join)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._monitor.streams, *(self._join or ())]))

    def remember(self, name: str) -> bytes:
        """All that is known of a stream, for `recall`."""
        known = self._monitor.remember(name) if name in self._monitor.streams else None
        if self._join is None:
            return known or b""
        return msgspec.msgpack.encode(Memory(known, self._join.state_of(name)))

    def recall(self, name: str, kept: bytes) -> None:
        """A stream as it was. Raises ValueError (msgspec.DecodeError is one) for what `remember` of
        this artefact, and with channels that arrive alike, never gave."""
        if self._join is None:
            self._monitor.recall(name, kept)
            return
        memory = msgspec.msgpack.decode(kept, type=Memory)
        if memory.monitor is not None:
            self._monitor.recall(name, memory.monitor)
        if memory.join is None:
            return
        try:
            self._join.set_state(name, memory.join)
        except ValueError:
            if memory.monitor is not None:
                self._monitor.remove_stream(name)
            raise

    def forget_all(self) -> None:
        """As if nothing had come yet; what was counted stays."""
        self._monitor.forget_all()
        if self._join is not None:
            self._join.forget_all()
