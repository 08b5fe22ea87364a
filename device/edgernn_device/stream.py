"""One stream's order: what to do with late, repeated and missing samples. No clock, no socket."""

import itertools
import math
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from statistics import fmean, median

import msgspec

from edgernn.times import steps_between
from edgernn_device.resample import Resampler, ResamplerMemory
from edgernn_device.sensors import SensorRule, Sensors, SensorsMemory

CLOCK_STEPPED_AFTER = 30
"""Late samples in a row, each later than the one before: not late, the sender's clock was set
back. The stream starts afresh on the new time."""
IN_PACE = 3
"""Samples in a row that came as far apart as their times are: so many are a stream heard live, in
which a jump of the times alone is a step of the clock."""
SHORTEST_STEP = 2.0
"""Periods by which times must jump ahead of their arrival: less is jitter."""
REMEMBERED = 32
"""Times of samples admitted, by which a repeat is told from a late one: a broker redelivers its
window, 20 messages unless told otherwise."""


class StreamRule(msgspec.Struct, frozen=True):
    """What every stream of an agent has in common."""

    period_s: float
    warm_up: int
    """Samples after a fresh start with which nothing is said that counts."""
    max_gap_s: float
    """Up to this, missing samples are bridged; a longer gap starts afresh."""
    delay: int = 0
    """Samples that what is said comes after the one it is about."""
    resample: str = "off"
    """"off", or how samples are brought onto the period: "last" or "mean"."""
    hold_s: float = 0.0
    """How long "last" lets a value stand."""
    sensors: SensorRule | None = None
    """None = values are not looked at."""


class Step(msgspec.Struct, frozen=True):
    """One row for the engine."""

    time_s: float
    x: Sequence[float]
    """C values in sensor units, NaN = missing."""
    is_fresh: bool
    """Reset the stream's states, and what was said of it, before this row."""
    shift_s: float = 0.0
    """Before this row the sender's clock was set by so much: remembered times go with it."""


class StreamMemory(msgspec.Struct, frozen=True, array_like=True):
    """All that a `Stream` knows, to be kept."""

    last_s: float
    last_seq: int | None
    warming_up: int
    spoken_s: float
    late: list[float]
    waiting: list[Step]
    absent: set[int]
    silent_since_s: float | None
    sensors: SensorsMemory | None
    rows: tuple[float, float, ResamplerMemory] | None
    """Where samples are brought onto the period: time of the last row, shift of the next one."""


class Stream:
    """Order, gaps, sensors and warm-up of one stream."""

    __slots__ = (
        "_admitted",
        "_heard_s",
        "_in_pace",
        "_late",
        "_late_heard_s",
        "_late_in_pace",
        "_recent",
        "_resampler",
        "_row_s",
        "_rule",
        "_shift_s",
        "_waiting",
        "absent",
        "last_s",
        "last_seq",
        "looked_at",
        "name",
        "row",
        "sensors",
        "silent_since_s",
        "spoken_s",
        "warming_up",
    )

    def __init__(self, name: str, row: int, rule: StreamRule) -> None:
        self.name = name
        self.row = row
        self.warming_up = rule.warm_up
        """Samples to go until what is said of them counts."""
        self.last_s = -math.inf
        """Time of the last sample admitted."""
        self.absent: set[int] = set()
        """Channels that have not come once, while the owner still looks for them."""
        self.looked_at = 0
        """Steps in which the owner looked for them."""
        self.spoken_s = -math.inf
        """Time of the last sample that something was said of."""
        self.last_seq: int | None = None
        self.silent_since_s: float | None = None
        """Time of the last sample before a silence that was said; None = not silent."""
        self.sensors = None if rule.sensors is None else Sensors(rule.sensors)
        self._rule = rule
        self._resampler = (
            None
            if rule.resample == "off"
            else Resampler(rule.resample, period_s=rule.period_s, hold_s=rule.hold_s)
        )
        self._row_s = -math.inf  # of the last row; without resampling the same as last_s
        self._shift_s = 0.0  # for the next row to carry
        self._late: list[float] = []
        self._late_in_pace = 0
        self._late_heard_s = math.nan
        self._heard_s = math.nan  # when the last sample admitted was heard
        self._in_pace = 0
        self._recent = array("d", [math.nan] * REMEMBERED)  # a ring
        self._admitted = 0
        self._waiting: deque[Step] | tuple[()] = deque() if rule.delay else ()
        """Steps that the engine has seen and not yet spoken of, at most `delay`."""

    def admit(
        self,
        time_s: float,
        x: list[float],
        *,
        seq: int | None,
        counts: Counter[str],
        is_again: bool = False,
        is_stamped: bool = False,
        heard_s: float = math.nan,
    ) -> Sequence[Step]:
        """The rows that one sample leads to: none, itself, or bridged missing ones and itself.

        x: C values, changed in place. What was refused or bridged is added to `counts` by reason.
        is_again: the broker says that it may have delivered it before. is_stamped: its time is that
        of its arrival. heard_s: when it came, on a clock that nobody sets; NaN = unknown.
        """
        rule = self._rule
        since_s = time_s - self.last_s
        is_lost = False
        if seq is not None:
            if is_again and self.last_seq is not None and seq <= self.last_seq:
                counts["repeated"] += 1
                return ()
            is_lost = self._count_lost(seq, counts, is_new=since_s > 0)
        if since_s <= 0:
            if is_stamped and -since_s <= rule.max_gap_s:  # arrivals have an order, and no repeats
                time_s = self.last_s + rule.period_s / 2
                since_s = time_s - self.last_s
            elif not self._has_stepped_back(time_s, heard_s, counts, is_again=is_again):
                return ()
            else:
                since_s = time_s - self.last_s
        ahead_s = since_s - (heard_s - self._heard_s)  # NaN where nothing is known of arrivals
        if -rule.period_s <= 2 * ahead_s <= rule.period_s:
            self._in_pace += 1
        elif self._in_pace >= IN_PACE and ahead_s >= SHORTEST_STEP * rule.period_s and not is_lost:
            self._set_clock(ahead_s)  # the times ran ahead of their arrival: nothing is missing
            counts["clock_stepped_ahead"] += 1
        else:
            self._in_pace = 0
        if self._late:
            self._late.clear()
        self.last_s = time_s
        self._heard_s = heard_s
        self._recent[self._admitted % REMEMBERED] = time_s
        self._admitted += 1
        if self.sensors is not None:
            self.sensors.look(time_s, x, counts)
        if self._resampler is None:
            return self._follow(time_s, x, counts)
        rows = self._resampler.add(time_s, x)
        return [step for row_s, row in rows for step in self._follow(row_s, row, counts)]

    @property
    def admitted(self) -> int:
        """Samples since the process began."""
        return self._admitted

    @property
    def pace_s(self) -> tuple[float, float]:
        """Seconds between the last `REMEMBERED` samples, the median and the mean: what comes in
        bunches has a small median, what is missing makes for a large mean. NaN before so many."""
        first = self._admitted % REMEMBERED
        times = [*self._recent[first:], *self._recent[:first]]
        apart_s = [after - before for before, after in itertools.pairwise(times)]
        return median(apart_s), fmean(apart_s)

    def start_afresh(self) -> None:
        """Warm up again; the owner resets the engine's row."""
        self.warming_up = self._rule.warm_up
        if self._waiting:
            self._waiting.clear()

    def shift(self, by_s: float) -> None:
        """The sender's clock was set: what is still to be spoken of has its time on the new one."""
        self.spoken_s += by_s
        if self._waiting:
            shifted = [
                msgspec.structs.replace(step, time_s=step.time_s + by_s) for step in self._waiting
            ]
            self._waiting = deque(shifted)

    def about(self, step: Step) -> Step | None:
        """What the engine speaks of when it is given `step`: the one `delay` before it. None while
        there is none."""
        waiting = self._waiting
        if isinstance(waiting, tuple):
            return step
        waiting.append(step)
        return waiting.popleft() if len(waiting) > self._rule.delay else None

    def is_next_counted(self) -> bool:
        """Whether what is said with the next sample counts: not while warming up. To be asked once
        a sample."""
        if self.warming_up > 0:
            self.warming_up -= 1
            return False
        return True

    def remember(self) -> StreamMemory:
        """What `recall` takes."""
        return StreamMemory(
            last_s=self.last_s,
            last_seq=self.last_seq,
            warming_up=self.warming_up,
            spoken_s=self.spoken_s,
            late=self._late,
            waiting=list(self._waiting),
            absent=self.absent,
            silent_since_s=self.silent_since_s,
            sensors=None if self.sensors is None else self.sensors.remember(),
            rows=None
            if self._resampler is None
            else (self._row_s, self._shift_s, self._resampler.remember()),
        )

    def recall(self, memory: StreamMemory) -> None:
        """Be as the stream was that `memory` is of. Nothing is known of when its samples came; what
        the rule now in force has no use for is left out."""
        self.last_s, self.last_seq = memory.last_s, memory.last_seq
        self.warming_up, self.spoken_s = memory.warming_up, memory.spoken_s
        self.absent, self._late = set(memory.absent), list(memory.late)
        self._waiting = deque(memory.waiting) if self._rule.delay else ()
        self._row_s = memory.last_s
        self._recent[0] = memory.last_s
        self.silent_since_s = memory.silent_since_s
        if self.sensors is not None and memory.sensors is not None:
            self.sensors.recall(memory.sensors, time_s=memory.last_s)
        if self._resampler is not None and memory.rows is not None:
            self._row_s, self._shift_s, resampler = memory.rows
            self._resampler.recall(resampler)

    def _follow(self, time_s: float, x: Sequence[float], counts: Counter[str]) -> Sequence[Step]:
        """A row, and what it takes to come to it from the one before."""
        rule = self._rule
        since_s, shift_s = time_s - self._row_s, self._shift_s
        before_s, self._row_s, self._shift_s = self._row_s, time_s, 0.0
        if since_s < 1.5 * rule.period_s:
            if since_s < rule.period_s / 2:
                counts["too_fast"] += 1  # scored all the same, as one period further on
            return (Step(time_s, x, False, shift_s),)
        if math.isinf(since_s):
            return (Step(time_s, x, True),)
        steps = steps_between(before_s, time_s, period_s=rule.period_s)
        if since_s > rule.max_gap_s:
            counts["gap"] += 1
            return (Step(time_s, x, True, shift_s),)
        counts["bridged"] += steps - 1
        missing = [math.nan] * len(x)
        rows = [Step(before_s + since_s * k / steps, missing, False) for k in range(1, steps)]
        rows[0] = Step(rows[0].time_s, missing, False, shift_s)
        return (*rows, Step(time_s, x, False))

    def _has_stepped_back(
        self, time_s: float, heard_s: float, counts: Counter[str], *, is_again: bool
    ) -> bool:
        """A sample that is not later than the last one: refused, unless it proves that the sender's
        clock was set back. Then the stream goes on, if it was heard live, or starts afresh."""
        if time_s in self._recent:
            counts["repeated"] += 1
            return False
        if is_again:
            counts["late"] += 1
            return False
        late = self._late
        if late and time_s <= late[-1]:
            late.clear()
        apart_s = time_s - late[-1] - (heard_s - self._late_heard_s) if late else math.nan
        is_in_pace = abs(apart_s) <= self._rule.period_s / 2
        self._late_in_pace = self._late_in_pace + 1 if is_in_pace else 1
        self._late_heard_s = heard_s
        late.append(time_s)
        if self._in_pace >= IN_PACE and self._late_in_pace >= IN_PACE:
            since_s = max(heard_s - self._heard_s, self._rule.period_s / 2)
            self._set_clock(time_s - self.last_s - since_s)
        elif len(late) >= CLOCK_STEPPED_AFTER:
            self._row_s = -math.inf
            self._in_pace = 0
            self.last_s = -math.inf
            if self._resampler is not None:
                self._resampler.reset()
        else:
            counts["late"] += 1
            return False
        counts["clock_stepped_back"] += 1
        return True

    def _set_clock(self, by_s: float) -> None:
        """Go on as if the times had always been the sender's new ones."""
        self.last_s += by_s
        self._row_s += by_s
        self._shift_s += by_s
        if self.sensors is not None:
            self.sensors.shift(by_s)
        if self._resampler is not None:
            self._resampler.reset()

    def _count_lost(self, seq: int, counts: Counter[str], *, is_new: bool) -> bool:
        """A jump in the sender's running number: messages that never came. A sample in time may
        also begin the numbers anew, a late one may not."""
        last, is_lost = self.last_seq, False
        if last is not None and seq > last + 1:
            counts["lost"] += seq - last - 1
            is_lost = True
        self.last_seq = seq if is_new or last is None else max(seq, last)
        return is_lost
