"""Sensors that lie or say nothing: stuck, out of range, silent. Not anomalies: no model is asked.

A fault has an edge on when it has lasted, and an edge off when it is over.
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec

STUCK, RANGE, SILENT = "stuck", "range", "silent"
LARGEST = sys.float_info.max
"""No sensor reads infinity."""
NEVER = 1 << 62
"""Samples."""
SLACK = 0.5
"""Of a period, by which a duration may fall short: samples come unevenly."""
FEWEST_SILENT = 3
"""Samples without a channel; one that is late is not silent."""


class ChannelRule(msgspec.Struct, frozen=True):
    """What one channel's values may be."""

    low: float = -math.inf
    """Below it a value is missing: it cannot be."""
    high: float = math.inf
    usual_low: float = -math.inf
    """Below it a value is said to be out of range, and scored all the same."""
    usual_high: float = math.inf
    stuck_after: int = 0
    """Stuck with one and the same value in so many samples, and for as many periods; 0 = never."""
    silent_after: int = 0
    """Silent without a value for so many periods in which others came; 0 = never."""


class SensorRule(msgspec.Struct, frozen=True):
    """What every stream of an agent has in common."""

    channels: tuple[ChannelRule, ...]
    period_s: float
    range_after: int
    """Values out of range in a row, until it is said."""
    range_recover: int
    """Values in range in a row, until it is over."""
    low: tuple[float, ...]
    """C: the narrower of the two ranges, where looking closer begins."""
    high: tuple[float, ...]
    stuck_after: tuple[int, ...]
    """C: samples in a row that do not change the value, from which on looking closer begins."""

    @classmethod
    def of(
        cls,
        channels: Sequence[ChannelRule],
        *,
        period_s: float,
        range_after: int = 3,
        range_recover: int = 30,
    ) -> "SensorRule":
        return cls(
            channels=tuple(channels),
            period_s=period_s,
            range_after=range_after,
            range_recover=range_recover,
            low=tuple(max(one.low, one.usual_low, -LARGEST) for one in channels),
            high=tuple(min(one.high, one.usual_high, LARGEST) for one in channels),
            stuck_after=tuple(
                one.stuck_after - 1 if one.stuck_after else NEVER for one in channels
            ),
        )


class Fault(msgspec.Struct, frozen=True):
    """A sensor's fault that began or ended."""

    kind: str
    """"stuck", "range" or "silent"."""
    channel: int | None
    """None = the whole stream."""
    is_on: bool
    time_s: float
    """Sample time of the edge."""
    onset_s: float
    """Time of the first sample out of range, of the first with the same value, of the last that had
    one."""
    value: float
    """What the channel showed at the edge; NaN = nothing."""
    samples: int
    """How many have shown it."""
    is_forgotten: bool = False
    """It ended because nobody waits for the stream any more."""
    is_firm: bool = True
    """Whether a value out of range is impossible, or only far from what was learnt."""


class Run(msgspec.Struct, array_like=True):
    """Samples in a row that show one fault of one channel, and whether it was said."""

    onset_s: float
    bad: int = 0
    good: int = 0
    is_on: bool = False
    is_firm: bool = True


class SensorsMemory(msgspec.Struct, frozen=True, array_like=True):
    """What `Sensors` know, to be kept: of sensors that move and speak, nothing."""

    still: dict[int, tuple[float, int, float, bool]]
    """Channel → value, samples that did not change it, since when, and whether that was said."""
    runs: dict[int, dict[str, Run]]


class Sensors:
    """All channels of one stream, sample by sample."""

    __slots__ = (
        "_high",
        "_is_stuck",
        "_last",
        "_low",
        "_rule",
        "_runs",
        "_since_s",
        "_still",
        "_stuck_after",
        "_time_s",
        "faults",
    )

    def __init__(self, rule: SensorRule) -> None:
        channels = rule.channels
        self.faults: list[Fault] = []
        """Edges that nobody has taken yet."""
        self._rule = rule
        # lists beside each other, not an object a channel: this runs for every value
        self._low = rule.low
        self._high = rule.high
        self._stuck_after = rule.stuck_after
        self._last = [math.nan] * len(channels)
        self._still = [0] * len(channels)  # samples in a row that did not change the value
        self._is_stuck = [False] * len(channels)
        self._since_s = [math.nan] * len(channels)  # time of the first sample with that value
        self._runs: list[dict[str, Run] | None] = [None] * len(channels)  # of range and silence
        self._time_s = -math.inf

    @property
    def names(self) -> list[tuple[int, str]]:
        """What is wrong now: (channel, kind)."""
        found = [(c, STUCK) for c, is_stuck in enumerate(self._is_stuck) if is_stuck]
        for c, runs in enumerate(self._runs):
            found += [(c, kind) for kind, run in (runs or {}).items() if run.is_on]
        return sorted(found)

    def look(self, time_s: float, x: list[float], counts: Counter[str]) -> None:
        """Take one sample, C values: those that cannot be become NaN in place. Edges are added to
        `faults`, counts to `counts`."""
        last, still, runs = self._last, self._still, self._runs
        low, high, stuck_after = self._low, self._high, self._stuck_after
        for c, value in enumerate(x):
            if value == last[c]:
                still[c] += 1
                if still[c] == 1:
                    self._since_s[c] = self._time_s
                if still[c] >= stuck_after[c]:
                    self._stand(c, time_s, value)
            elif low[c] <= value <= high[c]:
                last[c] = value
                if still[c]:
                    self._move(c, time_s, value)
            else:
                x[c] = self._doubt(c, time_s, value, counts)
                continue
            if runs[c] is not None:
                self._show_good(c, time_s, value)
        self._time_s = time_s

    def remember(self) -> SensorsMemory:
        """What `recall` takes."""
        return SensorsMemory(
            still={
                c: (self._last[c], still, self._since_s[c], self._is_stuck[c])
                for c, still in enumerate(self._still)
                if still
            },
            runs={c: runs for c, runs in enumerate(self._runs) if runs},
        )

    def recall(self, memory: SensorsMemory, *, time_s: float) -> None:
        """Be as those were that `memory` is of, whose last sample's time was `time_s`."""
        for c, (last, still, since_s, is_stuck) in memory.still.items():
            self._last[c], self._still[c] = last, still
            self._since_s[c], self._is_stuck[c] = since_s, is_stuck
        for c, runs in memory.runs.items():
            self._runs[c] = runs
        self._time_s = time_s

    def shift(self, by_s: float) -> None:
        """The sender's clock was set: all that is remembered is on the new one."""
        self._time_s += by_s
        self._since_s = [since_s + by_s for since_s in self._since_s]
        for runs in self._runs:
            for run in (runs or {}).values():
                run.onset_s += by_s

    def end(self) -> None:
        """Every fault that is on ends, as its stream is forgotten."""
        for c in range(len(self._still)):
            self._move(c, self._time_s, math.nan)
            for kind, run in (self._runs[c] or {}).items():
                if run.is_on:
                    self._end(kind, c, run, self._time_s, math.nan)
            self._runs[c] = None
        self.faults = [msgspec.structs.replace(one, is_forgotten=True) for one in self.faults]

    def _doubt(self, c: int, time_s: float, value: float, counts: Counter[str]) -> float:
        """A value that is missing, or outside one of its ranges: what is to be scored of it."""
        if value != value:
            after = self._rule.channels[c].silent_after
            run = self._show_bad(SILENT, c, time_s)
            has_lasted = self._has_lasted(time_s - run.onset_s, after)
            if after and run.bad >= FEWEST_SILENT and has_lasted and not run.is_on:
                run.is_on = True
                self._say(SILENT, c, run.onset_s, (time_s, value, run.bad))
            return math.nan
        if self._still[c]:
            self._move(c, time_s, value)
        self._last[c] = math.nan
        rule = self._rule.channels[c]
        is_firm = math.isinf(value) or not rule.low <= value <= rule.high
        counts["out_of_range" if is_firm else "far_off"] += 1
        if (self._runs[c] or {}).get(SILENT) is not None:
            self._show_good(c, time_s, value, kinds=(SILENT,))
        run = self._show_bad(RANGE, c, time_s)
        run.good = 0
        run.is_firm = is_firm
        if run.bad >= self._rule.range_after and not run.is_on:
            run.is_on = True
            self._say(RANGE, c, run.onset_s, (time_s, value, run.bad), is_firm=is_firm)
        return math.nan if is_firm else value

    def _show_bad(self, kind: str, c: int, time_s: float) -> Run:
        runs = self._runs[c]
        if runs is None:
            runs = self._runs[c] = {}
        known = runs.get(kind)
        is_gap = kind == SILENT and time_s - self._time_s > self._longest_pause_s(c)
        if known is None or (is_gap and not known.is_on):  # in a gap nobody came
            is_first = kind == RANGE or is_gap or math.isinf(self._time_s)
            runs[kind] = Run(time_s if is_first else self._time_s)
        runs[kind].bad += 1
        return runs[kind]

    def _longest_pause_s(self, c: int) -> float:
        """Between two samples of a stream that goes on; a longer one is no silence of a channel."""
        return max(2.0, self._rule.channels[c].silent_after / 4) * self._rule.period_s

    def _show_good(
        self, c: int, time_s: float, value: float, *, kinds: Sequence[str] = (SILENT, RANGE)
    ) -> None:
        """A value: the channel is not silent. In range: one sample more that is good."""
        runs = self._runs[c]
        assert runs is not None
        for kind in kinds:
            if (run := runs.get(kind)) is None:
                continue
            run.good += 1
            if run.is_on and kind == RANGE and run.good < self._rule.range_recover:
                continue
            if run.is_on:
                self._end(kind, c, run, time_s, value)
            del runs[kind]
        if not runs:
            self._runs[c] = None

    def _stand(self, c: int, time_s: float, value: float) -> None:
        """The value was the same for enough samples; it must also be so for long enough."""
        lasted_s = time_s - self._since_s[c]
        if not self._is_stuck[c] and self._has_lasted(lasted_s, self._stuck_after[c]):
            self._is_stuck[c] = True
            self._say(STUCK, c, self._since_s[c], (time_s, value, self._still[c] + 1))

    def _has_lasted(self, seconds: float, periods: int) -> bool:
        return seconds >= (periods - SLACK) * self._rule.period_s

    def _move(self, c: int, time_s: float, value: float) -> None:
        """The value is another one."""
        if self._is_stuck[c]:
            self._is_stuck[c] = False
            self.faults.append(
                Fault(STUCK, c, False, time_s, self._since_s[c], value, self._still[c] + 1)
            )
        self._still[c] = 0

    def _say(
        self,
        kind: str,
        c: int,
        onset_s: float,
        shown: tuple[float, float, int],
        *,
        is_firm: bool = True,
    ) -> None:
        time_s, value, samples = shown
        fault = Fault(kind, c, True, time_s, onset_s, value, samples, is_firm=is_firm)
        self.faults.append(fault)

    def _end(self, kind: str, c: int, run: Run, time_s: float, value: float) -> None:
        self.faults.append(
            Fault(kind, c, False, time_s, run.onset_s, value, run.bad, is_firm=run.is_firm)
        )
