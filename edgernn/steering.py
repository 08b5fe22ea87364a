"""A threshold that steers itself, so that a budget of false alarms is held in operation.

Calibration promises a rate on data like that it was made of; a machine in operation is never quite
like it. So the threshold falls steadily while no alarm is on, and an alarm raises it by as much as
one asked interval lets it fall: in the long run there are as many alarms as were asked for,
whatever the scores are worth. Adaptive conformal inference (Gibbs and Candès, NeurIPS 2021), with
an alarm as the error. Nobody says which alarms were false, so real ones spend the budget too, but
for those far above the threshold: they say nothing of how well it is placed.
"""

import msgspec

RISE = 0.5
"""By which an alarm raises the threshold: three times rarer. 0.5, 0.7, 1.0 and 1.5 hold the budget
alike on healthy stretches of NAB, SMD, GECCO and the pump; the least costs the fewest faults."""
START, LOWEST, HIGHEST = -0.3, -1.3, 3.7
"""How far the threshold may be from the calibrated one: at first, at least and at most. Wide enough
for scores that are wrong by a factor of twenty; narrow enough that neither a quiet year
makes an alarm of everything, nor one full of faults of nothing."""
BRIDGED = 1.5
"""Periods from which on the time since the score before is a gap, as for a stream."""


class Steering(msgspec.Struct, frozen=True):
    """How far the threshold is from the calibrated one, and how that moves."""

    fall_per_s: float
    period_s: float
    lowest: float

    @classmethod
    def for_budget(cls, per_s: float, *, period_s: float, enter: float) -> "Steering":
        """Of so many alarms per second, about a calibrated threshold. It never falls below half of
        that, so that a budget of few samples an alarm does not leave it at 0."""
        return cls(fall_per_s=RISE * per_s, period_s=period_s, lowest=max(LOWEST, -enter / 2))

    @property
    def start(self) -> float:
        """Before anything was observed."""
        return max(START, self.lowest)

    def fallen(self, offset: float, since_s: float) -> float:
        """With a score that comes so long after the one before. A gap is not time observed: the
        score behind it, as the very first one (inf), stands for a period."""
        is_next = 0 <= since_s < BRIDGED * self.period_s
        observed_s = since_s if is_next else self.period_s
        return max(offset - self.fall_per_s * observed_s, self.lowest)

    def risen(self, offset: float) -> float:
        """After an alarm."""
        return min(offset + RISE, HIGHEST)

    def kept(self, offset: float | None) -> float:
        """As it was written down; as at the start if nothing was."""
        return self.start if offset is None else min(max(offset, self.lowest), HIGHEST)
