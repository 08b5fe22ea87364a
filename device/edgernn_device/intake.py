"""Messages in, samples out: whose they are, what they say, joined where channels arrive apart.

No socket, no clock. What is refused is a PayloadError, counted by its reason.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from edgernn.errors import EdgernnError
from edgernn_device.join import Join, Joined, JoinRule
from edgernn_device.mapping import LONGEST_TEXT, Mapping
from edgernn_device.payload import PayloadError, parse, samples_of
from edgernn_device.topics import CHANNEL, TopicError, TopicPattern

LONGEST_FILL = 60
"""Periods of a jump in time that a recording is filled over with what is held, as by an agent."""
MOST_STREAMS = 10_000
"""In one recording, while channels arrive apart."""


class Intake:
    """For all messages that fit one pattern."""

    @classmethod
    def for_recording(
        cls,
        pattern: TopicPattern,
        mapping: Mapping,
        channels: Sequence[str],
        *,
        period_s: float | None,
        hold_s: float | None,
    ) -> "Intake":
        """Without an artefact that says which channels there are, and their period.

        Raises EdgernnError for what is missing or makes no sense.
        """
        if not pattern.has_channel:
            for name, value in (("period", period_s), ("hold", hold_s)):
                if value is not None:
                    raise EdgernnError(f"{name}: only with {CHANNEL} in the topic pattern")
            return cls(pattern, mapping, None)
        if period_s is None or not 0.001 <= period_s <= 86_400:
            raise EdgernnError(
                f"period: expected 0.001–86400 s, as the pattern has {CHANNEL} and values are "
                f"joined into samples, got {period_s}"
            )
        if not channels:
            raise EdgernnError(
                f"channels: expected all of them by name, as the pattern has {CHANNEL} and some "
                "sensors may speak seldom"
            )
        rule = JoinRule.for_period(
            period_s, hold_s=hold_s, max_gap_s=LONGEST_FILL * period_s, where="recording"
        )
        return cls(pattern, mapping, Join(rule, channels, max_streams=MOST_STREAMS))

    def __init__(self, pattern: TopicPattern, mapping: Mapping, join: Join | None) -> None:
        """`join`: where the pattern names channels, and nowhere else."""
        if pattern.has_channel != (join is not None):
            raise ValueError("values are joined where the pattern has {channel}, and only there")
        self.join = join
        self._pattern = pattern
        self._mapping = mapping

    def take(
        self,
        topic: str,
        payload: bytes,
        *,
        received_s: float,
        now_s: float,
        period_s: float = 0.0,
        is_again: bool = False,
    ) -> list[Joined]:
        """The samples that one message brings or completes, each with its stream.

        `received_s`, seconds since 1970, for what has no time of its own; `now_s` of a clock that
        never steps; `period_s` and `is_again` as for `payload.samples_of`.
        """
        try:
            source = self._pattern.source_of(topic)
        except TopicError as exc:
            raise PayloadError("bad_stream_name", str(exc)) from exc
        if source is None:
            raise PayloadError("wrong_topic", "does not fit the pattern")
        content = _parse_value(payload) if source.channel else parse(payload)
        if source.channel or not self._mapping.is_plain:
            try:
                content = self._mapping.unfold(content, source.channel)
            except LookupError as exc:
                raise PayloadError("not_samples", str(exc)) from exc
        samples = samples_of(
            content, received_s=received_s, period_s=period_s, heard_s=now_s, is_again=is_again
        )
        if self.join is None:
            return [(source.stream, sample) for sample in samples]
        if not any(sample.values for sample in samples):
            reason = "not_a_number" if any(sample.odd for sample in samples) else "no_channel"
            raise PayloadError(reason, f"no value in a message of {source.channel!r}")
        found: list[Joined] = []
        for sample in samples:
            found += self.join.add(source.stream, sample, now_s=now_s)
        return found

    @property
    def counts(self) -> Counter[str]:
        """Values left out or lost while joining, by reason."""
        return self.join.counts if self.join is not None else Counter()

    def forget(self, topic: str) -> None:
        """What is held of the stream that a topic names led to a failure."""
        with suppress(TopicError):
            if (source := self._pattern.source_of(topic)) is not None:
                self.forget_streams([source.stream])

    def forget_streams(self, names: Iterable[str]) -> None:
        """Nothing is held of these any more."""
        if self.join is not None:
            for name in names:
                self.join.forget(name)

    def touched(self) -> list[str]:
        """Streams of which something is held, or no more, since this was last asked."""
        return self.join.touched() if self.join is not None else []

    def due(self, now_s: float) -> list[Joined]:
        """Joined samples that wait for no further value. To be asked when no message waits."""
        return self.join.due(now_s) if self.join is not None else []


def _parse_value(payload: bytes) -> object:
    """JSON, or else a word such as ON."""
    try:
        return parse(payload)
    except PayloadError:
        if len(payload) > LONGEST_TEXT or not payload.strip():
            raise
        try:
            return payload.decode()
        except UnicodeDecodeError:
            pass
        raise
