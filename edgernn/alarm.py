"""One stream's alarm: off → pending → on → recovering → off. Times and scores are arguments."""

import math
from enum import StrEnum

import msgspec

from edgernn.calibration import (
    LARGEST_SCORE,
    check_rule,
    enter_threshold,
    leave_threshold,
    parse_budget,
)
from edgernn.card import AlarmRule, Card, Tail
from edgernn.steering import HIGHEST, Steering
from edgernn.times import is_kept_time

CRITICAL_ABOVE = 3.0
"""An alert is critical when its score is this far above the threshold: a thousand times rarer."""
WORSE = 1.5
"""Times the score last told that a score must be to be news while it is quiet."""
LONGEST_QUIET = 0.1
"""Of the interval that the budget asks for: more, and being quiet would be why it is not met."""
FADING = 5.0
"""Times `quiet_s` in which what was told then fades, by a factor of e."""


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
    threshold: float
    """At which the alarm went on."""

    @property
    def severity(self) -> str:
        """ "warning", or "critical" for a score far above the threshold."""
        return "critical" if self.score >= self.threshold + CRITICAL_ABOVE else "warning"


class Limits(msgspec.Struct, frozen=True):
    """An alarm rule turned into numbers."""

    enter: float
    """Where the budget and the calibration have it; steering begins there."""
    leave: float
    """Where an alarm at `enter` recovers."""
    min_duration_s: float
    recover_s: float
    cooldown_s: float
    quiet_s: float = 0.0
    steering: Steering | None = None
    """None = the threshold stays where it is."""
    leave_asked: float = 0.0
    """Where an alarm recovers wherever the threshold is; 0 = as that follows from it."""

    @classmethod
    def from_rule(cls, rule: AlarmRule, card: Card, *, where: str = "alarm") -> "Limits":
        """Raises EdgernnError for a budget or duration that makes no sense."""
        check_rule(rule, where=where)
        return cls.for_tails(rule, card.tails, period_s=card.period_s)

    @classmethod
    def for_tails(cls, rule: AlarmRule, tails: tuple[Tail, ...], *, period_s: float) -> "Limits":
        """Of a rule that makes sense."""
        enter = enter_threshold(rule, tails, period_s=period_s)
        budget = parse_budget(rule.false_alarms)
        return cls(
            enter=enter,
            leave=leave_threshold(
                enter, recover_samples=rule.recover_s / period_s, asked=rule.leave
            ),
            leave_asked=rule.leave,
            min_duration_s=rule.min_duration_s,
            recover_s=rule.recover_s,
            cooldown_s=rule.cooldown_s,
            quiet_s=min(rule.quiet_s, LONGEST_QUIET / budget),
            steering=Steering.for_budget(budget, period_s=period_s, enter=enter)
            if rule.steered
            else None,
        )

    def without_memory(self) -> "Limits":
        """Every alarm judged alike: the threshold stays, and the quiet is a plain cool-down. For
        comparing scores, of which one that differs would else move all that follows."""
        cooldown_s = max(self.cooldown_s, self.quiet_s)
        return msgspec.structs.replace(self, cooldown_s=cooldown_s, quiet_s=0.0, steering=None)

    def __str__(self) -> str:
        text = f"at score {self.enter:.2f}"
        if self.steering is None:
            return text
        low, high = self.enter + self.steering.lowest, self.enter + HIGHEST
        return f"{text}, which steers itself between {low:.2f} and {high:.2f}"


class AlarmMemory(msgspec.Struct, frozen=True, array_like=True):
    """All that an `Alarm` knows, to be kept."""

    state: AlarmState
    since_s: float
    onset_s: float
    peak: float
    off_since_s: float
    told: float = 0.0
    heard_s: float = -math.inf
    offset: float | None = None
    """None in what was kept before thresholds steered themselves."""


def quiet_bar(told: float, age_s: float, quiet_s: float) -> float:
    """The score above which something is news, so long after `told` was: for `quiet_s` what is
    half as high again, then what was told, ever less. 0 where nothing is kept quiet."""
    if quiet_s == 0 or told == 0:
        return 0.0
    if age_s <= quiet_s:
        return WORSE * told
    return told * math.exp(-(age_s - quiet_s) / (FADING * quiet_s))


class Alarm:
    """Hysteresis, minimum duration, cool-down and quiet over one stream's scores, at a threshold
    that may steer itself. It stands still while the alarm is on: an alarm ends as it began."""

    __slots__ = (
        "_heard_s",
        "_limits",
        "_off_since",
        "_offset",
        "_onset",
        "_peak",
        "_since",
        "_told",
        "state",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._offset = 0.0 if limits.steering is None else limits.steering.start
        self._heard_s = -math.inf  # of the last score
        self.state = AlarmState.OFF
        self.reset()

    def reset(self) -> None:
        """Forget all but the threshold: no alarm, no cool-down, no quiet."""
        self._enter(AlarmState.OFF, -math.inf)
        self._onset = -math.inf
        self._peak = 0.0
        self._off_since = -math.inf
        self._told = 0.0  # the highest score of the last alarm

    @property
    def threshold(self) -> float:
        """The score at which the alarm goes on, or went on."""
        return self._limits.enter + self._offset

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
        return AlarmMemory(
            state=self.state,
            since_s=self._since,
            onset_s=self._onset,
            peak=self._peak,
            off_since_s=self._off_since,
            told=self._told,
            heard_s=self._heard_s,
            offset=self._offset if self.is_on or self._limits.steering is not None else None,
        )

    def recall(self, memory: AlarmMemory) -> None:
        """Be as the alarm was that `memory` is of. Raises ValueError if none can have been."""
        times = (memory.since_s, memory.onset_s, memory.off_since_s, memory.heard_s)
        if not all(map(is_kept_time, times)):
            raise ValueError("an alarm of no time")
        if not 0 <= memory.told < math.inf:
            raise ValueError("an alarm that told no score")
        if not math.isfinite(memory.offset or 0.0):
            raise ValueError("an alarm whose threshold is no number")
        if self._limits.steering is not None:
            self._offset = self._limits.steering.kept(memory.offset)
        elif memory.state in (AlarmState.ON, AlarmState.RECOVERING):
            self._offset = memory.offset or 0.0  # what raised it also ends it
        self.state, self._peak, self._told = memory.state, memory.peak, memory.told
        self._since, self._onset, self._off_since, self._heard_s = times

    def update(self, time_s: float, score: float) -> Edge | None:
        """Take one score; return the edge if the alarm went on or off with it.

        A NaN score (nothing was observed) is no evidence in either direction and changes nothing.
        """
        if math.isnan(score):
            return None
        self._since = time_s if self._since == -math.inf else self._since  # the first
        if self.is_on:
            self._heard_s = time_s
            return self._while_on(time_s, score)
        if self._limits.steering is not None:
            self._offset = self._limits.steering.fallen(self._offset, time_s - self._heard_s)
        self._heard_s = time_s
        if self.state is AlarmState.OFF and score >= self.threshold:
            self._enter(AlarmState.PENDING, time_s)
            self._onset, self._peak = time_s, score
        return self._pending(time_s, score) if self.state is AlarmState.PENDING else None

    def end(self, time_s: float) -> Edge | None:
        """Switch the alarm off at once, as when its stream is reset; None if it was not on."""
        if not self.is_on:
            self._enter(AlarmState.OFF, time_s)
            return None
        threshold = self.threshold
        self._enter(AlarmState.OFF, time_s)
        self._off_since = time_s
        self._told = min(self._peak, LARGEST_SCORE)  # or an infinite one would be quiet for ever
        return Edge(
            is_on=False,
            time_s=time_s,
            onset_s=self._onset,
            score=self._peak,
            threshold=threshold,
        )

    def shift(self, by_s: float) -> None:
        """The clock of the samples was set: what is remembered of them goes with it, so that no
        duration is longer, shorter or negative for it."""
        self._since += by_s
        self._onset += by_s
        self._off_since += by_s
        self._heard_s += by_s

    def _pending(self, time_s: float, score: float) -> Edge | None:
        limits = self._limits
        if score < self.threshold:
            self._enter(AlarmState.OFF, time_s)
            return None
        self._peak = max(self._peak, score)
        off_s = time_s - self._off_since
        has_lasted = time_s - self._onset >= limits.min_duration_s
        has_cooled = off_s >= limits.cooldown_s
        is_news = score > quiet_bar(self._told, off_s, limits.quiet_s)
        if not (has_lasted and has_cooled and is_news):
            return None
        self._enter(AlarmState.ON, time_s)
        return Edge(
            is_on=True,
            time_s=time_s,
            onset_s=self._onset,
            score=score,
            threshold=self.threshold,
        )

    def _while_on(self, time_s: float, score: float) -> Edge | None:
        self._peak = max(self._peak, score)
        if score >= self._leave:
            if self.state is AlarmState.RECOVERING:
                self._enter(AlarmState.ON, time_s)
            return None
        if self.state is AlarmState.ON:
            self._enter(AlarmState.RECOVERING, time_s)
        has_recovered = time_s - self._since >= self._limits.recover_s
        return self.end(time_s) if has_recovered else None

    @property
    def _leave(self) -> float:
        limits, steering = self._limits, self._limits.steering
        if steering is None:
            return limits.leave
        samples = limits.recover_s / steering.period_s
        return leave_threshold(self.threshold, recover_samples=samples, asked=limits.leave_asked)

    def _enter(self, state: AlarmState, time_s: float) -> None:
        if self.is_on and state is AlarmState.OFF:
            self._spend()
        self.state = state
        self._since = time_s

    def _spend(self) -> None:
        """An alarm is over. Of false ones one in a thousand is critical: such a one is real, and
        costs the budget of false alarms nothing."""
        steering = self._limits.steering
        if steering is None:
            self._offset = 0.0
        elif self._peak < self.threshold + CRITICAL_ABOVE:
            self._offset = steering.risen(self._offset)
