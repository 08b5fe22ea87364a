"""When what is written: between the monitor, which knows, and the store, which outlives it.

"sample": every batch's whole effect is one transaction, before its messages are acknowledged.
"checkpoint": alerts at once, with the streams they are of, and a new stream, so that a crash leaves
a gap and not a beginning; all else every `checkpoint_s` and at the end, which spares an SD card.
Between two of them a crash costs the streams what came meanwhile.
"""

import hashlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgernn_device.connection import Message
from edgernn_device.memories import Memories
from edgernn_device.outbox import Parcel
from edgernn_device.store import DAMAGE, RECENT, Change, Store, StoreError, may_pass

AGAIN_S = 1.0
"""Confirmed alerts leave the store, and what failed is tried again, within so long."""
DIGEST_BYTES = 8
UNREACHABLE = (StoreError, OSError)
"""What is raised where a file cannot be opened again, or begun anew, for now."""

logger = logging.getLogger(__name__)


class Keeper:
    """Keeps streams' memories and alerts in a store. A disk that fails stops nothing: what could
    not be written is tried again with what comes next."""

    def __init__(
        self, path: Path, memories: Memories, *, durability: str, checkpoint_s: float, now_s: float
    ) -> None:
        """`now_s`, here and below: monotonic. Raises EdgernnError as `Store` does."""
        self.failures = 0
        """Transactions that failed."""
        self.problem = ""
        """Why the last one did; empty when all is well."""
        self._memories = memories
        self._store = Store(path, model=memories.model)
        self._is_each = durability == "sample"
        self._checkpoint_s = checkpoint_s
        self._checkpoint_due_s = now_s + checkpoint_s
        self._again_due_s = now_s
        self._pending = Change()
        """What is to be written with the next transaction, or could not be with the last."""
        self._dirty: dict[str, None] = {}
        """Streams that changed since they were written."""
        self._written: set[str] = set()
        """Streams of which the store holds something."""
        self._waiting: dict[str | int, Parcel] = {}
        """Alerts that are neither confirmed nor given up."""
        self._gone: deque[str | int] = deque()
        """Ids that any thread says are confirmed or given up."""
        self._recent: deque[bytes] = deque()
        self._known: set[bytes] = set()
        """The same, to look in."""

    def recall(self) -> list[Parcel]:
        """Give the monitor back what is kept; return the alerts that still wait."""
        kept = self._store.read()
        self._written = set(kept.memories)
        self._give_back(kept.memories)
        for digest in kept.digests:
            self._know(digest)
        self._waiting = {parcel.id: parcel for parcel in kept.parcels}
        self._say_notes()
        return kept.parcels

    def without_repeats(self, messages: Sequence[Message]) -> list[Message]:
        """Those that the broker has not sent before, or whose effect is not known here."""
        if not any(message.is_again for message in messages):
            return list(messages)
        before: set[bytes] = set()
        fresh = []
        for message in messages:
            digest = _digest(message)
            if not (message.is_again and (digest in self._known or digest in before)):
                fresh.append(message)
            before.add(digest)
        return fresh

    def keep(
        self,
        streams: Iterable[str],
        alerts: Sequence[tuple[str, Parcel]],
        messages: Sequence[Message],
    ) -> None:
        """After a batch; before its alerts, (stream, parcel), are published and its messages are
        acknowledged."""
        known = [n for n in streams if n in self._memories or n in self._written]
        self._dirty.update(dict.fromkeys(known))  # not who was refused: names cost nothing to send
        for message in messages:
            if message.qos:
                digest = _digest(message)
                self._know(digest)
                if self._is_each:
                    self._pending.digests.append(digest)
        for _, parcel in alerts:
            self._waiting[parcel.id] = parcel
            self._pending.parcels.append(parcel)
        if self._is_each:
            self.write()
            return
        due = [stream for stream, _ in alerts]
        due += (n for n in known if n not in self._written and n not in self._pending.memories)
        if due:
            self._write(dict.fromkeys(due))

    def forget(self, stream: str) -> None:
        """A stream is no more."""
        self._dirty.pop(stream, None)
        self._pending.memories.pop(stream, None)
        if stream in self._written and stream not in self._pending.forgotten:
            self._pending.forgotten.append(stream)

    def done_with(self, parcel_id: str | int) -> None:
        """An alert was confirmed, or given up. From any thread."""
        self._gone.append(parcel_id)

    def tick(self, now_s: float) -> None:
        """Now and then: what is due."""
        self._let_go()
        if now_s >= self._checkpoint_due_s:
            self._checkpoint_due_s = now_s + self._checkpoint_s
            self.write()
        elif self._pending and now_s >= self._again_due_s:
            self._again_due_s = now_s + AGAIN_S
            self._write(())

    def roll_back(self, streams: Iterable[str]) -> None:
        """These streams as they were when they were last written: for when one stopped half-way."""
        names = set(streams)
        gone = set(self._pending.forgotten) - self._pending.memories.keys()
        unwritten = {n: m for n, m in self._pending.memories.items() if n in names}
        for name in names:
            self._dirty.pop(name, None)
            self._memories.forget(name)
        try:
            memories = self._store.memories_of(names - gone)
        except (*UNREACHABLE, *DAMAGE) as exc:
            self._meet(exc)
            memories = {}
        self._say_notes()
        self._give_back(memories | unwritten)

    def write(self) -> None:
        """All that changed, now."""
        self._write(list(self._dirty))

    def set_poison_aside(self, message: Message, why: str) -> None:
        """Keep, for the owner, a message that cannot be handled."""
        self._know(_digest(message))
        try:
            self._store.set_poison_aside(message.topic, message.payload, why)
        except (*UNREACHABLE, *DAMAGE) as exc:
            self._fail(str(exc))

    def close(self, now_s: float) -> None:
        """Write all that is known, for the next start."""
        self._checkpoint_due_s = now_s
        self.tick(now_s)
        self._store.close()

    def _write(self, streams: Iterable[str]) -> None:
        """What is pending, and these streams, in one transaction."""
        for name in streams:
            self._dirty.pop(name, None)
            if name in self._memories:
                self._pending.memories[name] = self._memories.remember(name)
            else:
                self.forget(name)
        if not self._pending:
            return
        try:
            self._store.write(self._pending)
        except (*UNREACHABLE, *DAMAGE) as exc:
            self._meet(exc)
            return
        self._written.difference_update(self._pending.forgotten)
        self._written.update(self._pending.memories)
        self._pending = Change()
        if self.problem:
            logger.info("%s: written again", self._store.path)
            self.problem = ""

    def _begin_anew(self, why: str) -> None:
        """The file is damaged: a fresh one, with all that is known."""
        self._fail(why)
        known = {name: self._memories.remember(name) for name in self._memories}
        waiting = [parcel for parcel in self._waiting.values() if isinstance(parcel.id, str)]
        try:
            self._store.begin_anew(why)
            self._store.write(Change(memories=known, parcels=waiting, digests=list(self._recent)))
        except (*UNREACHABLE, *DAMAGE) as exc:
            self._fail(str(exc))
            return
        self._say_notes()
        self._dirty.clear()
        self._written = set(known)
        self._pending, self.problem = Change(), ""

    def _let_go(self) -> None:
        """Alerts that were confirmed or given up leave the store; or never come there, so that what
        a full disk holds up does not grow."""
        gone = []
        while self._gone:
            parcel_id = self._gone.popleft()
            if self._waiting.pop(parcel_id, None) is not None:
                gone.append(str(parcel_id))
        if not gone:
            return
        unwritten = {parcel.id for parcel in self._pending.parcels}
        self._pending.gone += [one for one in gone if one not in unwritten]
        if unwritten:
            left = [parcel for parcel in self._pending.parcels if parcel.id in self._waiting]
            self._pending.parcels = left

    def _meet(self, exc: Exception) -> None:
        """A disk that fails may come to itself; a damaged file does not."""
        if isinstance(exc, UNREACHABLE) or may_pass(exc):
            self._fail(str(exc))
        else:
            self._begin_anew(str(exc))

    def _fail(self, why: str) -> None:
        self.failures += 1
        del self._pending.digests[:-RECENT]
        if why != self.problem:
            logger.warning(
                "%s: %s; going on, what is not kept is lost at a crash", self._store.path, why
            )
        self.problem = why

    def _give_back(self, memories: dict[str, bytes]) -> None:
        for name, memory in memories.items():
            try:
                self._memories.recall(name, memory)
            except ValueError as exc:  # msgspec.DecodeError is one
                self._pending.forgotten.append(name)
                logger.warning("%s: memory of stream %r: %s", self._store.path, name, exc)

    def _know(self, digest: bytes) -> None:
        if digest in self._known:
            return
        if len(self._recent) == RECENT:
            self._known.discard(self._recent.popleft())
        self._recent.append(digest)
        self._known.add(digest)

    def _say_notes(self) -> None:
        for note in self._store.notes:
            logger.warning("%s", note)
        self._store.notes.clear()


def _digest(message: Message) -> bytes:
    """What a message that comes again is known by: its packet identifier, which MQTT keeps (3.1.1,
    4.4.0-1), tells it from another that says the same."""
    text = b"%d\0%b\0%b" % (message.mid, message.topic.encode(), message.payload)
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
