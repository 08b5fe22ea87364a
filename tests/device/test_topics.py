"""Topic names: patterns there and back, and names that are refused."""

import tracemalloc
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.topics import (
    NodeTopics,
    TopicError,
    TopicPattern,
    check_node_name,
    check_stream_name,
    split_topic,
    watch_filters,
)

letters = st.characters(exclude_categories=("C", "Z"), exclude_characters="+#/{}$")
names = st.text(letters, min_size=1, max_size=30).filter(
    lambda name: name not in ("availability", "cmd", "health")
)


@given(levels=st.lists(names, min_size=1, max_size=4), at=st.integers(0, 3), stream=names)
def test_a_stream_comes_back_from_the_topic_it_publishes_to(
    levels: list[str], at: int, stream: str
) -> None:
    levels.insert(at % (len(levels) + 1), "{stream}")
    pattern = TopicPattern.parse("/".join(levels))
    assert pattern.source_of(pattern.topic(stream)) == (stream, "")


@pytest.mark.parametrize(
    ("pattern", "wanted", "topic", "stream"),
    [
        ("sensors/{stream}/telemetry", "sensors/+/telemetry", "sensors/p1/telemetry", "p1"),
        ("sensors/{stream}/telemetry", "sensors/+/telemetry", "sensors/p1/other", None),
        ("sensors/{stream}/telemetry", "sensors/+/telemetry", "sensors/a/b/telemetry", None),
        ("sensors/{stream}/telemetry", "sensors/+/telemetry", "xsensors/p1/telemetry", None),
        ("{stream}", "+", "p1", "p1"),
        ("+/{stream}/t", "+/+/t", "hall 2/p1/t", "p1"),
        ("{stream}/#", "+/#", "p1/a/b", "p1"),
        ("{stream}/#", "+/#", "p1", "p1"),
        ("a.c/{stream}", "a.c/+", "abc/p1", None),
    ],
)
def test_a_pattern_knows_its_filter_and_finds_the_stream(
    pattern: str, wanted: str, topic: str, stream: str | None
) -> None:
    parsed = TopicPattern.parse(pattern)
    assert parsed.filter == wanted
    assert parsed.source_of(topic) == (stream and (stream, ""))


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("sensors/telemetry", "expected {stream} where"),
        ("", "expected {stream} where"),
        ("{stream}/{stream}", "expected one {stream}, got 2"),
        ("pump-{stream}/t", "whole level"),
        ("{node}/{stream}", "{ and } only in"),
        ("a+/{stream}", "+ must be a whole level"),
        ("#/{stream}", "# only as the last level"),
        ("{stream}/a#", "# must be a whole level"),
        ("a\0/{stream}", "no control characters"),
        ("$share/group/{stream}", "none of them would have its whole state"),
        ("x" * 65535 + "/{stream}", "at most 65535 bytes"),
        ("{channel}", "expected {stream} where"),
        ("{stream}/{channel}/{channel}", "expected one {channel}, got 2"),
        ("{stream}/{channel}-raw", "{channel} must be a whole level"),
    ],
)
def test_other_patterns_are_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(TopicError) as caught:
        TopicPattern.parse(pattern)
    assert why in str(caught.value)


def test_wildcards_can_be_subscribed_to_but_not_published_to() -> None:
    with pytest.raises(TopicError, match="cannot publish"):
        TopicPattern.parse("+/{stream}").topic("p1")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "+",
        "a#",
        "a\0",
        "a\n",
        "\x1b[2J",
        "\x9b",
        "\u2028",
        "\ud800",
        "é" * 65,
        "x" * 129,
    ],
)
def test_names_that_could_harm_are_refused(name: str) -> None:
    with pytest.raises(TopicError, match="stream name"):
        check_stream_name(name)
    with pytest.raises(TopicError, match="node name") as caught:
        check_node_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["p1", "Pumpe 7", "é" * 64, "x" * 128, "泵", "{a}"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert check_stream_name(name) == check_node_name(name) == name


@pytest.mark.parametrize("name", ["availability", "cmd", "health"])
def test_a_stream_cannot_have_the_name_of_a_topic_of_the_node(name: str) -> None:
    with pytest.raises(TopicError, match="reserved"):
        check_stream_name(name)


def test_a_node_publishes_below_its_prefix() -> None:
    topics = NodeTopics("pi", prefix="plant/edge")
    assert topics.availability == "plant/edge/pi/availability"
    assert topics.health == "plant/edge/pi/health"
    assert topics.state("p1") == "plant/edge/pi/p1/state"
    assert topics.score("p1") == "plant/edge/pi/p1/score"
    assert topics.alert("p1") == "plant/edge/pi/p1/alert"
    assert watch_filters("plant/edge")[0] == "plant/edge/+/+/alert"
    assert split_topic(topics.alert("p1"), "plant/edge") == ("pi", "p1", "alert")
    assert split_topic(topics.notice("p1", "class"), "plant/edge") == ("pi", "p1", "class")


@pytest.mark.parametrize("prefix", ["", "/a", "a/", "a//b", "a/+", "#", "$SYS", "a\n"])
def test_a_prefix_is_names_between_slashes(prefix: str) -> None:
    with pytest.raises(TopicError, match="topic prefix"):
        NodeTopics("pi", prefix=prefix)


@given(stream=names, channel=names)
def test_a_channel_comes_back_from_the_topic_it_is_published_to(stream: str, channel: str) -> None:
    pattern = TopicPattern.parse("home/{stream}/x/{channel}")
    assert pattern.filter == "home/+/x/+"
    assert pattern.has_channel
    assert pattern.source_of(pattern.topic(stream, channel)) == (stream, channel)


@pytest.mark.parametrize("channel", ["", "a\0", "+", "é" * 65, "x" * 65_000, "\ud800"])
def test_a_channel_that_could_harm_is_refused_in_both_directions(channel: str) -> None:
    pattern = TopicPattern.parse("home/{stream}/{channel}")
    with pytest.raises(TopicError, match="channel name"):
        pattern.topic("p1", channel)
    with pytest.raises(TopicError, match="channel name"):
        pattern.source_of(f"home/p1/{channel}")


def test_a_channel_called_like_the_place_of_a_stream_is_only_a_name() -> None:
    pattern = TopicPattern.parse("{channel}/{stream}")
    assert pattern.topic("{channel}", "{stream}") == "{stream}/{channel}"
    assert pattern.source_of("{stream}/{channel}") == ("{channel}", "{stream}")


@given(st.text(st.characters(), max_size=140))
def test_a_name_that_is_taken_is_safe_as_a_level_a_file_a_label_and_a_line(name: str) -> None:
    try:
        check_stream_name(name)
    except TopicError:
        return
    assert NodeTopics("pi").alert(name).count("/") == 3
    assert PurePosixPath("/var/lib/edgernn") / f"{name}.db" == PurePosixPath(
        f"/var/lib/edgernn/{name}.db"
    )
    assert len(f"{name}.db".encode()) <= 255  # bytes of a file's name
    assert len(name.splitlines()) == 1
    assert not any(ord(char) < 32 for char in name)


@pytest.mark.parametrize(
    "name", [".", "..", "-rf", " ", "a b", "CON", "%s", "{0}", '"; DROP TABLE']
)
def test_odd_names_are_only_text(name: str) -> None:
    """No file is called by a stream's name alone, and no statement or format is made of one."""
    assert NodeTopics("pi").state(check_stream_name(name)) == f"edgernn/pi/{name}/state"


def test_a_flood_of_long_topics_is_not_kept_in_memory() -> None:
    pattern = TopicPattern.parse("{stream}/#")
    tracemalloc.start()
    try:
        for n in range(2000):
            assert pattern.source_of(f"p1/{n}" + "x" * 60_000) == ("p1", "")
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
