"""Samples in, alerts out: the middle of the agent, without sockets or clocks."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from edgernn.alarm import Edge, Limits
from edgernn.times import format_time
from edgernn_device.alert import Alert, ChannelPart, Model, make_alert, top_channels
from edgernn_device.engine import Engine, Floats
from edgernn_device.payload import PayloadError, RawSample
from edgernn_device.stream import Step, Stream, StreamRule

LONGEST_CHUNK = 256
"""Samples of one stream in one call of the graph: bounds its memory, not its speed."""


class StreamState(msgspec.Struct, frozen=True):
    """The JSON on the state topic."""

    state: str
    """off, pending, on, recovering, warming_up, stale."""
    score: float | None
    """Of the last sample; None while warming up or where nothing was observed."""
    since: str
    """Sample time at which the state began."""


class Scored(msgspec.Struct, frozen=True):
    """The JSON on the score topic."""

    time: str
    score: float | None


class Outcome(msgspec.Struct):
    """What a batch of samples led to."""

    alerts: list[Alert]
    scores: dict[str, Scored]
    """Stream → its last sample."""


class Monitor:
    """All streams of one artefact: order, engine, alarms."""

    def __init__(
        self, engine: Engine, *, node: str, limits: Limits, rule: StreamRule, max_streams: int
    ) -> None:
        self.engine = engine
        self.limits = limits
        self.counts: Counter[str] = Counter()
        """Samples refused, bridged or lost, by reason."""
        self.remarks: list[str] = []
        """Sentences for the operator, each said once; the owner takes them."""
        self.samples = 0
        self.streams: dict[str, Stream] = {}
        self._node = node
        self._channels = engine.card.channel_names
        self._rule = rule
        self._max_streams = max_streams
        self._model = Model(name=engine.card.name, hash=engine.hash)

    def take(self, samples: Iterable[tuple[str, RawSample]]) -> Outcome:
        """Score samples, (stream name, sample) in order of arrival, and update the alarms."""
        backlog: dict[str, deque[Step]] = {}
        for name, sample in samples:
            for step in self._admit(name, sample):
                backlog.setdefault(name, deque()).append(step)
        outcome = Outcome(alerts=[], scores={})
        while backlog:
            self._step(backlog, outcome)
        return outcome

    def state_of(self, name: str) -> StreamState:
        """What the state topic says of a stream."""
        stream = self.streams[name]
        is_known = stream.score == stream.score  # not NaN
        warming_up = stream.warming_up > 0 and not stream.alarm.is_on
        since_s = stream.alarm.since_s if stream.alarm.since_s > -np.inf else stream.last_s
        return StreamState(
            state="warming_up" if warming_up else str(stream.alarm.state),
            score=round(stream.score, 3) if is_known else None,
            since=format_time(since_s),
        )

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
            stream = Stream(name, self.engine.add_stream(), self._rule, self.limits)
            stream.absent = set(range(len(self._channels)))
            self.streams[name] = stream
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
        scores = self.engine.step(rows, x)
        self.samples += length * len(names)
        for n, name in enumerate(names):
            self._update(
                self.streams[name],
                taken[n],
                scores.score[:, n],
                scores.expected[:, n],
                scores.contribution[:, n],
                outcome,
            )
            if not backlog[name]:
                del backlog[name]

    def _update(
        self,
        stream: Stream,
        steps: Sequence[Step],
        score: Floats,
        expected: Floats,
        contribution: Floats,
        outcome: Outcome,
    ) -> None:
        """Let one stream's alarm see its scores (T,), with expected and contribution (T, C)."""
        if stream.absent:
            self._look_for_absent(stream, steps)
        about: Step | None = None
        for t, (step, said) in enumerate(zip(steps, score.tolist(), strict=True)):
            value = stream.counted(said)
            if (about := stream.about(step)) is None:
                continue
            edge = stream.alarm.update(about.time_s, value)
            if edge is not None:
                parts = top_channels(self.engine.card, about.x, expected[t], contribution[t])
                outcome.alerts.append(self._alert(edge, stream, parts))
        if about is not None:
            stream.scored_s = about.time_s
            known = round(stream.score, 3) if stream.score == stream.score else None
            outcome.scores[stream.name] = Scored(format_time(about.time_s), known)

    def _look_for_absent(self, stream: Stream, steps: Sequence[Step]) -> None:
        """While a new stream warms up: which channels have not come once?"""
        stream.absent -= {c for step in steps for c, value in enumerate(step.x) if value == value}
        if stream.warming_up <= len(steps):
            if names := ", ".join(self._channels[c] for c in sorted(stream.absent)):
                self.remarks.append(f"{stream.name}: {names} has not come once; is the key right?")
            stream.absent.clear()

    def _start_afresh(self, stream: Stream, outcome: Outcome) -> None:
        """A gap too long to bridge: an alarm that is on ends here, and the stream warms up."""
        if (edge := stream.alarm.end(stream.scored_s)) is not None:
            outcome.alerts.append(self._alert(edge, stream, ()))
        stream.start_afresh()
        self.engine.reset(stream.row)

    def _alert(self, edge: Edge, stream: Stream, parts: tuple[ChannelPart, ...]) -> Alert:
        return make_alert(
            edge,
            parts,
            node=self._node,
            stream=stream.name,
            limits=self.limits,
            model=self._model,
        )


def _run_length(steps: deque[Step]) -> int:
    """Rows until the next fresh start."""
    length = 1
    while length < min(len(steps), LONGEST_CHUNK) and not steps[length].is_fresh:
        length += 1
    return length
