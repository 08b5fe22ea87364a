"""Topic names: what the agent publishes, and which stream a telemetry topic is from. Only text."""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import msgspec

from edgernn.errors import EdgernnError

DEFAULT_PREFIX = "edgernn"
DEFAULT_PATTERN = "sensors/{stream}/telemetry"
STREAM, CHANNEL = "{stream}", "{channel}"
LONGEST_NAME = 128
"""Bytes in UTF-8 of a stream or node name. Names become keys, file names and log lines."""
LONGEST_TOPIC = 65535
"""Bytes in UTF-8 (MQTT 3.1.1, section 1.5.3)."""
LONGEST_REMEMBERED = 512
"""Characters; 4,096 topics of 64 KB would fill the memory of a small device."""
NOTICES = ("class", "forecast")
"""What is retained of a stream by tasks other than anomaly: last levels of its topics."""
RESERVED = frozenset({"availability", "check", "cmd", "health"})
"""The node's own topics stand where stream names stand, so no stream may be called like them."""


class TopicError(EdgernnError):
    """A name or pattern that cannot be used. The agent catches it for streams that others named."""


def check_stream_name(text: str) -> str:
    """`text`, if it can name a stream; else TopicError."""
    _check_name(text, "stream")
    if text in RESERVED:
        raise TopicError(f"stream name {text!r} is reserved for a topic of the node itself")
    return text


def check_channel_name(text: str) -> str:
    """`text`, if it can name a channel that a topic names; else TopicError."""
    return _check_name(text, "channel")


def check_node_name(text: str) -> str:
    """`text`, if it can name a node; else TopicError."""
    return _check_name(text, "node")


class NodeTopics(msgspec.Struct, frozen=True):
    """The topics that one node publishes."""

    node: str
    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        check_node_name(self.node)
        _check_prefix(self.prefix)

    @property
    def availability(self) -> str:
        return f"{self.prefix}/{self.node}/availability"

    @property
    def health(self) -> str:
        return f"{self.prefix}/{self.node}/health"

    @property
    def check(self) -> str:
        """Where `agent --check` proves that it may publish."""
        return f"{self.prefix}/{self.node}/check"

    def state(self, stream: str) -> str:
        return f"{self.prefix}/{self.node}/{stream}/state"

    def score(self, stream: str) -> str:
        return f"{self.prefix}/{self.node}/{stream}/score"

    def alert(self, stream: str) -> str:
        return f"{self.prefix}/{self.node}/{stream}/alert"

    def notice(self, stream: str, kind: str) -> str:
        """`kind`: one of `NOTICES`."""
        return f"{self.prefix}/{self.node}/{stream}/{kind}"


def watch_filters(prefix: str = DEFAULT_PREFIX) -> tuple[str, ...]:
    """The subscriptions that see every alert, class and forecast of every node."""
    return tuple(f"{_check_prefix(prefix)}/+/+/{kind}" for kind in ("alert", *NOTICES))


def split_topic(topic: str, prefix: str = DEFAULT_PREFIX) -> tuple[str, str, str]:
    """(node, stream, kind) of a topic that `watch_filters` let through."""
    node, stream, kind = topic.removeprefix(f"{prefix}/").split("/")
    return node, stream, kind


class Source(NamedTuple):
    """What a topic names."""

    stream: str
    channel: str
    """"" where all channels of a sample come in one message."""


class TopicPattern(NamedTuple):
    """Where streams publish, such as "sensors/{stream}/telemetry" or, where every sensor has a
    topic of its own, "home/{stream}/{channel}", and back.

    `+` and a last `#` are allowed beside {stream}; then samples of one stream name that arrive on
    several topics are one stream.
    """

    text: str
    filter: str
    """What to subscribe to."""
    expression: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> "TopicPattern":
        """Raises TopicError with the reason if `text` is no usable pattern."""
        levels = text.split("/")
        for is_wrong, why in _faults(text, levels):
            if is_wrong:
                raise TopicError(f"topic pattern {text!r}: {why}")
        return cls(
            text=text,
            filter=text.replace(STREAM, "+").replace(CHANNEL, "+"),
            expression=re.compile(_expression(levels), re.DOTALL),
        )

    @property
    def has_channel(self) -> bool:
        """Whether the channels of a sample arrive apart, each on a topic of its own."""
        return CHANNEL in self.text

    def source_of(self, topic: str) -> Source | None:
        """The stream, and the channel, a topic names; None if the topic does not fit the pattern.

        Raises TopicError for a name that no stream or channel may have.
        """
        if len(topic) > LONGEST_REMEMBERED:
            return _source_of.__wrapped__(self.expression, topic)
        return _source_of(self.expression, topic)

    def topic(self, stream: str, channel: str = "") -> str:
        """Where to publish a stream's samples, or one channel of them. Raises TopicError if the
        pattern has wildcards."""
        levels = self.text.split("/")
        if "+" in levels or "#" in levels:
            raise TopicError(f"topic pattern {self.text!r}: cannot publish to a + or #")
        names = {STREAM: check_stream_name(stream)}
        if self.has_channel:
            names[CHANNEL] = check_channel_name(channel)
        topic = "/".join(names.get(level, level) for level in levels)
        if _size(topic) > LONGEST_TOPIC:
            raise TopicError(f"topic pattern {self.text[:40]!r}: at most {LONGEST_TOPIC} bytes")
        return topic


@lru_cache(maxsize=4096)
def _source_of(expression: re.Pattern[str], topic: str) -> Source | None:
    """Remembered, as the same topics come again and again and checking a name costs 3 µs."""
    match = expression.fullmatch(topic)
    if match is None:
        return None
    named = match.groupdict()
    channel = check_channel_name(named["channel"]) if "channel" in named else ""
    return Source(check_stream_name(named["stream"]), channel)


def _faults(text: str, levels: list[str]) -> list[tuple[bool, str]]:
    others = [level for level in levels if level not in (STREAM, CHANNEL)]
    return [
        (
            levels[0] in ("$share", "$queue"),
            "a shared subscription deals a stream's samples out to several agents, and none "
            "of them would have its whole state; give each agent its own topics instead",
        ),
        (text.count(STREAM) == 0, f"expected {STREAM} where the stream's name stands"),
        (text.count(STREAM) > 1, f"expected one {STREAM}, got {text.count(STREAM)}"),
        (STREAM not in levels, f"{STREAM} must be a whole level, between slashes"),
        (text.count(CHANNEL) > 1, f"expected one {CHANNEL}, got {text.count(CHANNEL)}"),
        (
            CHANNEL in text and CHANNEL not in levels,
            f"{CHANNEL} must be a whole level, between slashes",
        ),
        (
            any(set(level) & set("{}") for level in others),
            f"{{ and }} only in {STREAM} and {CHANNEL}",
        ),
        (any("+" in level and level != "+" for level in others), "+ must be a whole level"),
        (any("#" in level for level in levels[:-1]), "# only as the last level"),
        ("#" in levels[-1] and levels[-1] != "#", "# must be a whole level"),
        (_has_control(text), "no control characters"),
        (_size(text) > LONGEST_TOPIC - 2 * LONGEST_NAME, f"at most {LONGEST_TOPIC} bytes"),
    ]


def _expression(levels: list[str]) -> str:
    """MQTT's matching rules; a last # also matches the level above it (section 4.7.1.2)."""
    known = {STREAM: "(?P<stream>[^/]*)", CHANNEL: "(?P<channel>[^/]*)", "+": "[^/]*"}
    is_open = levels[-1] == "#"
    closed = levels[:-1] if is_open else levels
    return "/".join(known.get(level, re.escape(level)) for level in closed) + (
        "(?:/.*)?" if is_open else ""
    )


def _check_name(text: str, what: str) -> str:
    shown = text if len(text) <= LONGEST_NAME else text[:20] + "…"
    problems = [
        (not text, "is empty"),
        (bool(set(text) & set("+#/")), "contains +, # or /"),
        (_has_control(text), "contains a control character or one that cannot be stored"),
        (_size(text) > LONGEST_NAME, f"is longer than {LONGEST_NAME} bytes"),
    ]
    for is_wrong, why in problems:
        if is_wrong:
            raise TopicError(f"{what} name {shown!a} {why}")
    return text


def _check_prefix(prefix: str) -> str:
    levels = prefix.split("/")
    is_wrong = not all(levels) or set(prefix) & set("+#") or prefix.startswith("$")
    if is_wrong or _has_control(prefix) or _size(prefix) > LONGEST_TOPIC - 4 * LONGEST_NAME:
        raise TopicError(f"topic prefix {prefix!r}: expected names between slashes, no + # $")
    return prefix


def _has_control(text: str) -> bool:
    """Control characters, half a surrogate pair, or line separators: all end up in logs."""
    return any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
