"""A plain method with the product's own decision: calibrated tail, budget, alarm."""

import math
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.alarm import Alarm, Limits
from edgernn.benchmark.baselines import BASELINES, AlwaysOn, score_series
from edgernn.benchmark.method import Said, rising_times
from edgernn.benchmark.series import Bools, Series, Times
from edgernn.calibration import parse_budget
from edgernn.card import AlarmRule, Tail
from edgernn.nets.detector import TailScores
from edgernn.training.tails import FEWEST_SAMPLES, fit_tail

SEED = 0
SPARE_ROWS = 20
"""More than the tail needs: the first rows of a method that looks back have no score."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plain:
    """One of `BASELINES`."""

    name: str
    budget: str | None = None
    """Such as "1/week", which is also the default."""

    @property
    def fewest_rows(self) -> int:
        return FEWEST_SAMPLES + SPARE_ROWS

    def judge(self, series: Series) -> Said:
        baseline = BASELINES[self.name](SEED)
        scores = score_series(baseline, series)
        if isinstance(baseline, AlwaysOn):  # no score is rarer than any other
            return Said(scores.score, 1.0, np.ones(len(series.x), bool), math.inf)
        tail = fit_tail(self.name, [scores.learnt])
        score = calibrated(scores.score, tail)
        rule = rule_for(series.period_s, self.budget)
        limits = Limits.for_tails(rule, (tail,), period_s=series.period_s)
        times = rising_times(series)[len(series.before) :]
        return Said(
            score=score,
            threshold=limits.enter,
            is_on=alarmed(limits, times, score),
            asked_per_s=parse_budget(rule.false_alarms),
            parts=baseline.parts,
        )


def rule_for(period_s: float, budget: str | None) -> AlarmRule:
    """What a new detector gets, for another budget if one is asked for."""
    rule = AlarmRule.for_period(period_s)
    return rule if budget is None else msgspec.structs.replace(rule, false_alarms=budget)


def calibrated(surprise: Floats, tail: Tail) -> Floats:
    """(T,) → −log10 p (T,) by the tail, as in the detector; NaN stays."""
    scores = TailScores(1)
    scores.load((tail,))
    score: Floats = scores.double()(torch.from_numpy(surprise)[:, None, None])[:, 0, 0].numpy()
    return score


def alarmed(limits: Limits, time_s: Times, score: Floats) -> Bools:
    """(T,) whether the product's alarm is on, of times that rise and scores (T,)."""
    alarm, is_on = Alarm(limits), np.zeros(len(score), bool)
    for row, (at_s, value) in enumerate(zip(time_s.tolist(), score.tolist(), strict=True)):
        alarm.update(at_s, value)
        is_on[row] = alarm.is_on
    return is_on
