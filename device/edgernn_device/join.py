"""Values that arrive apart, each with its own time → samples on the grid of the period.

A sample holds every channel's last value up to its time, unless that is older than `hold_s`. Times
are arguments: sample times in seconds since 1970, and `now_s` of a clock that never steps.
"""

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterator

import msgspec

from edgernn.errors import EdgernnError
from edgernn_device.payload import LARGEST_TIME_S, RawSample

ON_TIME = 1e-3
"""Periods that a value may come after a point of the grid and still be of it: times are rounded."""
LONGEST_HOLD_S = 30 * 86_400.0
STEPPED_AFTER = 30
"""Values more that were late than were not: the senders' clocks were set back."""

Joined = tuple[str, RawSample]
"""A stream and one sample of it."""


class JoinRule(msgspec.Struct, frozen=True):
    """What every stream has in common."""

    period_s: float
    """Samples are at whole multiples of it since 1970, wherever the agent began."""
    hold_s: float
    """A value stands for its channel this long; then the channel is missing."""
    wait_s: float
    """A sample is given out this long after its time, or when a value so much later has come."""
    max_gap_s: float
    """After a longer jump in time nothing is held: the stream starts afresh."""

    @classmethod
    def for_period(
        cls,
        period_s: float,
        *,
        hold_s: float | None = None,
        wait_s: float | None = None,
        max_gap_s: float,
        where: str,
    ) -> "JoinRule":
        """With defaults. Raises EdgernnError for a hold that leaves every sample with holes."""
        if hold_s is not None and not period_s <= hold_s <= LONGEST_HOLD_S:
            raise EdgernnError(
                f"{where}.hold_s: expected at least the period, {period_s:g} s, and at most "
                f"{LONGEST_HOLD_S:.10g} s, got {hold_s:g}"
            )
        return cls(
            period_s=period_s,
            hold_s=5 * period_s if hold_s is None else hold_s,
            wait_s=min(period_s / 2, 2.0) if wait_s is None else wait_s,
            max_gap_s=max_gap_s,
        )


class Cell(msgspec.Struct, frozen=True):
    """One value of one channel."""

    time_s: float
    value: float
    """NaN: the sender said that there is none."""
    seq: int | None


class JoinState(msgspec.Struct):
    """All that is remembered of one stream: of each channel a few values."""

    slot: int
    """The last point of the grid that is settled, in periods since 1970."""
    clock_s: float
    """The latest time that a value had."""
    held: dict[str, Cell] = {}
    """Channel → its last value up to `slot`."""
    pending: dict[int, dict[str, Cell]] = {}
    """Later point of the grid → channel → the last value before it."""
    ahead: list[RawSample] = []
    """A first one that is far ahead of the others; believed when a second one is."""
    late: int = 0


class Join:
    """All streams. Not for several threads at once."""

    def __init__(self, rule: JoinRule, channels: Collection[str], *, max_streams: int) -> None:
        """`channels`: others are left out and counted. Of at most `max_streams` streams values are
        held at a time; a further one is refused and counted."""
        self.counts: Counter[str] = Counter()
        """Values left out or lost, by reason."""
        self._rule = rule
        self._channels = frozenset(channels)
        self._max_streams = max_streams
        self._streams: dict[str, JoinState] = {}
        self._heard_s: dict[str, float] = {}
        """Stream → `now_s` when `clock_s` last moved."""
        self._due: list[tuple[float, str]] = []
        """Heap: `now_s` from which a stream is worth a look; each stream once."""
        self._recalled: list[str] = []
        """Streams whose state was given back, until it is known what time it is."""
        self._touched: dict[str, None] = {}

    def __len__(self) -> int:
        """Streams of which something is held."""
        return len(self._streams)

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def __contains__(self, name: str) -> bool:
        return name in self._streams

    def add(self, name: str, sample: RawSample, *, now_s: float) -> list[Joined]:
        """Take what one message said of some channels. Returns the samples that it completes."""
        values = {key: value for key, value in sample.values.items() if key in self._channels}
        if len(values) < len(sample.values):
            self.counts["unknown_channel"] += len(sample.values) - len(values)
        if odd := self._channels & (sample.odd or {}).keys():
            self.counts["not_a_number"] += len(odd)
            values |= dict.fromkeys(odd, math.nan)
        if not values:
            return []
        self._greet(now_s)
        sample = RawSample(time_s=sample.time_s, seq=sample.seq, values=values)
        state = self._streams.get(name)
        if state is None and len(self._streams) >= self._max_streams:
            self.counts["too_many_streams"] += 1
            return []
        self._touched[name] = None
        if is_new := state is None:
            state = self._streams[name] = JoinState(slot=0, clock_s=0.0)
            self._begin(state, sample.time_s)
        elif sample.time_s > self._clock_of(name, now_s) + self._far_s:
            if not state.ahead:
                state.ahead = [sample]
                return []
            return [(name, one) for one in self._jump(name, sample, now_s)]
        else:
            state.ahead = []
        self._put(state, sample)
        self._move_clock(name, sample.time_s, now_s)
        if is_new:
            self._look_again(name)
        return [(name, one) for one in self._settle(state, self._complete(state.clock_s))]

    def due(self, now_s: float) -> list[Joined]:
        """The samples that are complete because time has passed: their senders are silent."""
        self._greet(now_s)
        found: list[Joined] = []
        names = []
        while self._due and self._due[0][0] <= now_s:
            names.append(heapq.heappop(self._due)[1])
        for name in names:
            self._touched[name] = None
            state = self._streams[name]
            complete = self._complete(self._clock_of(name, now_s))
            found += [(name, one) for one in self._settle(state, complete)]
            if state.ahead and not (state.held or state.pending):
                found += [(name, one) for one in self._jump(name, state.ahead[0], now_s)]
            if state.held or state.pending:
                self._look_again(name)
            else:
                del self._streams[name], self._heard_s[name]
        return found

    def state_of(self, name: str) -> JoinState | None:
        """What is remembered of a stream, to be written down at once: it goes on changing."""
        return self._streams.get(name)

    def set_state(self, name: str, state: JoinState) -> None:
        """Go on where a stream was. Raises ValueError if it cannot have been there."""
        cells = [cell for some in (state.held, *state.pending.values()) for cell in some.values()]
        times = [state.clock_s, *(cell.time_s for cell in cells)]
        times += [sample.time_s for sample in state.ahead]
        if not all(0 <= time_s < LARGEST_TIME_S for time_s in times):
            raise ValueError("what is held of a stream is of no time")
        clock = self._slot_of(state.clock_s)
        hold = math.ceil(self._rule.hold_s / self._rule.period_s)
        if (
            not -self._most - 1 <= state.slot - clock <= self._most + hold + 1
            or any(not 0 < slot - state.slot <= self._most + 1 for slot in state.pending)
            or len(state.ahead) > 1
        ):
            raise ValueError("what is held of a stream does not fit the period")
        self._streams[name] = state
        self._recalled.append(name)

    def forget(self, name: str) -> None:
        """Nothing is held of a stream any more."""
        self._streams.pop(name, None)
        self._heard_s.pop(name, None)
        self._due = [entry for entry in self._due if entry[1] != name]
        heapq.heapify(self._due)
        self._recalled = [one for one in self._recalled if one != name]
        self._touched[name] = None

    def forget_all(self) -> None:
        """As if nothing had come yet; what was counted stays."""
        for memory in (self._streams, self._heard_s, self._due, self._recalled):
            memory.clear()

    def touched(self) -> list[str]:
        """Streams of which something changed since this was last asked."""
        names, self._touched = list(self._touched), {}
        return names

    def _greet(self, now_s: float) -> None:
        for name in self._recalled:
            if name not in self._heard_s:
                self._heard_s[name] = now_s
                self._look_again(name)
        self._recalled.clear()

    @property
    def _far_s(self) -> float:
        """A value so much later than expected is of another clock."""
        return max(self._rule.max_gap_s, self._rule.period_s) + self._rule.wait_s

    @property
    def _most(self) -> int:
        """Points of the grid that what is held is carried on over, in one go."""
        return math.ceil(self._far_s / self._rule.period_s) + 1

    def _clock_of(self, name: str, now_s: float) -> float:
        """What time it is where the stream is from, as its values tell."""
        return self._streams[name].clock_s + max(0.0, now_s - self._heard_s[name])

    def _move_clock(self, name: str, time_s: float, now_s: float) -> None:
        state = self._streams[name]
        if time_s > state.clock_s:
            state.clock_s = time_s
            self._heard_s[name] = now_s

    def _jump(self, name: str, sample: RawSample, now_s: float) -> list[RawSample]:
        """A second value, or silence after the first, says that it is much later now."""
        state = self._streams[name]
        found = self._settle(state, self._slot_of(state.clock_s))
        first, state.ahead = state.ahead[0], []
        self._begin(state, min(first.time_s, sample.time_s))
        for one in (first, sample) if sample is not first else (first,):
            self._put(state, one)
            self._move_clock(name, one.time_s, now_s)
        return found + self._settle(state, self._complete(state.clock_s))

    def _begin(self, state: JoinState, time_s: float) -> None:
        """Afresh, with a value of this time to come next."""
        state.slot, state.clock_s = self._slot_of(time_s) - 1, -math.inf
        state.held, state.pending, state.late = {}, {}, 0

    def _put(self, state: JoinState, sample: RawSample) -> None:
        """Each value to the first point of the grid that is not before it; of a point that is
        settled, to what is held from there on."""
        slot = self._slot_of(sample.time_s)
        fresh: dict[str, Cell] = {}
        lost = late = 0
        for name, value in sample.values.items():
            last = _last(state, name, slot)
            cell = Cell(sample.time_s, value, sample.seq)
            if last is not None and last.time_s == sample.time_s:
                self.counts["repeated_value"] += 1
            elif (last is not None and last.time_s > sample.time_s) or self._is_too_old(
                cell, state.slot * self._rule.period_s
            ):
                late += 1
            else:
                fresh[name] = cell
                if last is not None and last.seq is not None and sample.seq is not None:
                    lost = max(lost, sample.seq - last.seq - 1)
        if fresh:
            (state.held if slot <= state.slot else state.pending.setdefault(slot, {})).update(fresh)
        state.late = state.late + 1 if late else max(0, state.late - 1)
        if state.late >= STEPPED_AFTER:
            self.counts["clock_stepped_back"] += 1
            self._begin(state, sample.time_s)
            self._put(state, sample)
            return
        if late:
            self.counts["late_value"] += late
        if lost:
            self.counts["lost"] += lost

    def _settle(self, state: JoinState, until: int) -> list[RawSample]:
        """The samples up to a point of the grid; nothing is awaited of them any more."""
        rule = self._rule
        found: list[RawSample] = []
        while state.slot < until and (state.held or state.pending):
            following = min(state.pending, default=until + 1)
            if following - state.slot > self._most:
                state.held.clear()
            if not state.held and following > until:
                break
            state.slot = state.slot + 1 if state.held else following
            state.held |= state.pending.pop(state.slot, {})
            time_s = state.slot * rule.period_s
            for name in [n for n, c in state.held.items() if self._is_too_old(c, time_s)]:
                del state.held[name]
            if state.held:
                values = {name: cell.value for name, cell in state.held.items()}
                found.append(RawSample(time_s=time_s, seq=None, values=values))
        state.slot = max(state.slot, until)
        return found

    def _is_too_old(self, cell: Cell, time_s: float) -> bool:
        return time_s - cell.time_s > self._rule.hold_s + ON_TIME * self._rule.period_s

    def _slot_of(self, time_s: float) -> int:
        return math.ceil(time_s / self._rule.period_s - ON_TIME)

    def _complete(self, clock_s: float) -> int:
        """The last point of the grid of which, at this time of a stream, nothing is awaited."""
        return self._slot_of(clock_s - self._rule.wait_s) - 1

    def _look_again(self, name: str) -> None:
        """When the next point of the grid is complete."""
        state, rule = self._streams[name], self._rule
        next_s = (state.slot + 1 + 2 * ON_TIME) * rule.period_s + rule.wait_s
        heapq.heappush(self._due, (self._heard_s[name] + next_s - state.clock_s, name))


def _last(state: JoinState, name: str, slot: int) -> Cell | None:
    """The last value of a channel up to a point of the grid."""
    places = [(n, cells[name]) for n, cells in state.pending.items() if n <= slot and name in cells]
    return max(places, key=lambda place: place[0])[1] if places else state.held.get(name)
