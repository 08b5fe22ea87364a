"""Samples in, what is to be published out: the middle of the agent, without sockets or clocks."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np

from edgernn.times import format_time, in_step, is_kept_time
from edgernn_device.alert import Alert, Model
from edgernn_device.engine import Engine, Floats
from edgernn_device.faults import Faults
from edgernn_device.payload import PayloadError, RawSample
from edgernn_device.sensors import SILENT, Fault
from edgernn_device.silence import Silence
from edgernn_device.stream import REMEMBERED, Step, Stream, StreamMemory, StreamRule

LONGEST_CHUNK = 256
"""Samples of one stream in one call of the graph: bounds its memory, not its speed."""

LOOKED_FOR = 60
"""Samples in which every channel is to have come, where there is no warm-up to wait for."""

OFF_PERIOD = 1.5
"""Times the period that samples may usually be apart, or the period their distance."""

YEAR_2000_S = 946_684_800.0
"""Before it, a time is of a clock that starts in 1970 and was never set."""


class StreamState(msgspec.Struct, frozen=True):
    """The JSON on the state topic."""

    state: str
    """off, pending, on, recovering; of other tasks than anomaly running; warming_up, stale."""
    score: float | None
    """Of the last sample; None while warming up, where nothing was observed, and where the task is
    another."""
    since: str
    """Sample time at which the state began."""
    faults: tuple[str, ...] = ()
    """What is wrong with its sensors, such as "flow: stuck"."""
    threshold: float | None = None
    """The score at which its alarm goes on, or went on; None of other tasks, and while stale."""


class Scored(msgspec.Struct, frozen=True):
    """The JSON on the score topic."""

    time: str
    score: float | None
    threshold: float
    """The score at which the alarm goes on, or went on."""


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
    """What a batch of samples, or a look at the clock, led to."""

    alerts: list[Alert] = []
    scores: dict[str, Scored] = {}
    """Stream → its last sample."""
    notices: list[Notice] = []
    streams: dict[str, None] = {}
    """Those whose state may be another one, in order."""
    forgotten: list[str] = []
    """Streams that are no more; first, as one may be back."""

    def followed_by(self, later: "Outcome") -> "Outcome":
        """Both as one."""
        return Outcome(
            alerts=self.alerts + later.alerts,
            scores=self.scores | later.scores,
            notices=self.notices + later.notices,
            streams=self.streams | later.streams,
            forgotten=self.forgotten + later.forgotten,
        )


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

    def shift(self, stream: Stream, by_s: float) -> None:
        """The clock of its samples was set: remembered times are on the new one from here on."""

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

    def __init__(
        self,
        engine: Engine,
        task: Task,
        *,
        rule: StreamRule,
        max_streams: int,
        node: str = "",
        silence: Silence | None = None,
        odd: str = "missing",
        before_2000: str = "keep",
    ) -> None:
        """`node`: its name in alerts of sensors. `silence`: None = no stream ever is. `odd`: a
        channel that is no number is "missing", or its sample "refuse"d; `before_2000`: so are
        samples of those years, or "keep" them."""
        self.engine = engine
        self.task = task
        self.counts: Counter[str] = Counter()
        """Samples refused, bridged or lost, by reason."""
        self.remarks: list[tuple[str, str]] = []
        """Reason, "" for one that is not counted, and sentence for the operator; the owner takes
        them."""
        self.samples = 0
        self.streams: dict[str, Stream] = {}
        never = Silence(stale_after_s=math.inf, forget_after_s=math.inf)
        self.silence = never if silence is None else silence
        """Of streams that something has come of."""
        self._channels = engine.card.channel_names
        self._rule = rule
        self._max_streams = max_streams
        self._odd = odd
        self._before_2000 = before_2000
        self._partings = Outcome()
        model = Model(name=engine.card.name, hash=engine.hash)
        self._faults = Faults(engine.card, node, model, rule.sensors)

    def take(self, samples: Iterable[tuple[str, RawSample]], *, now_s: float = 0.0) -> Outcome:
        """Run samples, (stream name, sample) in order of arrival, and let the task hear of them.

        now_s: on the clock of `look_at_clock`.
        """
        backlog: dict[str, deque[Step]] = {}
        outcome = Outcome()
        for name, sample in samples:
            if steps := self._admit(name, sample, outcome, now_s):
                backlog.setdefault(name, deque()).extend(steps)
                silent_s = self.silence.hear(name, now_s)
                if (stream := self.streams[name]).silent_since_s is not None:
                    # the clock does not know of a process before, the sample not of a delay
                    apart_s = steps[-1].time_s - stream.silent_since_s
                    apart_s -= sum(step.shift_s for step in steps)
                    self._end_silence(stream, outcome, lasted_s=max(silent_s, apart_s))
        while backlog:
            self._step(backlog, outcome)
        return self._after_partings(outcome)

    def look_at_clock(self, now_s: float) -> Outcome:
        """Which streams have fallen silent, and which were silent so long that they are forgotten.

        now_s: seconds on a clock that nobody sets.
        """
        outcome = Outcome()
        for name, silent_s in self.silence.fall_silent(now_s):
            if (stream := self.streams.get(name)) is None:
                self._forget_rolled_back(name)
                continue
            if stream.silent_since_s is not None:  # before it was recalled
                continue
            onset_s = stream.silent_since_s = stream.last_s
            fault = Fault(SILENT, None, True, onset_s + silent_s, onset_s, math.nan, 0)
            outcome.alerts.append(self._faults.alert(fault, name))
            outcome.streams[name] = None
        for name, silent_s in self.silence.overdue(now_s):
            if name not in self.streams:
                self._forget_rolled_back(name)
                continue
            self.counts["forgotten"] += 1
            self._let_go(name, silent_s)
        return self._after_partings(outcome)

    def partings(self) -> Outcome:
        """What came of streams that were let go in a batch that failed: of them it is true, and
        nothing tells it again."""
        partings, self._partings = self._partings, Outcome()
        return partings

    def remove_stream(self, name: str) -> None:
        """Give back all that is held of a stream; should it come again, it is a new one."""
        stream = self.streams.pop(name)
        self.task.forget(name)
        self.engine.remove_stream(stream.row)
        self.silence.forget(name)

    def state_of(self, name: str) -> StreamState:
        """What the state topic says of a stream."""
        stream = self.streams[name]
        state = self.task.state_of(stream)
        if stream.silent_since_s is not None:
            since = format_time(stream.silent_since_s)
            state = StreamState(state="stale", score=None, since=since)
        if stream.sensors is None or not (names := stream.sensors.names):
            return state
        faults = tuple(f"{self._channels[c]}: {kind}" for c, kind in names)
        return msgspec.structs.replace(state, faults=faults)

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
        order = memory.order
        if not (
            is_kept_time(order.last_s)
            and is_kept_time(order.spoken_s)
            and order.absent <= set(range(len(self._channels)))
            and all(len(step.x) == len(self._channels) for step in order.waiting)
        ):
            raise ValueError("a memory that no stream can have had")
        stream = Stream(name, self.engine.add_stream(), self._rule)
        stream.recall(memory.order)
        self.engine.set_state(stream.row, states)
        try:
            self.task.recall(stream, memory.task)
        except ValueError:  # DecodeError is one
            self.engine.remove_stream(stream.row)
            raise
        self.streams[name] = stream

    def begin_silence(self, now_s: float) -> None:
        """Streams that were recalled have been heard of now: what was before is not known."""
        for name in self.streams:
            self.silence.hear(name, now_s)

    def forget(self, name: str) -> None:
        """As if nothing had come of a stream yet; what was counted stays, and who is silent."""
        stream = self.streams.pop(name)
        self.engine.remove_stream(stream.row)
        self.task.forget(name)

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

    def _admit(
        self, name: str, sample: RawSample, outcome: Outcome, now_s: float
    ) -> Sequence[Step]:
        stream = self.streams.get(name)
        try:
            x = sample.row(self._channels)
            if sample.odd is not None:
                self._look_at_odd(name, sample.odd)
            if sample.time_s < YEAR_2000_S:
                self._look_at_year(name)
        except PayloadError as exc:
            self._remark(exc.reason, f"{name}: {exc}")
            return ()
        if stream is None:
            if not self._has_room(now_s):
                return ()
            stream = Stream(name, self.engine.add_stream(), self._rule)
            stream.absent = set(range(len(self._channels)))
            self.streams[name] = stream
            self.task.begin(stream)
        steps = stream.admit(
            sample.time_s,
            x,
            seq=sample.seq,
            counts=self.counts,
            is_again=sample.is_again,
            is_stamped=sample.is_stamped,
            heard_s=sample.heard_s,
        )
        if steps and stream.admitted % REMEMBERED == 0 and self._rule.resample == "off":
            self._look_at_pace(stream)
        if stream.sensors is not None and stream.sensors.faults:
            self._say_faults(stream, outcome)
        return steps

    def _look_at_odd(self, name: str, odd: Mapping[str, str]) -> None:
        """What is no number: nobody's business under other keys, a missing value of a channel.
        Raises PayloadError if that is to be refused."""
        for key, what in odd.items():
            if key not in self._channels:
                self.counts["ignored"] += 1
                continue
            reason = PayloadError("not_a_number", f"{key}: expected a number or null, got {what}")
            if self._odd == "refuse":
                raise reason
            self._remark("not_a_number", f"{name}: {reason}; taken as missing")

    def _look_at_year(self, name: str) -> None:
        """A time before 2000 is of a clock that was never set. Raises PayloadError if refused."""
        reason = PayloadError("before_2000", "the sender's clock seems not to be set")
        if self._before_2000 == "refuse":
            raise reason
        self._remark("before_2000", f"{name}: {reason}; its times are kept as they are")

    def _look_at_pace(self, stream: Stream) -> None:
        """Budgets, memories and gaps count periods: all are wrong where samples come in others."""
        low_s, high_s = sorted(stream.pace_s)
        period_s = self._rule.period_s
        if high_s * OFF_PERIOD < period_s:
            apart_s, fits = high_s, "[input] resample, "
        elif low_s > OFF_PERIOD * period_s:
            apart_s, fits = low_s, ""
        else:
            return
        sentence = (
            f"{stream.name}: samples come every {apart_s:.3g} s, the period is {period_s:.3g} s; "
            f"what mends it: {fits}--period with the general artefact, another detector"
        )
        self._remark("off_period", sentence)

    def _remark(self, reason: str, sentence: str) -> None:
        """Count it; say the first of each kind, so that a flood does not fill the log."""
        self.counts[reason] += 1
        if self.counts[reason] == 1:
            self.remarks.append((reason, f"{sentence} (said once, then counted)"))

    def _say_faults(self, stream: Stream, outcome: Outcome) -> None:
        assert stream.sensors is not None
        outcome.alerts += [self._faults.alert(one, stream.name) for one in stream.sensors.faults]
        outcome.streams[stream.name] = None
        stream.sensors.faults.clear()

    def _has_room(self, now_s: float) -> bool:
        """For one stream more. Only one that is silent makes room, the longest first: else whoever
        makes names up could drive all others out."""
        if len(self.streams) < self._max_streams:
            return True
        while found := self.silence.longest_silent(now_s):
            if found[0] in self.streams:
                self.counts["made_room"] += 1
                self._let_go(*found)
                return True
            self._forget_rolled_back(found[0])
        self.counts["too_many_streams"] += 1
        return False

    def _after_partings(self, outcome: Outcome) -> Outcome:
        """All that a batch led to; whoever is let go is among the forgotten."""
        return self.partings().followed_by(outcome) if self._partings.forgotten else outcome

    def _forget_rolled_back(self, name: str) -> None:
        """A stream that came with what was rolled back, or was lost with the store: others may
        still speak of it."""
        self.silence.forget(name)
        self._partings.forgotten.append(name)

    def _let_go(self, name: str, silent_s: float) -> None:
        """A silent stream is forgotten: what was on goes off."""
        stream, outcome = self.streams[name], self._partings
        self._end_silence(stream, outcome, lasted_s=silent_s, is_forgotten=True)
        self.task.start_afresh(stream, outcome)
        if stream.sensors is not None:
            stream.sensors.end()
            self._say_faults(stream, outcome)
        self.remove_stream(name)
        outcome.streams.pop(name, None)
        outcome.notices = [one for one in outcome.notices if one.stream != name]
        outcome.forgotten.append(name)

    def _end_silence(
        self, stream: Stream, outcome: Outcome, *, lasted_s: float, is_forgotten: bool = False
    ) -> None:
        onset_s = stream.silent_since_s
        assert onset_s is not None
        stream.silent_since_s = None
        time_s = onset_s + lasted_s
        fault = Fault(SILENT, None, False, time_s, onset_s, math.nan, 0, is_forgotten=is_forgotten)
        outcome.alerts.append(self._faults.alert(fault, stream.name))
        outcome.streams[stream.name] = None

    def _step(self, backlog: dict[str, deque[Step]], outcome: Outcome) -> None:
        """One call of the graph: as many streams side by side, and as far along time, as go
        together. Streams with a longer backlog go on in the next call."""
        names = list(backlog)
        for name in names:
            first = backlog[name][0]
            if first.is_fresh:
                self._start_afresh(self.streams[name], outcome)
            elif first.shift_s:
                self.streams[name].shift(first.shift_s)
                self.task.shift(self.streams[name], first.shift_s)
        length = min(LONGEST_CHUNK, *(_run_length(steps) for steps in backlog.values()))
        if self.engine.has_clock and length > 1:
            heads = ([steps[t].time_s for t in range(length)] for steps in backlog.values())
            length = min(in_step(times_s, self._rule.period_s) for times_s in heads)
        taken = [[backlog[name].popleft() for _ in range(length)] for name in names]  # N × T
        values = [[steps[t].x for steps in taken] for t in range(length)]
        with np.errstate(over="ignore"):  # beyond float32: infinity, which the detector clips
            x = np.array(values, np.float32)  # (T, N, C)
        rows = np.array([self.streams[name].row for name in names])
        said = self.engine.run(rows, x, [steps[0].time_s for steps in taken])
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
            what = "its memory is not finite any more and is begun anew (said once, then counted)"
            self.remarks.append(
                ("lost_memory", f"{stream.name}: {what}; the model is unstable, train another")
            )
        self._start_afresh(stream, outcome)

    def _look_for_absent(self, stream: Stream, steps: Sequence[Step]) -> None:
        """While a new stream warms up: which channels have not come once?"""
        stream.absent -= {c for step in steps for c, value in enumerate(step.x) if value == value}
        stream.looked_at += len(steps)
        is_early = not self._rule.warm_up and stream.looked_at < LOOKED_FOR
        if stream.warming_up <= len(steps) and not is_early:
            if names := ", ".join(self._channels[c] for c in sorted(stream.absent)):
                sentence = f"{stream.name}: {names} has not come once; is the key right?"
                self.remarks.append(("", sentence))
            stream.absent.clear()

    def _start_afresh(self, stream: Stream, outcome: Outcome) -> None:
        """A gap too long to bridge: what the task said ends here, and the stream warms up."""
        self.task.start_afresh(stream, outcome)
        stream.start_afresh()
        self.engine.reset(stream.row)


def _run_length(steps: deque[Step]) -> int:
    """Rows until the next fresh start, or the next step of the clock."""
    length = 1
    while length < min(len(steps), LONGEST_CHUNK) and not (
        steps[length].is_fresh or steps[length].shift_s
    ):
        length += 1
    return length
