"""The inbox: bounded by messages and bytes, in order, and all that is given up is handed back."""

import threading
import time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn.errors import EdgernnError
from edgernn_device.inbox import LONGEST_TOPIC, OVERHEAD, WHEN_FULL, Inbox
from edgernn_device.payload import LARGEST_PAYLOAD

LIMIT = 8
LIMIT_BYTES = LIMIT * (OVERHEAD + 100)
LARGEST = OVERHEAD + 1 + 200


class Letter(NamedTuple):
    topic: str
    payload: bytes = b""
    number: int = 0


def make(when_full: str, **options: object) -> Inbox[Letter]:
    wanted = {"messages": LIMIT, "size_bytes": 10**9} | options
    return Inbox(when_full=when_full, **wanted)  # type: ignore[arg-type]


def everything(inbox: Inbox[Letter]) -> list[Letter]:
    return inbox.take(10**9, size_bytes=10**9, timeout_s=0)


letters = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 200)), max_size=60)


@given(letters, st.sampled_from(WHEN_FULL[1:]), st.lists(st.integers(0, 60), max_size=5))
def test_it_stays_within_both_bounds_and_nothing_vanishes(
    sent: list[tuple[str, int]], when_full: str, takes: list[int]
) -> None:
    inbox = make(when_full, size_bytes=LIMIT_BYTES)
    taken: list[Letter] = []
    given_up: list[Letter] = []
    for number, (topic, size) in enumerate(sent):
        given_up += inbox.put(Letter(topic, b"x" * size, number))
        assert len(inbox) <= LIMIT
        assert inbox.size_bytes <= max(LIMIT_BYTES, LARGEST)
        if number in takes:
            taken += inbox.take(3, size_bytes=10**9, timeout_s=0)
    taken += everything(inbox)
    assert inbox.size_bytes == len(inbox) == 0
    assert sum(inbox.counts.values()) == len(given_up)
    assert sorted(letter.number for letter in taken + given_up) == list(range(len(sent)))
    assert [letter.number for letter in taken] == sorted(letter.number for letter in taken)


@given(letters)
def test_stop_reading_gives_nothing_up(sent: list[tuple[str, int]]) -> None:
    inbox = make("stop-reading")
    for topic, size in sent:
        assert inbox.put(Letter(topic, b"x" * size)) == []
    assert inbox.wants_more == (len(sent) <= LIMIT)
    assert len(everything(inbox)) == len(sent)
    assert inbox.wants_more


def test_reading_goes_on_once_half_is_taken_and_the_reader_is_told_once() -> None:
    told: list[bool] = []
    inbox = make("stop-reading", on_room=lambda: told.append(True))
    for _ in range(LIMIT + 1):
        inbox.put(Letter("a"))
    states = []
    for _ in range(LIMIT + 1):
        inbox.take(1, size_bytes=1, timeout_s=0)
        states.append(inbox.wants_more)
    assert states == [False] * (LIMIT // 2) + [True] * (LIMIT // 2 + 1)
    assert told == [True]


def test_drop_oldest_keeps_the_newest() -> None:
    inbox = make("drop-oldest")
    for number in range(LIMIT + 3):
        inbox.put(Letter("a", number=number))
    assert [letter.number for letter in everything(inbox)] == list(range(3, LIMIT + 3))
    assert inbox.counts == {"inbox_full": 3}


def test_keep_latest_keeps_the_newest_of_each_topic() -> None:
    inbox = make("keep-latest")
    for number in range(LIMIT + 1):
        inbox.put(Letter("ab"[number % 2], number=number))
    assert [letter.number for letter in everything(inbox)] == [LIMIT - 1, LIMIT]
    assert inbox.counts == {"inbox_replaced": LIMIT - 1}


def test_keep_latest_with_more_topics_than_room_drops_the_oldest_topics() -> None:
    inbox = make("keep-latest")
    for number in range(LIMIT + 1):
        inbox.put(Letter(f"t{number}", number=number))
    assert [letter.number for letter in everything(inbox)] == [5, 6, 7, 8]
    assert inbox.counts == {"inbox_full": 5}


def test_one_message_larger_than_the_bytes_is_still_delivered() -> None:
    inbox = make("drop-oldest", size_bytes=10)
    inbox.put(Letter("a", b"x" * 100))
    assert len(everything(inbox)) == 1


@pytest.mark.parametrize(
    ("letter", "reason"),
    [
        (Letter("a", bytes(LARGEST_PAYLOAD + 1)), "too_large"),
        (Letter("t" * (LONGEST_TOPIC + 1)), "topic_too_long"),
        (Letter("ä" * (LONGEST_TOPIC // 2 + 1)), "topic_too_long"),
    ],
)
def test_what_is_too_large_is_handed_back_at_once_counted_and_said_once(
    letter: Letter, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = make("stop-reading")
    assert inbox.put(letter) == inbox.put(letter) == [letter]
    assert inbox.counts == {reason: 2}
    assert caplog.text.count(reason) == 1
    assert len(caplog.text) < 400


def test_a_batch_ends_at_its_bytes() -> None:
    inbox = make("stop-reading", messages=100)
    for _ in range(10):
        inbox.put(Letter("a", bytes(1000)))
    assert len(inbox.take(100, size_bytes=3 * (1000 + OVERHEAD), timeout_s=0)) == 3


def test_take_wakes_up_for_the_first_message() -> None:
    inbox = make("stop-reading")
    timer = threading.Timer(0.05, inbox.put, [Letter("a")])
    timer.start()
    began_s = time.monotonic()
    assert len(inbox.take(1, size_bytes=1, timeout_s=10)) == 1
    assert time.monotonic() - began_s < 5
    timer.join()


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(EdgernnError, match="expected one of stop-reading, drop-oldest"):
        make("drop-newest")
