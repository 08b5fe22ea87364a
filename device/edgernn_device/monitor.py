"""Samples in, what is to be published out: the middle of the agent, without sockets or clocks."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec
import numpy as np

from edgernn_device.alert import Alert
from edgernn_device.engine import Engine, Floats
from edgernn_device.payload import PayloadError, RawSample
from edgernn_device.stream import Step, Stream, StreamMemory, StreamRule

LONGEST_CHUNK = 256
"""Samples of one stream in one call of the graph: bounds its memory, not its speed."""


class StreamState(msgspec.Struct, frozen=True):
    """The JSON on the state topic."""

    state: str
    """off, pending, on, recovering; of other tasks than anomaly running; warming_up, stale."""
    score: float | None
    """Of the last sample; None while warming up, where nothing was observed, and where the task is
    another."""
    since: str
    """Sample time at which the state began."""


class Scored(msgspec.Struct, frozen=True):
    """The JSON on the score topic."""

    time: str
    score: float | None


class Notice(msgspec.Struct, frozen=True):
    """What the newest of its kind replaces: a stream's class, or its forecast."""

    kind: str
    """"class" or "forecast": the topic's last level."""
    stream: str
    content: msgspec.Struct


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one stream, to be kept."""

    order: StreamMemory
    task: bytes
    states: bytes


class Outcome(msgspec.Struct):
    """What a batch of samples led to."""

    alerts: list[Alert]
    scores: dict[str, Scored]
    """Stream → its last sample."""
    notices: list[Notice]
    streams: dict[str, None]
    """Those that something was said of, in order."""


class Task(Protocol):
    """What is made of the engine's outputs: alarms, classes or forecasts, stream by stream."""

    def begin(self, stream: Stream) -> None:
        """A new stream."""

    def hear(
        self, stream: Stream, steps: Sequence[Step], said: Sequence[Floats], outcome: Outcome
    ) -> bool:
        """Some steps of a stream and what the engine said when given them, each output (T, …).
        False if it spoke of no sample yet."""

    def start_afresh(self, stream: Stream, outcome: Outcome) -> None:
        """A gap too long to bridge, or the first sample."""

    def remember(self, stream: Stream) -> bytes:
        """All that is known of a stream here, for `recall`."""

    def recall(self, stream: Stream, kept: bytes) -> None:
        """A stream as it was. Raises msgspec.DecodeError for what `remember` never gave."""

    def forget(self, name: str) -> None:
        """A stream is no more."""

    def state_of(self, stream: Stream) -> StreamState:
        """For the state topic."""

    def __str__(self) -> str:
        """For the operator: what it does with this artefact."""


class Monitor:
    """All streams of one artefact: order, engine, and what the task makes of it."""

    def __init__(self, engine: Engine, task: Task, *, rule: StreamRule, max_streams: int) -> None:
        self.engine = engine
        self.task = task
        self.counts: Counter[str] = Counter()
        """Samples refused, bridged or lost, by reason."""
        self.remarks: list[str] = []
        """Sentences for the operator, each said once; the owner takes them."""
        self.samples = 0
        self.streams: dict[str, Stream] = {}
        self._channels = engine.card.channel_names
        self._rule = rule
        self._max_streams = max_streams

    def take(self, samples: Iterable[tuple[str, RawSample]]) -> Outcome:
        """Run samples, (stream name, sample) in order of arrival, and let the task hear of them."""
        backlog: dict[str, deque[Step]] = {}
        for name, sample in samples:
            for step in self._admit(name, sample):
                backlog.setdefault(name, deque()).append(step)
        outcome = Outcome(alerts=[], scores={}, notices=[], streams={})
        while backlog:
            self._step(backlog, outcome)
        return outcome

    def remove_stream(self, name: str) -> None:
        """Give back all that is held of a stream; should it come again, it is a new one."""
        stream = self.streams.pop(name)
        self.task.forget(name)
        self.engine.remove_stream(stream.row)

    def state_of(self, name: str) -> StreamState:
        """What the state topic says of a stream."""
        return self.task.state_of(self.streams[name])

    def remember(self, name: str) -> bytes:
        """All that is known of a stream, for `recall`."""
        stream = self.streams[name]
        states = b"".join(one.tobytes() for one in self.engine.state_of(stream.row).values())
        return msgspec.msgpack.encode(Memory(stream.remember(), self.task.remember(stream), states))

    def recall(self, name: str, kept: bytes) -> None:
        """A stream as it was. Raises msgspec.DecodeError or ValueError for what `remember` of this
        artefact never gave."""
        memory = msgspec.msgpack.decode(kept, type=Memory)
        states = self._states(memory.states)
        stream = Stream(name, self.engine.add_stream(), self._rule)
        stream.recall(memory.order)
        self.engine.set_state(stream.row, states)
        try:
            self.task.recall(stream, memory.task)
        except ValueError:  # DecodeError is one
            self.engine.remove_stream(stream.row)
            raise
        self.streams[name] = stream

    def forget_all(self) -> None:
        """As if nothing had come yet; what was counted stays."""
        for name, stream in self.streams.items():
            self.engine.remove_stream(stream.row)
            self.task.forget(name)
        self.streams.clear()

    def _states(self, packed: bytes) -> dict[str, Floats]:
        """The numbers of every state in the card's order → the states. Raises ValueError."""
        states, numbers, first = self.engine.card.states, np.frombuffer(packed, np.float32), 0
        sizes = [math.prod(state.shape) for state in states]
        if len(numbers) != sum(sizes):
            raise ValueError(f"a memory of {len(numbers)} numbers, expected {sum(sizes)}")
        found = {}
        for state, size in zip(states, sizes, strict=True):
            found[state.name] = numbers[first : first + size].reshape(state.shape)
            first += size
        return found

    def _admit(self, name: str, sample: RawSample) -> Iterable[Step]:
        stream = self.streams.get(name)
        try:
            x = sample.row(self._channels)
        except PayloadError as exc:
            self.counts[exc.reason] += 1
            if self.counts[exc.reason] == 1:
                self.remarks.append(f"{name}: {exc} (said once, then counted)")
            return ()
        if stream is None:
            if len(self.streams) >= self._max_streams:
                self.counts["too_many_streams"] += 1
                return ()
            stream = Stream(name, self.engine.add_stream(), self._rule)
            stream.absent = set(range(len(self._channels)))
            self.streams[name] = stream
            self.task.begin(stream)
        return stream.admit(sample.time_s, x, seq=sample.seq, counts=self.counts)

    def _step(self, backlog: dict[str, deque[Step]], outcome: Outcome) -> None:
        """One call of the graph: as many streams side by side, and as far along time, as go
        together. Streams with a longer backlog go on in the next call."""
        names = list(backlog)
        for name in names:
            if backlog[name][0].is_fresh:
                self._start_afresh(self.streams[name], outcome)
        length = min(LONGEST_CHUNK, *(_run_length(steps) for steps in backlog.values()))
        taken = [[backlog[name].popleft() for _ in range(length)] for name in names]  # N × T
        values = [[steps[t].x for steps in taken] for t in range(length)]
        with np.errstate(over="ignore"):  # beyond float32: infinity, which the detector clips
            x = np.array(values, np.float32)  # (T, N, C)
        rows = np.array([self.streams[name].row for name in names])
        said = self.engine.run(rows, x)
        self.samples += length * len(names)
        is_unknown = np.isnan(said[0][-1].reshape(len(names), -1)).any(axis=1)  # (N,)
        for n, name in enumerate(names):
            stream = self.streams[name]
            if stream.absent:
                self._look_for_absent(stream, taken[n])
            if self.task.hear(stream, taken[n], [one[:, n] for one in said], outcome):
                outcome.streams[name] = None
            if is_unknown[n] and not self.engine.is_finite(stream.row):
                self._forget(stream, outcome)
            if not backlog[name]:
                del backlog[name]

    def _forget(self, stream: Stream, outcome: Outcome) -> None:
        """A memory that left all bounds would never say anything again."""
        self.counts["lost_memory"] += 1
        if self.counts["lost_memory"] == 1:
            self.remarks.append(
                f"{stream.name}: its memory is not finite any more and is begun anew (said once, "
                "then counted); the model is unstable, train another"
            )
        self._start_afresh(stream, outcome)

    def _look_for_absent(self, stream: Stream, steps: Sequence[Step]) -> None:
        """While a new stream warms up: which channels have not come once?"""
        stream.absent -= {c for step in steps for c, value in enumerate(step.x) if value == value}
        if stream.warming_up <= len(steps):
            if names := ", ".join(self._channels[c] for c in sorted(stream.absent)):
                self.remarks.append(f"{stream.name}: {names} has not come once; is the key right?")
            stream.absent.clear()

    def _start_afresh(self, stream: Stream, outcome: Outcome) -> None:
        """A gap too long to bridge: what the task said ends here, and the stream warms up."""
        self.task.start_afresh(stream, outcome)
        stream.start_afresh()
        self.engine.reset(stream.row)


def _run_length(steps: deque[Step]) -> int:
    """Rows until the next fresh start."""
    length = 1
    while length < min(len(steps), LONGEST_CHUNK) and not steps[length].is_fresh:
        length += 1
    return length
