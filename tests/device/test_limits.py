"""Bounds that hold against anybody: log lines, what is said again, what hangs."""

import logging
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.attempt import Attempt
from edgernn_device.log_rate import LogRate
from edgernn_device.retained import AHEAD, Retained

# ---- log lines


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def line(level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("edgernn", level, __file__, 1, "what %s", ("happened",), None)


@given(st.lists(st.floats(0, 100), max_size=200))
def test_no_more_lines_pass_than_the_burst_and_the_rate_allow(waits: list[float]) -> None:
    clock = Clock()
    rate = LogRate(burst=5, per_minute=60, clock=clock)
    passed = 0
    for wait_s in waits:
        clock.now_s += wait_s
        passed += rate.filter(line())
        assert passed <= 5 + clock.now_s


def test_the_next_line_says_how_many_were_held_back() -> None:
    clock = Clock()
    rate = LogRate(burst=2, per_minute=60, clock=clock)
    assert [rate.filter(line()) for _ in range(5)] == [True, True, False, False, False]
    clock.now_s = 1.0
    said = line()
    assert rate.filter(said)
    assert said.getMessage() == "what happened (3 lines before this held back)"


def test_a_critical_line_always_passes() -> None:
    rate = LogRate(burst=1, per_minute=0, clock=Clock())
    assert rate.filter(line())
    assert not rate.filter(line())
    assert rate.filter(line(logging.CRITICAL))


# ---- what is said again


def test_what_was_retained_is_said_again_as_it_was_and_a_little_at_a_time() -> None:
    sent: list[tuple[str, bytes]] = []
    retained = Retained(lambda topic, payload: sent.append((topic, payload)))
    for number in range(2 * AHEAD):
        retained.say(f"t{number}", b"old", is_connected=False)
        retained.say(f"t{number}", b"%d" % number, is_connected=False)
    assert sent == []
    retained.say_all_again()
    retained.go_on(waiting=0)
    assert len(sent) == AHEAD
    retained.go_on(waiting=AHEAD + 5)
    assert len(sent) == AHEAD
    retained.go_on(waiting=0)
    assert sent == [(f"t{number}", b"%d" % number) for number in range(2 * AHEAD)]


def test_a_forgotten_topic_is_cleared_at_the_broker_and_not_said_again() -> None:
    sent: list[tuple[str, bytes]] = []
    retained = Retained(lambda topic, payload: sent.append((topic, payload)))
    retained.say("t", b"on", is_connected=True)
    retained.say_all_again()
    retained.forget("t")
    retained.forget("never said")
    retained.go_on(waiting=0)
    assert sent == [("t", b"on"), ("t", b"")]
    assert len(retained) == 0


# ---- what hangs


def test_an_attempt_that_fails_says_why() -> None:
    def fail() -> None:
        raise OSError("no route")

    attempt = Attempt(fail, undo=lambda: None, name="t")
    with pytest.raises(OSError, match="no route"):
        while not attempt.is_done(within_s=1):
            pass


def test_an_attempt_left_alone_that_succeeds_late_is_undone() -> None:
    may_end, is_undone = threading.Event(), threading.Event()
    attempt = Attempt(lambda: may_end.wait(10), undo=is_undone.set, name="t")
    assert not attempt.is_done(within_s=0.01)
    attempt.abandon()
    assert not is_undone.is_set()
    may_end.set()
    assert is_undone.wait(10)


def test_an_attempt_that_succeeded_just_before_it_is_left_alone_is_undone() -> None:
    is_undone = threading.Event()
    attempt = Attempt(lambda: None, undo=is_undone.set, name="t")
    while not attempt._done.is_set():
        pass
    attempt.abandon()
    assert is_undone.is_set()


def test_an_attempt_left_alone_that_fails_is_not_undone(tmp_path: Path) -> None:
    may_end, is_undone = threading.Event(), threading.Event()

    def fail_late() -> None:
        may_end.wait(10)
        (tmp_path / "came here").touch()
        raise OSError

    attempt = Attempt(fail_late, undo=is_undone.set, name="t")
    attempt.abandon()
    may_end.set()
    while not attempt._done.wait(1):
        pass
    assert (tmp_path / "came here").exists()
    assert not is_undone.wait(0.05)
