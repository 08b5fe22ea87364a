"""Who has fallen silent, by a clock that is an argument."""

from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.silence import Hearing, Silence


def make(**changes: float) -> Silence:
    silence = Silence(**{"stale_after_s": 10.0, "forget_after_s": 100.0, **changes})
    for name in ("a", "b", "c"):
        silence.hear(name, 0.0)
    return silence


def test_a_stream_falls_silent_once() -> None:
    silence = make()
    silence.hear("b", 5.0)
    assert silence.fall_silent(10.0) == []
    assert silence.fall_silent(11.0) == [("a", 11.0), ("c", 11.0)]
    assert (silence.fall_silent(12.0), "a" in silence, "b" in silence) == ([], True, False)


def test_a_stream_that_speaks_again_is_silent_no_more() -> None:
    silence = make()
    silence.fall_silent(11.0)
    silence.hear("a", 12.0)
    assert ("a" in silence, "b" in silence, len(silence)) == (False, True, 2)
    assert silence.fall_silent(23.0) == [("a", 11.0)]


def test_a_stream_is_overdue_after_long_silence_until_it_is_forgotten() -> None:
    silence = make()
    silence.fall_silent(11.0)
    assert silence.overdue(100.0) == []
    silence.hear("b", 50.0)
    assert silence.overdue(101.0) == [("a", 101.0), ("c", 101.0)]
    silence.forget("a")
    assert silence.overdue(102.0) == [("c", 102.0)]


def test_only_a_silent_stream_can_be_the_longest_silent() -> None:
    silence = make()
    silence.hear("a", 1.0)
    assert silence.longest_silent(10.5) is None
    silence.fall_silent(10.5)
    silence.hear("b", 11.0)
    assert silence.longest_silent(12.0) == ("c", 12.0)
    silence.forget("c")
    assert silence.longest_silent(12.0) is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 30)), max_size=60))
def test_those_silent_are_just_those_not_heard_for_long(events: list[tuple[str, float]]) -> None:
    silence, now_s = Silence(stale_after_s=10.0, forget_after_s=1e9), 0.0
    heard: dict[str, float] = {}
    for name, after_s in events:
        now_s += after_s
        silence.fall_silent(now_s)
        assert (name in silence) == (now_s - heard.get(name, now_s) > 10.0)
        silence.hear(name, now_s)
        heard[name] = now_s
    silence.fall_silent(now_s)
    assert {n for n in heard if n in silence} == {n for n, t in heard.items() if now_s - t > 10.0}


def test_the_clock_of_silence_stands_still_while_nobody_could_be_heard() -> None:
    hearing = Hearing(100.0)
    looks = [(101.0, False), (102.0, True), (105.0, True), (106.0, False), (900.0, True)]
    assert [hearing.look(at, can_hear=can) for at, can in looks] == [0.0, 0.0, 3.0, 3.0, 3.0]
    assert hearing.look(902.0, can_hear=True) == 5.0
