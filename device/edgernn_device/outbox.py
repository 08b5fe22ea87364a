"""Publishes that wait for the broker to confirm them, the next of them at hand. In memory: `store`
keeps those that must outlive the process. No MQTT."""

from collections import OrderedDict

import msgspec

from edgernn.errors import EdgernnError

LIMIT = 10_000
"""Publishes."""
LIMIT_BYTES = 20_000_000
"""Topics and payloads of all of them."""


class Parcel(msgspec.Struct, frozen=True):
    """One publish on its way."""

    id: str | int
    """Stable: a parcel with the id of a waiting one is the same parcel."""
    topic: str
    payload: bytes
    severity: int = 0
    """Higher is worse; when the outbox is full, the least severe go first."""
    retain: bool = False
    is_report: bool = False
    """Only the newest on its topic matters: it takes the place of one that was not sent yet."""

    @property
    def size_bytes(self) -> int:
        return len(self.topic) + len(self.payload)


class Outbox:
    """First in, first out, bounded; a parcel leaves only when it is confirmed.

    Full: of the parcels that are not on the wire, the new one included, the oldest of the lowest
    severity is dropped and counted. What is on the wire stays, as it may have arrived already.
    Not for several threads at once: its owner holds a lock.
    """

    def __init__(self, limit: int = LIMIT, limit_bytes: int = LIMIT_BYTES) -> None:
        if limit < 1:
            raise EdgernnError(f"outbox limit: expected 1 or more, got {limit}")
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.dropped = 0
        """Parcels given up because the outbox was full."""
        self.size_bytes = 0
        self._unsent: OrderedDict[str | int, Parcel] = OrderedDict()
        self._in_flight: OrderedDict[str | int, Parcel] = OrderedDict()  # older than every unsent
        self._reports: dict[str, str | int] = {}  # topic → id, of those unsent

    def __len__(self) -> int:
        return len(self._unsent) + len(self._in_flight)

    def put(self, parcel: Parcel) -> list[Parcel]:
        """Take a parcel; return those that were dropped for it (it can be one of them)."""
        if parcel.id in self._unsent or parcel.id in self._in_flight:
            return []
        if parcel.is_report and (older := self._reports.get(parcel.topic)) is not None:
            self._forget(older)
        self._unsent[parcel.id] = parcel
        self.size_bytes += parcel.size_bytes
        if parcel.is_report:
            self._reports[parcel.topic] = parcel.id
        victims = []
        while self._unsent and (len(self) > self.limit or self.size_bytes > self.limit_bytes):
            victim = min(self._unsent.values(), key=lambda one: one.severity)  # first = oldest
            self._forget(victim.id)
            victims.append(victim)
        self.dropped += len(victims)
        return victims

    def next_to_send(self, limit: int) -> list[Parcel]:
        """The oldest parcels, as many as bring those in flight up to `limit`; now in flight."""
        parcels = []
        while self._unsent and len(self._in_flight) < limit:
            key, parcel = self._unsent.popitem(last=False)
            self._in_flight[key] = parcel
            parcels.append(parcel)
            if self._reports.get(parcel.topic) == key:
                del self._reports[parcel.topic]
        return parcels

    def confirm(self, parcel_id: str | int) -> bool:
        """The broker has the parcel: forget it. False if it was not in flight."""
        parcel = self._in_flight.pop(parcel_id, None)
        if parcel is None:
            return False
        self.size_bytes -= parcel.size_bytes
        return True

    def connection_lost(self) -> None:
        """Everything in flight is unsent again, in its old order, before all others."""
        again, self._in_flight = self._in_flight, OrderedDict()
        again.update(self._unsent)
        self._unsent = again

    def _forget(self, parcel_id: str | int) -> None:
        parcel = self._unsent.pop(parcel_id)
        self.size_bytes -= parcel.size_bytes
        if self._reports.get(parcel.topic) == parcel_id:
            del self._reports[parcel.topic]
