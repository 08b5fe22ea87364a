"""One stream's alarm: off → pending → on → recovering → off. Times and scores are arguments."""

import math
from enum import StrEnum

import msgspec

from edgernn.calibration import check_rule, enter_threshold, leave_threshold
from edgernn.card import AlarmRule, Card
from edgernn.times import is_kept_time

CRITICAL_ABOVE = 3.0
"""An alert is critical when its score is this far above the threshold: a thousand times rarer."""


class AlarmState(StrEnum):
    OFF = "off"
    PENDING = "pending"
    ON = "on"
    RECOVERING = "recovering"


class Edge(msgspec.Struct, frozen=True):
    """An alarm that went on or off."""

    is_on: bool
    time_s: float
    """Sample time of the edge, seconds since 1970."""
    onset_s: float
    """Sample time of the first sample of this alarm above the threshold."""
    score: float
    """The score at an on-edge; the highest of the alarm at an off-edge."""


class Limits(msgspec.Struct, frozen=True):
    """An alarm rule turned into numbers."""

    enter: float
    leave: float
    min_duration_s: float
    recover_s: float
    cooldown_s: float

    @classmethod
    def from_rule(cls, rule: AlarmRule, card: Card, *, where: str = "alarm") -> "Limits":
        """Raises EdgernnError for a budget or duration that makes no sense."""
        check_rule(rule, where=where)
        enter = enter_threshold(rule, card.tails, period_s=card.period_s)
        return cls(
            enter=enter,
            leave=leave_threshold(enter),
            min_duration_s=rule.min_duration_s,
            recover_s=rule.recover_s,
            cooldown_s=rule.cooldown_s,
        )

    def severity(self, score: float) -> str:
        """ "warning", or "critical" for a score far above the threshold."""
        return "critical" if score >= self.enter + CRITICAL_ABOVE else "warning"


class AlarmMemory(msgspec.Struct, frozen=True, array_like=True):
    """All that an `Alarm` knows, to be kept."""

    state: AlarmState
    since_s: float
    onset_s: float
    peak: float
    off_since_s: float


class Alarm:
    """Hysteresis, minimum duration and cool-down over one stream's scores."""

    __slots__ = ("_limits", "_off_since", "_onset", "_peak", "_since", "state")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.reset()

    def reset(self) -> None:
        """Forget everything: no alarm, no cool-down."""
        self.state = AlarmState.OFF
        self._since = -math.inf  # when the state was entered
        self._onset = -math.inf
        self._peak = 0.0
        self._off_since = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether an on-edge went out and no off-edge yet."""
        return self.state in (AlarmState.ON, AlarmState.RECOVERING)

    @property
    def since_s(self) -> float:
        """Sample time at which the present state began."""
        return self._since

    def remember(self) -> AlarmMemory:
        """What `recall` takes."""
        return AlarmMemory(self.state, self._since, self._onset, self._peak, self._off_since)

    def recall(self, memory: AlarmMemory) -> None:
        """Be as the alarm was that `memory` is of. Raises ValueError if none can have been."""
        if not all(map(is_kept_time, (memory.since_s, memory.onset_s, memory.off_since_s))):
            raise ValueError("an alarm of no time")
        self.state, self._since, self._onset, self._peak, self._off_since = (
            memory.state,
            memory.since_s,
            memory.onset_s,
            memory.peak,
            memory.off_since_s,
        )

    def update(self, time_s: float, score: float) -> Edge | None:
        """Take one score; return the edge if the alarm went on or off with it.

        A NaN score (nothing was observed) is no evidence in either direction and changes nothing.
        """
        if math.isnan(score):
            return None
        limits = self._limits
        self._since = time_s if self._since == -math.inf else self._since  # the first
        if self.state is AlarmState.OFF and score >= limits.enter:
            self._enter(AlarmState.PENDING, time_s)
            self._onset, self._peak = time_s, score
        if self.state is AlarmState.PENDING:
            return self._pending(time_s, score)
        if self.is_on:
            self._peak = max(self._peak, score)
            if score >= limits.leave:
                if self.state is AlarmState.RECOVERING:
                    self._enter(AlarmState.ON, time_s)
                return None
            if self.state is AlarmState.ON:
                self._enter(AlarmState.RECOVERING, time_s)
            if time_s - self._since >= limits.recover_s:
                return self.end(time_s)
        return None

    def end(self, time_s: float) -> Edge | None:
        """Switch the alarm off at once, as when its stream is reset; None if it was not on."""
        was_on = self.is_on
        self._enter(AlarmState.OFF, time_s)
        if not was_on:
            return None
        self._off_since = time_s
        return Edge(is_on=False, time_s=time_s, onset_s=self._onset, score=self._peak)

    def shift(self, by_s: float) -> None:
        """The clock of the samples was set: what is remembered of them goes with it, so that no
        duration is longer, shorter or negative for it."""
        self._since += by_s
        self._onset += by_s
        self._off_since += by_s

    def _pending(self, time_s: float, score: float) -> Edge | None:
        if score < self._limits.enter:
            self._enter(AlarmState.OFF, time_s)
            return None
        self._peak = max(self._peak, score)
        has_lasted = time_s - self._onset >= self._limits.min_duration_s
        has_cooled = time_s - self._off_since >= self._limits.cooldown_s
        if not (has_lasted and has_cooled):
            return None
        self._enter(AlarmState.ON, time_s)
        return Edge(is_on=True, time_s=time_s, onset_s=self._onset, score=score)

    def _enter(self, state: AlarmState, time_s: float) -> None:
        self.state = state
        self._since = time_s
