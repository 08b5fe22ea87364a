"""Task "classify": probabilities → the class a stream is in, said when it changes. No clock."""

import math
from collections.abc import Sequence

import msgspec

from edgernn.times import format_time
from edgernn_device.alert import Model
from edgernn_device.config import ClassifyConfig
from edgernn_device.engine import Engine, Floats
from edgernn_device.monitor import Notice, Outcome
from edgernn_device.running import Running, RunningMemory
from edgernn_device.stream import Step, Stream


class StreamClass(msgspec.Struct, frozen=True):
    """The JSON on the class topic. Times are ISO 8601, UTC, of samples."""

    node: str
    stream: str
    name: str | None = msgspec.field(name="class")
    """None: not known, as the stream started afresh after a gap."""
    probability: float | None
    """At `time`."""
    since: str
    """The first of the samples that agreed."""
    time: str
    """The one that confirmed it."""
    model: Model


class _Memory(RunningMemory):
    """One stream's class, and the one that may be next. −1 = none."""

    known: int = -1
    candidate: int = -1
    agreed: int = 0
    """Samples in a row for the candidate."""
    began_s: float = math.nan
    """Time of the first of them."""


class Classes(Running[_Memory]):
    """A class for every stream, with patience: single samples change nothing."""

    def __init__(self, engine: Engine, rule: ClassifyConfig, *, node: str) -> None:
        super().__init__(_Memory)
        self._names = engine.card.classes
        self._rule = rule
        self._node = node
        self._model = Model(name=engine.card.name, hash=engine.hash)

    def __str__(self) -> str:
        return f"classes {', '.join(self._names)} after {self._rule.confirm} samples that agree"

    def hear(
        self, stream: Stream, steps: Sequence[Step], said: Sequence[Floats], outcome: Outcome
    ) -> bool:
        """`said`: probability (T, L), NaN where nothing was observed."""
        (probability,) = said
        likeliest = probability.argmax(-1).tolist()  # of NaN: 0, which does not count below
        highest = probability.max(-1).tolist()
        memory = self._of[stream.name]
        about: Step | None = None
        for step, index, p in zip(steps, likeliest, highest, strict=True):
            is_counted = stream.is_next_counted()
            if (about := stream.about(step)) is None or not is_counted:
                continue
            if math.isnan(memory.running_s):
                memory.running_s = about.time_s
            if self._is_new(memory, index, p, about.time_s):
                outcome.notices.append(self._notice(stream, memory, p, about.time_s))
        if about is None:
            return False
        stream.spoken_s = about.time_s
        return True

    def start_afresh(self, stream: Stream, outcome: Outcome) -> None:
        """A class that was known no longer is."""
        memory, was_known = _Memory(), self._of[stream.name].known >= 0
        self._of[stream.name] = memory
        if was_known:
            memory.began_s = stream.spoken_s
            outcome.notices.append(self._notice(stream, memory, math.nan, stream.spoken_s))

    def shift(self, stream: Stream, by_s: float) -> None:
        memory = self._of[stream.name]
        memory.running_s += by_s
        memory.began_s += by_s

    def _is_new(self, memory: _Memory, index: int, p: float, time_s: float) -> bool:
        """Whether this sample makes the candidate the stream's class. A sample of which nothing was
        observed says nothing."""
        if math.isnan(p):
            return False
        if index == memory.known or p < self._rule.min_probability:
            memory.candidate, memory.agreed = -1, 0
            return False
        if index != memory.candidate:
            memory.candidate, memory.agreed, memory.began_s = index, 0, time_s
        memory.agreed += 1
        if memory.agreed < self._rule.confirm:
            return False
        memory.known, memory.candidate, memory.agreed = index, -1, 0
        return True

    def _notice(self, stream: Stream, memory: _Memory, p: float, time_s: float) -> Notice:
        is_known = memory.known >= 0
        content = StreamClass(
            node=self._node,
            stream=stream.name,
            name=self._names[memory.known] if is_known else None,
            probability=round(p, 4) if is_known else None,
            since=format_time(memory.began_s),
            time=format_time(time_s),
            model=self._model,
        )
        return Notice("class", stream.name, content)
