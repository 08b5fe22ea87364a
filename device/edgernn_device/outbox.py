"""Publishes that wait for the broker to confirm them. In memory: lost with the process. No MQTT."""

from collections import OrderedDict

import msgspec

from edgernn.errors import EdgernnError

LIMIT = 10_000
"""Publishes; about 6 MB of alerts."""


class Parcel(msgspec.Struct, frozen=True):
    """One publish on its way."""

    id: str | int
    """Stable: a parcel with the id of a waiting one is the same parcel."""
    topic: str
    payload: bytes
    severity: int = 0
    """Higher is worse; when the outbox is full, the least severe go first."""
    retain: bool = False


class Outbox:
    """First in, first out, bounded; a parcel leaves only when it is confirmed.

    Full: of the parcels that are not on the wire, the new one included, the oldest of the lowest
    severity is dropped and counted. What is on the wire stays, as it may have arrived already.
    Not for several threads at once: its owner holds a lock.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        if limit < 1:
            raise EdgernnError(f"outbox limit: expected 1 or more, got {limit}")
        self.limit = limit
        self.dropped = 0
        """Parcels given up because the outbox was full."""
        self._unsent: OrderedDict[str | int, Parcel] = OrderedDict()
        self._in_flight: OrderedDict[str | int, Parcel] = OrderedDict()  # older than every unsent

    def __len__(self) -> int:
        return len(self._unsent) + len(self._in_flight)

    def put(self, parcel: Parcel) -> Parcel | None:
        """Take a parcel; return the one that was dropped for it, if any (it can be this one)."""
        if parcel.id in self._unsent or parcel.id in self._in_flight:
            return None
        self._unsent[parcel.id] = parcel
        if len(self) <= self.limit:
            return None
        victim = min(self._unsent.values(), key=lambda waiting: waiting.severity)  # first = oldest
        del self._unsent[victim.id]
        self.dropped += 1
        return victim

    def next_to_send(self, limit: int) -> list[Parcel]:
        """The oldest parcels, as many as bring those in flight up to `limit`; now in flight."""
        parcels = []
        while self._unsent and len(self._in_flight) < limit:
            key, parcel = self._unsent.popitem(last=False)
            self._in_flight[key] = parcel
            parcels.append(parcel)
        return parcels

    def confirm(self, parcel_id: str | int) -> bool:
        """The broker has the parcel: forget it. False if it was not in flight."""
        return self._in_flight.pop(parcel_id, None) is not None

    def connection_lost(self) -> None:
        """Everything in flight is unsent again, in its old order, before all others."""
        self._in_flight.update(self._unsent)
        self._unsent, self._in_flight = self._in_flight, OrderedDict()
