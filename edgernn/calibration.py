"""From a budget of false alarms to a threshold on the score. The device does it too."""

import math
import re

from edgernn.card import AlarmRule, Tail
from edgernn.errors import EdgernnError

SECONDS = {
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
    "week": 604800.0,
    "month": 2629800.0,
    "year": 31557600.0,
}

LARGEST_SCORE = 300.0
"""Beyond it 10^−score leaves the range of a double."""


def parse_budget(text: str, *, where: str = "false_alarms") -> float:
    """ "1/week" → alarms per second. Raises EdgernnError on anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([a-z]+)\s*", text)
    if match is None or match[2] not in SECONDS or float(match[1]) <= 0:
        allowed = ", ".join(SECONDS)
        raise EdgernnError(
            f"{where}: expected a number above 0 per one of {allowed}, "
            f'such as "1/week", got "{text}"'
        )
    return float(match[1]) / SECONDS[match[2]]


def check_rule(rule: AlarmRule, *, where: str) -> None:
    """Raises EdgernnError, with the key's path, for a budget or duration that makes no sense."""
    parse_budget(rule.false_alarms, where=f"{where}.false_alarms")
    for name in ("min_duration_s", "recover_s", "cooldown_s", "quiet_s"):
        value = getattr(rule, name)
        if not 0 <= value < math.inf:
            raise EdgernnError(f"{where}.{name}: expected 0 or more seconds, got {value}")
    if not 0 <= rule.leave < math.inf:
        raise EdgernnError(f"{where}.leave: expected a score from 0, got {rule.leave}")


def enter_threshold(rule: AlarmRule, tails: tuple[Tail, ...], *, period_s: float) -> float:
    """The score above which an alarm goes on, so that healthy data raises `rule.false_alarms`.

    Exceedances come in clusters. Within a cluster the next sample is also above with probability
    1 − θ, so a run of at least m samples starts at the rate p·θ·(1 − θ)^(m−1) per sample, with m
    set by `min_duration_s` (the extremal index as reciprocal mean cluster size: Leadbetter 1983).
    The score is the largest over K views less log10 K, so each view has its share p/K of the rate.
    """
    rate_per_sample = parse_budget(rule.false_alarms) * period_s
    low, high = 0.0, LARGEST_SCORE
    for _ in range(60):  # 300 / 2^60: far below float resolution
        middle = (low + high) / 2
        if _onset_rate(middle, rule, tails, period_s) > rate_per_sample:
            low = middle
        else:
            high = middle
    return high


def leave_threshold(enter: float, *, recover_samples: float, asked: float = 0.0) -> float:
    """The score below which an alarm recovers: the one asked for, or if that is 0 one ten times
    likelier than the one that raises it. It is so rare that as many samples in a row as that takes
    are below it once in e times, or chance alone would keep an alarm on."""
    chance = math.log10(max(recover_samples, 1.0))  # (1 − 1/n)^n → 1/e
    return min(max(asked or max(enter - 1.0, enter / 2), chance), enter)


def samples_to_confirm(rule: AlarmRule, *, period_s: float) -> int:
    """Consecutive samples above the threshold that an alarm needs, at least 1."""
    return math.floor(rule.min_duration_s / period_s + 1e-9) + 1


def _onset_rate(score: float, rule: AlarmRule, tails: tuple[Tail, ...], period_s: float) -> float:
    """Alarms per sample on healthy data if they go on at `score`."""
    p = 10.0**-score / len(tails)
    m = samples_to_confirm(rule, period_s=period_s)
    return math.fsum(
        p * (1 - stay) * stay ** (m - 1)
        for stay in (max(1 - tail.extremal_index, p) for tail in tails)
    )
