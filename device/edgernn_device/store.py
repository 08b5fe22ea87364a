"""What outlives the process: memories of streams and unconfirmed alerts, in one SQLite file.

Every change is one transaction, so that after a crash at any moment the file holds all of it or
nothing; what a bad disk changed in it is left out, by its checksum. WAL with `synchronous=NORMAL`
survives the end of the process; a transaction with an alert is `FULL`, which also survives the end
of the power. Used by one thread.
"""

import errno
import glob
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

from edgernn.errors import EdgernnError
from edgernn_device.outbox import Parcel

FORMAT = 1
"""Of the tables; a file of another is set aside."""
APPLICATION_ID = 0x65726E6E
"""What SQLite's header says the file is: "ernn"."""
RECENT = 4096
"""Digests of handled messages that are kept: more than any broker has under way."""
SET_ASIDE_POISON = 100
"""Messages that nothing could be done with; the oldest go."""
WAL_LIMIT_BYTES = 4_000_000
MOST_SET_ASIDE = 8
"""Files of other artefacts or channels that are kept for their return; the oldest go."""
EMPTY = ("", "")
"""A file that holds nothing yet need not be set aside."""

TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE stream (
    name TEXT PRIMARY KEY, memory BLOB NOT NULL, sum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE outbox (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, topic TEXT NOT NULL,
    payload BLOB NOT NULL, severity INTEGER NOT NULL, retain INTEGER NOT NULL,
    sum INTEGER NOT NULL
);
CREATE TABLE recent (n INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL);
CREATE TABLE poison (
    n INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,
    why TEXT NOT NULL
);
"""


class StoreError(EdgernnError):
    """No store can be had where it should be."""


class DiskError(sqlite3.OperationalError):
    """The disk is full, or failing: what may pass. Every other sqlite3.Error is damage."""


DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What SQLite, and Python reading its messages, raise for a file that is damaged."""
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
PASSING = (
    *NO_ROOM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)
"""SQLite's codes for what may pass, while a file is used that could be written before."""


class Change(msgspec.Struct):
    """One transaction."""

    memories: dict[str, bytes] = msgspec.field(default_factory=dict)
    """Stream → its memory, to be put in place of an older one."""
    forgotten: list[str] = msgspec.field(default_factory=list)
    """Streams that are no more."""
    parcels: list[Parcel] = msgspec.field(default_factory=list)
    """Alerts, in order. One with an id that was there before is that one."""
    gone: list[str] = msgspec.field(default_factory=list)
    """Ids of alerts that were confirmed, or given up."""
    digests: list[bytes] = msgspec.field(default_factory=list)
    """Of messages whose whole effect is in this change."""

    def __bool__(self) -> bool:
        return bool(self.memories or self.forgotten or self.parcels or self.gone or self.digests)


class Kept(NamedTuple):
    """What a store held when it was opened."""

    memories: dict[str, bytes]
    parcels: list[Parcel]
    digests: list[bytes]


class Store:
    """An open file, held alone."""

    def __init__(self, path: Path, *, model: str) -> None:
        """`model`: hash of the artefact that the memories are of, as `Engine.memory_hash`.

        A file that cannot be read, is torn, or of another format or artefact is set aside under a
        name that says so, and a fresh one begun, or the one taken back that was set aside when it
        was of this artefact; alerts that wait in a readable one are taken over, and leave it once
        they are here: a crash in between repeats some rather than lose any. A full disk is no
        reason not to begin: `write` tries again. Raises StoreError if another process holds the
        file, or none may be made there.
        """
        self.path = path
        self.notes: list[str] = []
        """Sentences for the operator: what was set aside, and why."""
        self._model = model
        self._waiting: list[Parcel] = []
        """Alerts of files that were set aside, which could not be written into this one yet."""
        self._sources: list[Path] = []
        """Those of them that are to hold none any more when that is done."""
        self._open_connection: sqlite3.Connection | None = None
        try:
            self._open_connection = self._open_or_begin()
        except DiskError as exc:
            self.notes.append(f"{path}: {exc}; going on without it until there is room")

    def read(self) -> Kept:
        """All that it holds, at the start; nothing if it cannot be read, and the file set aside if
        that will not pass."""
        if self._open_connection is None:
            return Kept({}, [], [])
        try:
            found = self._read()
        except DAMAGE as exc:
            if may_pass(exc):
                self.notes.append(f"{self.path}: {exc}; what it holds stays there")
            else:
                self.begin_anew(str(exc))
            found = Kept({}, [], [])
        parcels = {parcel.id: parcel for parcel in found.parcels + self._waiting}
        return found._replace(parcels=list(parcels.values()))

    def memories_of(self, names: Iterable[str]) -> dict[str, bytes]:
        """Stream → its memory, of those that have one. Raises what `write` does, and
        UnicodeDecodeError."""
        select = "SELECT name, memory, sum FROM stream WHERE name = ?"
        return self._whole(
            [row for name in names for row in self._connection.execute(select, (name,))]
        )

    def _whole(self, rows: Sequence[tuple[object, object, object]]) -> dict[str, bytes]:
        memories = {
            name: memory
            for name, memory, total in rows
            if isinstance(name, str) and isinstance(memory, bytes) and _is_whole(memory, total)
        }
        if len(memories) < len(rows):
            self.notes.append(f"{self.path}: {len(rows) - len(memories)} memories are damaged")
        return memories

    def _read(self) -> Kept:
        rows = self._connection.execute("SELECT name, memory, sum FROM stream").fetchall()
        memories = self._whole(rows)
        recent = self._connection.execute("SELECT digest FROM recent ORDER BY n")
        digests = [digest for (digest,) in recent if isinstance(digest, bytes)]
        return Kept(memories, _read_outbox(self._connection), digests)

    def write(self, change: Change) -> None:
        """All of it or nothing. Raises sqlite3.Error, as when the disk is full."""
        connection = self._connection
        parcels = self._waiting + change.parcels
        connection.execute(f"PRAGMA synchronous={'FULL' if parcels else 'NORMAL'}")
        with connection as db:  # commits, or rolls back
            db.execute("BEGIN IMMEDIATE")
            if change.forgotten:  # first: it may be back
                db.executemany("DELETE FROM stream WHERE name = ?", _each(change.forgotten))
            if change.memories:
                db.executemany(
                    "INSERT OR REPLACE INTO stream VALUES (?, ?, ?)",
                    [(name, memory, crc32(memory)) for name, memory in change.memories.items()],
                )
            if parcels:
                _put_outbox(db, parcels)
            if change.gone:
                db.executemany("DELETE FROM outbox WHERE id = ?", _each(change.gone))
            if change.digests:
                db.executemany("INSERT INTO recent (digest) VALUES (?)", _each(change.digests))
                db.execute(
                    "DELETE FROM recent WHERE n <= (SELECT max(n) FROM recent) - ?", (RECENT,)
                )
        if self._waiting:
            self._have_taken_over()

    def set_poison_aside(self, topic: str, payload: bytes, why: str) -> None:
        """Keep a message that cannot be handled, for the owner. Raises sqlite3.Error."""
        with self._connection as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO poison (topic, payload, why) VALUES (?, ?, ?)", (topic, payload, why)
            )
            db.execute(
                "DELETE FROM poison WHERE n <= (SELECT max(n) FROM poison) - ?",
                (SET_ASIDE_POISON,),
            )

    def read_poison(self) -> list[tuple[str, bytes, str]]:
        """(topic, payload, why), the oldest first."""
        rows = self._connection.execute("SELECT topic, payload, why FROM poison ORDER BY n")
        return list(rows)

    def begin_anew(self, why: str) -> None:
        """After damage that shows while it is used: set the file aside and begin a fresh one."""
        self.close()
        self._set_aside("damaged", why)
        self._open_connection = self._fresh()

    def close(self) -> None:
        """Safe to call again."""
        if self._open_connection is not None:
            with suppress(sqlite3.Error):
                self._open_connection.close()
            self._open_connection = None

    @property
    def _connection(self) -> sqlite3.Connection:
        """Opened, if it could not be before. Raises sqlite3.OperationalError if it still cannot."""
        if self._open_connection is None:
            self._open_connection = self._open_or_begin()
        return self._open_connection

    def _open_or_begin(self) -> sqlite3.Connection:
        try:
            connection = _open(self.path)
            if (why := self._why_not(connection)) is not None:
                if not why[0].startswith("of-"):  # those stay readable where they go
                    with suppress(*DAMAGE):
                        self._waiting += _read_outbox(connection)
                connection.close()
        except DAMAGE as exc:
            if (refusal := _refusal(exc, self.path)) is not exc:
                raise refusal from exc
            why = ("damaged", str(exc))
        if why is not None:
            if why != EMPTY:
                self._set_aside(*why)
            connection = self._fresh(is_made=self._is_taken_back())
            self._prune()
        self._take_over(connection)
        return connection

    def _fresh(self, *, is_made: bool = False) -> sqlite3.Connection:
        """`is_made`: it lies there already."""
        try:
            connection = _open(self.path)
            if not is_made:
                self._create(connection)
        except sqlite3.Error as exc:
            refusal = _refusal(exc, self.path)
            raise (refusal if refusal is not exc else StoreError(f"{self.path}: {exc}")) from exc
        if self.notes and not is_made:
            self.notes.append(f"{self.path}: begun anew")
        return connection

    def _take_over(self, connection: sqlite3.Connection) -> None:
        """The alerts that wait in files set aside; `write` does, if it cannot be done now."""
        self._sources = []
        for aside in self._asides():
            try:
                with closing(_open(aside)) as other:
                    found = _read_outbox(other)
            except (StoreError, *DAMAGE) as exc:
                self.notes.append(f"{aside}: {exc}; alerts that may wait there are not taken over")
                continue
            if found:
                self._sources.append(aside)
                self._waiting += found
        if not self._waiting:
            return
        try:
            connection.execute("PRAGMA synchronous=FULL")
            with connection as db:
                db.execute("BEGIN IMMEDIATE")
                _put_outbox(db, self._waiting)
        except DAMAGE as exc:
            self.notes.append(f"{self.path}: {exc}; waiting alerts not taken over yet")
        else:
            self._have_taken_over()

    def _have_taken_over(self) -> None:
        """What is here now need not be where it was."""
        self.notes.append(f"{self.path}: {len(self._waiting)} waiting alert(s) taken over")
        self._waiting = []
        for aside in self._sources:
            try:
                with closing(_open(aside)) as other:
                    other.execute("DELETE FROM outbox")
            except (StoreError, *DAMAGE) as exc:
                self.notes.append(f"{aside}: {exc}; its alerts may come again")
        self._sources = []

    def _why_not(self, connection: sqlite3.Connection) -> tuple[str, str] | None:
        """Why the file is to be set aside: a word for its new name, and the reason. `EMPTY` for one
        that holds nothing yet; None for one that is ours."""
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return EMPTY
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            return "damaged", "its pages contradict each other"
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            return "foreign", "not an agent's store"
        if version != FORMAT:
            return f"format-{version}", f"of format {version}, this edgernn writes {FORMAT}"
        row = connection.execute("SELECT value FROM about WHERE key = 'model'").fetchone()
        if row is None or row[0] != self._model:
            found = str(row and row[0])
            return _name_of(found), f"its memories are of {_unlike(found, self._model)}"
        try:  # a header may say: never to be written
            connection.execute(f"PRAGMA user_version={FORMAT}")
        except sqlite3.OperationalError as exc:
            if _code(exc) not in NO_ROOM:
                raise
        return None  # on a full disk it can be read all the same

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, TABLES.split(";")):
            connection.execute(statement)
        connection.execute("INSERT INTO about VALUES ('model', ?)", (self._model,))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")

    def _set_aside(self, word: str, why: str) -> None:
        """Under one name for each reason, so that repeats do not fill the disk; but never over
        another file of an artefact, which could not be taken back and may be the better one."""
        aside = self.path.with_name(f"{self.path.name}.{word}")
        if _OF.search(aside.name):
            more = (aside.with_name(f"{aside.name}.{n}") for n in count(2))
            aside = next(one for one in chain([aside], more) if not one.exists())
        _move(self.path, aside)
        self.notes.append(f"{self.path}: {why}; set aside as {aside.name}")

    def _asides(self) -> list[Path]:
        """Files of any artefact that were set aside, the oldest first."""
        found = self.path.parent.glob(f"{glob.escape(self.path.name)}.of-*")
        whole = [one for one in found if _OF.search(one.name)]
        return sorted(whole, key=lambda one: one.stat().st_mtime)

    def _prune(self) -> None:
        """Keep the newest of others; one of this artefact's that could not be taken back stays."""
        own = f"{self.path.name}.{_name_of(self._model)}"
        others = [one for one in self._asides() if not one.name.startswith(own)]
        for oldest in others[:-MOST_SET_ASIDE]:
            oldest.unlink()
            _remove_log(oldest)
            self.notes.append(f"{oldest}: removed, for {MOST_SET_ASIDE} newer ones are kept")

    def _is_taken_back(self) -> bool:
        """Whether a file of this artefact was set aside, and is in its place again."""
        own = f"{self.path.name}.{_name_of(self._model)}"
        for aside in sorted(one for one in self._asides() if one.name.startswith(own)):
            try:
                with closing(_open(aside)) as connection:
                    why = self._why_not(connection)
            except (StoreError, *DAMAGE) as exc:
                self.notes.append(f"{aside}: {exc}; not taken back")
                continue
            if why is not None:
                self.notes.append(f"{aside}: {why[1] or 'empty'}; not taken back")
                continue
            _move(aside, self.path)
            note = f"taken back from {aside.name}: streams go on from there"
            self.notes.append(f"{self.path}: {note}")
            return True
        return False


_OF = re.compile(r"\.of-[0-9a-f]{12}(\.[0-9]+)?$")
"""Ends the name of an artefact's file that is set aside; SQLite's own beside it go on."""


def _move(source: Path, target: Path) -> None:
    """With what SQLite could not yet bring from the log into the file; a log of another file's
    would be taken for the target's own."""
    _remove_log(target)
    source.replace(target)
    with suppress(FileNotFoundError):
        source.with_name(f"{source.name}-wal").replace(target.with_name(f"{target.name}-wal"))
    _remove_log(source)


def _remove_log(path: Path) -> None:
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def may_pass(exc: Exception) -> bool:
    """Whether a failed write was the disk's fault, and not damage of the file."""
    return isinstance(exc, DiskError) or _code(exc) in PASSING


def _name_of(model: str) -> str:
    """Of a file of this artefact that is set aside; any text gives a name."""
    return f"of-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


def _unlike(found: str, model: str) -> str:
    """What `found` is of, when asked for `model`."""
    if found.partition("/")[0] == model.partition("/")[0]:
        return "other channels or another period"
    return "another artefact"


def check_can_be_held(path: Path) -> None:
    """Raises StoreError if no store can be had there, as things are; changes none that is there.
    What a store at its start waits for, or sets aside, is no reason."""
    try:
        _open(path).close()
    except DAMAGE as exc:
        if isinstance(refusal := _refusal(exc, path), StoreError):
            raise refusal from exc


def _open(path: Path) -> sqlite3.Connection:
    """Held alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(f"{exc.strerror}") from exc
        raise StoreError(f"{path}: {exc.strerror}") from exc
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
        connection.execute("BEGIN IMMEDIATE")  # from here on nobody else
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _refusal(exc: Exception, path: Path) -> Exception:
    """What to raise for it; itself if the file is damaged."""
    if isinstance(exc, DiskError):
        return DiskError(str(exc))
    if _code(exc) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        why = "another process holds it; does an agent of this name run here?"
        return StoreError(f"{path}: {why}")
    return DiskError(str(exc)) if _code(exc) in NO_ROOM else exc


def _code(exc: Exception) -> int:
    """SQLite's primary result code; 0 for an error that is not SQLite's."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _each(values: Sequence[object]) -> Iterable[tuple[object]]:
    return ((value,) for value in values)


def _read_outbox(connection: sqlite3.Connection) -> list[Parcel]:
    rows = connection.execute(
        "SELECT id, topic, payload, severity, retain, sum FROM outbox ORDER BY n"
    )
    return [
        Parcel(id=key, topic=topic, payload=payload, severity=severity, retain=bool(retain))
        for key, topic, payload, severity, retain, total in rows
        if isinstance(key, str)
        and isinstance(topic, str)
        and isinstance(severity, int)
        and _is_whole(payload, total)
    ]


def _is_whole(content: object, total: object) -> bool:
    """Of a damaged file a column holds anything, whatever its table says."""
    return isinstance(content, bytes) and crc32(content) == total


def _put_outbox(db: sqlite3.Connection, parcels: Sequence[Parcel]) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO outbox (id, topic, payload, severity, retain, sum) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [(p.id, p.topic, p.payload, p.severity, p.retain, crc32(p.payload)) for p in parcels],
    )
