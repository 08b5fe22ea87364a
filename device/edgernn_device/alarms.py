"""Task "anomaly": scores → alarms → alerts, stream by stream. No clock, no socket."""

import math
from collections.abc import Sequence

import msgspec

from edgernn.alarm import Alarm, AlarmMemory, Edge, Limits
from edgernn.times import format_time
from edgernn_device.alert import Alert, ChannelPart, Model, make_alert, top_channels
from edgernn_device.engine import Engine, Floats
from edgernn_device.monitor import Outcome, Scored, StreamState
from edgernn_device.stream import Step, Stream


class _Memory:
    """One stream's alarm, and the score of its last sample."""

    __slots__ = ("alarm", "score")

    def __init__(self, limits: Limits) -> None:
        self.alarm = Alarm(limits)
        self.score = math.nan


class Alarms:
    """An alarm for every stream."""

    def __init__(self, engine: Engine, limits: Limits, *, node: str) -> None:
        self.limits = limits
        self._card = engine.card
        self._node = node
        self._model = Model(name=engine.card.name, hash=engine.hash)
        self._of: dict[str, _Memory] = {}

    def __str__(self) -> str:
        return f"alarms {self.limits}"

    def begin(self, stream: Stream) -> None:
        self._of[stream.name] = _Memory(self.limits)

    def hear(
        self, stream: Stream, steps: Sequence[Step], said: Sequence[Floats], outcome: Outcome
    ) -> bool:
        """`said`: score (T,), contribution and expected (T, C)."""
        score, contribution, expected = said
        memory = self._of[stream.name]
        about: Step | None = None
        for t, (step, value) in enumerate(zip(steps, score.tolist(), strict=True)):
            memory.score = value if stream.is_next_counted() else math.nan
            if (about := stream.about(step)) is None:
                continue
            edge = memory.alarm.update(about.time_s, memory.score)
            if edge is not None:
                parts = top_channels(self._card, about.x, expected[t], contribution[t])
                outcome.alerts.append(self._alert(edge, stream, parts))
        if about is None:
            return False
        stream.spoken_s = about.time_s
        outcome.scores[stream.name] = Scored(
            format_time(about.time_s), _known(memory.score), round(memory.alarm.threshold, 3)
        )
        return True

    def start_afresh(self, stream: Stream, outcome: Outcome) -> None:
        """An alarm that is on ends here."""
        memory = self._of[stream.name]
        if (edge := memory.alarm.end(stream.spoken_s)) is not None:
            outcome.alerts.append(self._alert(edge, stream, ()))
        memory.alarm.reset()
        memory.score = math.nan

    def shift(self, stream: Stream, by_s: float) -> None:
        self._of[stream.name].alarm.shift(by_s)

    def remember(self, stream: Stream) -> bytes:
        memory = self._of[stream.name]
        return msgspec.msgpack.encode((memory.alarm.remember(), memory.score))

    def recall(self, stream: Stream, kept: bytes) -> None:
        alarm, score = msgspec.msgpack.decode(kept, type=tuple[AlarmMemory, float])
        memory = _Memory(self.limits)
        memory.alarm.recall(alarm)
        memory.score = score
        self._of[stream.name] = memory

    def forget(self, name: str) -> None:
        del self._of[name]

    def state_of(self, stream: Stream) -> StreamState:
        memory = self._of[stream.name]
        is_new = math.isinf(memory.alarm.since_s)  # no score has counted yet
        return StreamState(
            state="warming_up" if is_new else str(memory.alarm.state),
            score=_known(memory.score),
            since=format_time(stream.last_s if is_new else memory.alarm.since_s),
            threshold=round(memory.alarm.threshold, 3),
        )

    def _alert(self, edge: Edge, stream: Stream, parts: tuple[ChannelPart, ...]) -> Alert:
        return make_alert(
            edge,
            parts,
            node=self._node,
            stream=stream.name,
            model=self._model,
        )


def _known(score: float) -> float | None:
    return None if math.isnan(score) else round(score, 3)
