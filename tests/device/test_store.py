"""What outlives the process: one file, one transaction, never half-used."""

import errno
import gc
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.outbox import Parcel
from edgernn_device.store import (
    FORMAT,
    MOST_SET_ASIDE,
    RECENT,
    SET_ASIDE_POISON,
    Change,
    Kept,
    Store,
    StoreError,
)

ALERTS = [Parcel(f"a{i}", "alerts", f"{i}".encode(), severity=i % 3) for i in range(4)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agent.db"


def written(path: Path, change: Change, *, model: str = "m") -> None:
    store = Store(path, model=model)
    store.write(change)
    store.close()


def kept(path: Path, *, model: str = "m") -> Kept:
    store = Store(path, model=model)
    found = store.read()
    store.close()
    return found


def test_what_was_written_is_there_after_a_new_start(path: Path) -> None:
    written(path, Change(memories={"a": b"1", "b": b"2"}, parcels=ALERTS, digests=[b"x", b"y"]))
    written(path, Change(memories={"a": b"3"}, forgotten=["b"], gone=["a1"], digests=[b"z"]))
    found = kept(path)
    assert found.memories == {"a": b"3"}
    assert found.parcels == [ALERTS[0], ALERTS[2], ALERTS[3]]
    assert found.digests == [b"x", b"y", b"z"]


def test_an_alert_is_there_once_however_often_it_is_written(path: Path) -> None:
    written(path, Change(parcels=ALERTS))
    written(path, Change(parcels=ALERTS[:2]))
    assert kept(path).parcels == ALERTS


def test_digests_and_poison_are_bounded(path: Path) -> None:
    store = Store(path, model="m")
    store.write(Change(digests=[b"%d" % i for i in range(RECENT + 5)]))
    for i in range(SET_ASIDE_POISON + 3):
        store.set_poison_aside("t", b"%d" % i, "why")
    assert len(store.read().digests) == RECENT
    assert store.read().digests[0] == b"5"
    assert len(store.read_poison()) == SET_ASIDE_POISON
    assert store.read_poison()[0] == ("t", b"3", "why")
    store.close()


def test_only_its_owner_may_read_it(path: Path) -> None:
    written(path, Change(memories={"a": b"1"}))
    assert path.stat().st_mode & 0o077 == 0


def test_a_second_process_is_refused(path: Path) -> None:
    store = Store(path, model="m")
    program = (
        "import sys; from pathlib import Path; from edgernn_device.store import Store\n"
        "try: Store(Path(sys.argv[1]), model='m')\n"
        "except Exception as exc: print(exc)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"{path}: another process holds it; does an agent of this name run here?\n"
    )
    store.close()


@pytest.mark.parametrize("moment", range(4))
def test_killed_at_any_moment_it_holds_whole_transactions(path: Path, moment: int) -> None:
    """Each transaction writes two streams alike, and an alert."""
    program = (
        "import sys; from pathlib import Path\n"
        "from edgernn_device.outbox import Parcel\n"
        "from edgernn_device.store import Change, Store\n"
        "store = Store(Path(sys.argv[1]), model='m')\n"
        "for i in range(10**6):\n"
        "    both = dict.fromkeys('ab', b'%d' % i)\n"
        "    alerts = [Parcel(str(i), 't', b'')] if i % 10 == 0 else []\n"
        "    store.write(Change(memories=both, parcels=alerts))\n"
        "    if i == 20: print('going', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.02 * moment)
    process.kill()
    process.communicate()
    found = kept(path)
    assert found.memories["a"] == found.memories["b"]
    last = int(found.memories["a"])
    assert [p.id for p in found.parcels] == [str(i) for i in range(0, last + 1, 10)]


def test_a_file_of_another_artefact_is_set_aside_and_its_alerts_are_taken_over(path: Path) -> None:
    written(path, Change(memories={"a": b"1"}, parcels=ALERTS))
    store = Store(path, model="other")
    assert store.read() == Kept({}, ALERTS, [])
    (aside,) = path.parent.glob("agent.db.of-*")
    assert store.notes == [
        f"{path}: its memories are of another artefact; set aside as {aside.name}",
        f"{path}: begun anew",
        f"{path}: 4 waiting alert(s) taken over",
    ]
    store.close()
    assert kept(aside).memories == {"a": b"1"}


def test_what_was_set_aside_for_other_channels_is_taken_back_when_these_are_asked_for_again(
    path: Path,
) -> None:
    written(path, Change(memories={"a": b"400 samples"}, parcels=ALERTS), model="m/flow heat")
    for typo in ("m/flow haet", "m/flow", "m/flow haet"):
        store = Store(path, model=typo)
        assert "its memories are of other channels or another period" in store.notes[0]
        assert store.read() == Kept({}, ALERTS, [])
        store.close()
    written(path, Change(gone=[str(alert.id) for alert in ALERTS]), model="m/flow")
    store = Store(path, model="m/flow heat")
    assert any("taken back from agent.db.of-" in note for note in store.notes)
    assert store.read() == Kept({"a": b"400 samples"}, [], [])  # no alert comes twice
    store.close()


def test_a_start_that_ended_between_setting_aside_and_taking_back_loses_nothing(
    path: Path,
) -> None:
    written(path, Change(memories={"a": b"1"}), model="m/x")
    written(path, Change(memories={"a": b"2"}), model="m/y")
    path.unlink()
    assert kept(path, model="m/x").memories == {"a": b"1"}


def test_what_was_set_aside_and_damaged_since_stays_there(path: Path) -> None:
    written(path, Change(memories={"a": b"1"}), model="m/x")
    Store(path, model="m/y").close()
    (aside,) = path.parent.glob("agent.db.of-*")
    aside.write_bytes(b"not a database, certainly")
    store = Store(path, model="m/x")
    assert store.read() == Kept({}, [], [])
    assert f"{aside}: file is not a database; not taken back" in store.notes
    assert aside.exists()
    store.close()


def test_files_that_were_set_aside_are_bounded(path: Path) -> None:
    for i in range(MOST_SET_ASIDE + 4):
        written(path, Change(memories={"a": b"%d" % i}), model=f"m/{i}")
        os.utime(path, (i, i))
    asides = list(path.parent.glob("agent.db.of-*"))
    assert len(asides) == MOST_SET_ASIDE
    assert min(one.stat().st_mtime for one in asides) == 3


def test_the_one_that_is_wanted_is_taken_back_though_it_is_the_oldest(path: Path) -> None:
    for i in range(MOST_SET_ASIDE + 1):
        written(path, Change(memories={"a": b"%d" % i}), model=f"m/{i}")
        os.utime(path, (i, i))
    assert kept(path, model="m/0").memories == {"a": b"0"}
    assert len(list(path.parent.glob("agent.db.of-*"))) == MOST_SET_ASIDE


def test_logs_left_beside_files_that_were_set_aside_are_not_counted(path: Path) -> None:
    for i in range(MOST_SET_ASIDE + 1):
        written(path, Change(memories={"a": b"%d" % i}), model=f"m/{i}")
    for aside in list(path.parent.glob("agent.db.of-*")):
        aside.with_name(f"{aside.name}-shm").touch()
    assert kept(path, model="m/0").memories == {"a": b"0"}
    store = Store(path, model="m/1")
    assert not any("removed" in note for note in store.notes)
    store.close()


@pytest.mark.parametrize("moment", ["_fresh", "_take_over"])
def test_alerts_outlive_a_start_that_ended_after_setting_aside(
    path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, Change(parcels=ALERTS), model="m/x")
    with monkeypatch.context() as patched:
        patched.setattr(Store, moment, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Store(path, model="m/y")
    gc.collect()  # the connection of a process that is no more
    assert kept(path, model="m/y").parcels == ALERTS
    written(path, Change(gone=[str(alert.id) for alert in ALERTS]), model="m/y")
    assert kept(path, model="m/x").parcels == []  # nor twice


def test_alerts_go_on_though_a_full_disk_does_not_let_them_be_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        exc = sqlite3.OperationalError("database or disk is full")
        exc.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise exc

    written(path, Change(parcels=ALERTS), model="m/x")
    with monkeypatch.context() as patched:
        patched.setattr("edgernn_device.store._put_outbox", full)
        store = Store(path, model="m/y")
        assert store.read().parcels == ALERTS
        assert f"{path}: database or disk is full; waiting alerts not taken over yet" in store.notes
    store.write(Change(gone=["a0"]))
    store.close()
    assert kept(path, model="m/y").parcels == ALERTS[1:]
    written(path, Change(gone=["a1", "a2", "a3"]), model="m/y")
    assert kept(path, model="m/x").parcels == []


def test_what_could_not_be_taken_back_for_a_moment_is_not_overwritten(path: Path) -> None:
    written(path, Change(memories={"a": b"400 samples"}), model="m/x")
    written(path, Change(memories={"a": b"1"}), model="m/y")
    (aside,) = path.parent.glob("agent.db.of-*")
    with closing(sqlite3.connect(aside)) as reader:
        reader.execute("BEGIN IMMEDIATE")
        written(path, Change(memories={"a": b"2"}), model="m/x")
    written(path, Change(), model="m/y")
    assert kept(path, model="m/x").memories == {"a": b"400 samples"}


def test_a_file_of_another_format_is_set_aside(path: Path) -> None:
    written(path, Change(memories={"a": b"1"}))
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")
    store = Store(path, model="m")
    assert store.read().memories == {}
    assert store.notes[0].startswith(f"{path}: of format {FORMAT + 1}, this edgernn writes")
    assert path.with_name(f"agent.db.format-{FORMAT + 1}").exists()
    store.close()


def test_a_file_of_somebody_else_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE photographs (n)")
    Store(path, model="m").close()
    with closing(sqlite3.connect(path.with_name("agent.db.foreign"))) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchone() == ("photographs",)


@pytest.mark.parametrize(
    "content", [b"not a database, certainly", b"SQLite format 3\0" + b"\7" * 99]
)
def test_what_is_no_database_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    written(path, Change(memories={"a": b"1"}))
    assert path.with_name("agent.db.damaged").read_bytes() == content
    assert kept(path).memories == {"a": b"1"}


@given(data=st.data())
def test_a_file_with_any_page_overwritten_is_whole_or_set_aside(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """What is read is what was written, or nothing."""
    path = tmp_path_factory.mktemp("state") / "agent.db"
    memories = {f"s{i}": bytes([i]) * 900 for i in range(40)}
    written(path, Change(memories=memories, parcels=ALERTS))
    content = bytearray(path.read_bytes())
    first = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.sampled_from([1, 16, 4096]))
    content[first : first + length] = data.draw(st.binary(min_size=length, max_size=length))
    path.write_bytes(
        content[: None if data.draw(st.booleans()) else -data.draw(st.integers(1, 9000))]
    )
    store = Store(path, model="m")
    found = store.read()
    store.write(Change(memories={"new": b"1"}))
    assert found.memories.items() <= memories.items()
    assert {p.id: p.payload for p in found.parcels}.items() <= {
        p.id: p.payload for p in ALERTS
    }.items()
    store.close()


def test_a_full_disk_fails_the_transaction_and_nothing_else(path: Path) -> None:
    store = Store(path, model="m")
    store.write(Change(memories={"a": b"1"}))
    store._connection.execute("PRAGMA max_page_count=8")
    large = Change(memories={"a": b"2" * 100_000}, parcels=ALERTS)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.write(large)
    assert store.read() == Kept({"a": b"1"}, [], [])
    store._connection.execute("PRAGMA max_page_count=100000")
    store.write(large)
    assert store.read().parcels == ALERTS
    store.close()


def test_a_disk_that_is_full_at_the_start_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.open", full)
        store = Store(path, model="m")
        assert store.notes == [
            f"{path}: No space left on device; going on without it until there is room"
        ]
        assert store.read() == Kept({}, [], [])
        with pytest.raises(sqlite3.OperationalError, match="No space left"):
            store.write(Change(memories={"a": b"1"}))
    store.write(Change(memories={"a": b"1"}))
    store.close()
    assert kept(path).memories == {"a": b"1"}


def test_where_none_may_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "agent.db").mkdir()
    with pytest.raises(StoreError, match=r"/agent.db: Is a directory$"):
        Store(tmp_path / "agent.db", model="m")
