"""When what is written, and what waits for it: bounded, whatever disk, names and broker do."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agents import make_monitor

from edgernn_device.keeper import Keeper
from edgernn_device.memories import Memories
from edgernn_device.outbox import Parcel
from edgernn_device.store import Store


class Plain(Memories):
    """Memories that are bytes by name."""

    def __init__(self, artefact: Path) -> None:
        super().__init__(make_monitor(artefact), None)
        self.of: dict[str, bytes] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.of

    def __iter__(self) -> Iterator[str]:
        return iter(self.of)

    def remember(self, name: str) -> bytes:
        return self.of[name]

    def recall(self, name: str, kept: bytes) -> None:
        self.of[name] = kept

    def forget(self, name: str) -> None:
        self.of.pop(name, None)


@pytest.fixture
def memories(artefact: Path) -> Plain:
    return Plain(artefact)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "agent.db"


def keeper_of(path: Path, memories: Plain, *, durability: str = "checkpoint") -> Keeper:
    return Keeper(path, memories, durability=durability, checkpoint_s=60.0, now_s=0.0)


def alert(number: int) -> tuple[str, Parcel]:
    return "a", Parcel(f"alert {number}", "t", b"x" * 500)


def in_store(path: Path, memories: Plain) -> dict[str, bytes]:
    store = Store(path, model=memories.model)
    try:
        return store.read().memories
    finally:
        store.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_names_that_were_refused_leave_nothing_to_be_written(path: Path, memories: Plain) -> None:
    keeper = keeper_of(path, memories)
    memories.of["a"] = b"1"
    keeper.keep(["a"], [], [])
    keeper.keep(["a", *(f"made up {n}" for n in range(1000))], [], [])
    assert list(keeper._dirty) == ["a"]
    keeper.close(1.0)


def test_a_new_stream_is_written_at_once_and_what_it_learns_at_the_checkpoint(
    path: Path, memories: Plain
) -> None:
    """So that after a crash its gap is seen, however early that comes."""
    keeper = keeper_of(path, memories)
    memories.of["a"] = b"1"
    keeper.keep(["a"], [], [])
    memories.of["a"] = b"2"
    keeper.keep(["a"], [], [])
    keeper._store.close()  # as a crash would
    assert in_store(path, memories) == {"a": b"1"}


@pytest.mark.parametrize("durability", ["checkpoint", "sample"])
def test_a_stream_of_which_nothing_is_known_any_more_leaves_the_store(
    path: Path, memories: Plain, durability: str
) -> None:
    """As one whose channels arrive apart, and of which nothing is held any more."""
    keeper = keeper_of(path, memories, durability=durability)
    memories.of |= {"a": b"1", "b": b"2"}
    keeper.keep(["a", "b"], [], [])
    keeper.tick(61.0)
    del memories.of["b"]
    keeper.keep(["b"], [], [])
    keeper.close(62.0)
    assert in_store(path, memories) == {"a": b"1"}


def test_on_a_full_disk_what_waits_to_be_written_does_not_grow(path: Path, memories: Plain) -> None:
    keeper = keeper_of(path, memories)
    memories.of["a"] = b"1"
    keeper.keep(["a"], [alert(0)], [])
    with full_disk():
        for number in range(1, 200):
            keeper.keep(["a"], [alert(number)], [])
            keeper.done_with(f"alert {number - 1}")
            keeper.tick(float(number))
    assert keeper.failures > 100
    assert [parcel.id for parcel in keeper._pending.parcels] == ["alert 199"]
    assert keeper._pending.gone == ["alert 0"]  # alone it was ever written
    keeper.tick(300.0)
    assert keeper.problem == ""
    assert [parcel.id for parcel in keeper._store.read().parcels] == ["alert 199"]
    keeper.close(301.0)


def test_started_on_a_full_disk_it_goes_on_with_what_the_store_holds(
    path: Path, memories: Plain
) -> None:
    """As after a restart for want of room: alerts that wait there are sent, not kept for later."""
    keeper = keeper_of(path, memories)
    memories.of["a"] = b"1"
    keeper.keep(["a"], [alert(0)], [])
    keeper.close(1.0)
    memories.of.clear()
    with full_disk():
        keeper = keeper_of(path, memories)
        waiting = keeper.recall()
        memories.of["a"] += b"2"
        keeper.keep(["a"], [alert(1)], [])
        assert keeper.failures == 1
    assert [parcel.id for parcel in waiting] == ["alert 0"]
    keeper.tick(2.0)
    keeper.close(3.0)
    assert in_store(path, memories) == {"a": b"12"}


def test_a_store_that_can_neither_be_used_nor_begun_anew_stops_nothing(
    path: Path, memories: Plain
) -> None:
    """Damaged, and where it was nothing may be made: as a card that fails."""
    keeper = keeper_of(path, memories)
    memories.of["a"] = b"1"
    keeper._store._connection.execute("DROP TABLE stream")
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way")
    for now_s in (61.0, 122.0, 183.0):
        keeper.keep(["a"], [alert(round(now_s))], [])
        keeper.tick(now_s)
    keeper.roll_back(["a"])
    assert memories.of == {"a": b"1"}
    assert keeper.problem.endswith("File exists")
    path.parent.unlink()
    keeper.keep(["a"], [], [])
    keeper.close(244.0)
    assert in_store(path, memories) == {"a": b"1"}


def test_damage_found_while_a_batch_is_set_back_loses_no_waiting_alert(
    path: Path, memories: Plain
) -> None:
    keeper = keeper_of(path, memories)
    memories.of |= {"a": b"1", "b": b"2"}
    keeper.keep(["a", "b"], [alert(0)], [])
    keeper._store._connection.execute("DROP TABLE stream")
    keeper.roll_back(["a"])
    assert memories.of == {"b": b"2"}
    keeper.keep([], [], [])
    keeper.close(1.0)
    assert in_store(path, memories) == {"b": b"2"}
    assert [parcel.id for parcel in keeper_of(path, memories).recall()] == ["alert 0"]
