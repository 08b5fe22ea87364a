"""One stream's order: what to do with late, repeated and missing samples. No clock, no socket."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence

import msgspec

from edgernn.times import steps_between

CLOCK_STEPPED_AFTER = 30
"""Late samples in a row, each later than the one before: not late, the sender's clock was set
back. The stream starts afresh on the new time."""


class StreamRule(msgspec.Struct, frozen=True):
    """What every stream of an agent has in common."""

    period_s: float
    warm_up: int
    """Samples after a fresh start with which nothing is said that counts."""
    max_gap_s: float
    """Up to this, missing samples are bridged; a longer gap starts afresh."""
    delay: int = 0
    """Samples that what is said comes after the one it is about."""


class Step(msgspec.Struct, frozen=True):
    """One row for the engine."""

    time_s: float
    x: Sequence[float]
    """C values in sensor units, NaN = missing."""
    is_fresh: bool
    """Reset the stream's states, and what was said of it, before this row."""


class StreamMemory(msgspec.Struct, frozen=True, array_like=True):
    """All that a `Stream` knows, to be kept."""

    last_s: float
    last_seq: int | None
    warming_up: int
    spoken_s: float
    late: list[float]
    waiting: list[Step]
    absent: set[int]


class Stream:
    """Order, gaps and warm-up of one stream."""

    __slots__ = (
        "_late",
        "_rule",
        "_waiting",
        "absent",
        "last_s",
        "last_seq",
        "name",
        "row",
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
        self.spoken_s = -math.inf
        """Time of the last sample that something was said of."""
        self.last_seq: int | None = None
        self._rule = rule
        self._late: list[float] = []
        self._waiting: deque[Step] = deque()
        """Steps that the engine has seen and not yet spoken of, at most `delay`."""

    def admit(
        self, time_s: float, x: Sequence[float], *, seq: int | None, counts: Counter[str]
    ) -> Iterator[Step]:
        """The rows that one sample leads to: none, itself, or bridged missing ones and itself.

        x: C values. What was refused or bridged is added to `counts` by reason.
        """
        self._count_lost(seq, counts, is_new=time_s > self.last_s)
        is_fresh = math.isinf(self.last_s)
        if time_s <= self.last_s:
            if not self._has_clock_stepped(time_s):
                counts["repeated" if time_s == self.last_s else "late"] += 1
                return
            counts["clock_stepped_back"] += 1
            is_fresh = True
        self._late.clear()
        if not is_fresh:
            if time_s - self.last_s < self._rule.period_s / 2:
                counts["too_fast"] += 1  # scored all the same, as one period further on
            steps = steps_between(self.last_s, time_s, period_s=self._rule.period_s)
            if steps > 1 and time_s - self.last_s > self._rule.max_gap_s:
                counts["gap"] += 1
                is_fresh = True
            elif steps > 1:
                counts["bridged"] += steps - 1
                yield from self._bridge(time_s, steps, len(x))
        self.last_s = time_s
        yield Step(time_s=time_s, x=x, is_fresh=is_fresh)

    def start_afresh(self) -> None:
        """Warm up again; the owner resets the engine's row."""
        self.warming_up = self._rule.warm_up
        self._waiting.clear()

    def about(self, step: Step) -> Step | None:
        """What the engine speaks of when it is given `step`: the one `delay` before it. None while
        there is none."""
        if not self._rule.delay:
            return step
        self._waiting.append(step)
        return self._waiting.popleft() if len(self._waiting) > self._rule.delay else None

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
        )

    def recall(self, memory: StreamMemory) -> None:
        """Be as the stream was that `memory` is of."""
        self.last_s, self.last_seq = memory.last_s, memory.last_seq
        self.warming_up, self.spoken_s = memory.warming_up, memory.spoken_s
        self.absent, self._late = set(memory.absent), list(memory.late)
        self._waiting = deque(memory.waiting)

    def _bridge(self, time_s: float, steps: int, channels: int) -> Iterator[Step]:
        missing = [math.nan] * channels
        for k in range(1, steps):
            between_s = self.last_s + (time_s - self.last_s) * k / steps
            yield Step(time_s=between_s, x=missing, is_fresh=False)

    def _has_clock_stepped(self, time_s: float) -> bool:
        if self._late and time_s <= self._late[-1]:
            self._late.clear()
        self._late.append(time_s)
        return len(self._late) >= CLOCK_STEPPED_AFTER

    def _count_lost(self, seq: int | None, counts: Counter[str], *, is_new: bool) -> None:
        """A jump in the sender's running number: messages that never came. A sample in time may
        also begin the numbers anew, a late one may not."""
        if seq is None:
            return
        if self.last_seq is not None and seq > self.last_seq + 1:
            counts["lost"] += seq - self.last_seq - 1
        self.last_seq = seq if is_new or self.last_seq is None else max(seq, self.last_seq)
