"""A series through an artefact as the agent runs it: order, gaps, warm-up, engine, alarm.

No look-ahead: what is said at a row was said when that row came. Rows go through the graph in
blocks, which by chunk invariance is the same as one by one.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.alarm import Alarm, Limits, quiet_bar
from edgernn.benchmark.method import Said, nothing, rising_times
from edgernn.benchmark.series import Series
from edgernn.calibration import parse_budget
from edgernn.card import Card
from edgernn.errors import EdgernnError
from edgernn.times import in_step
from edgernn_device.engine import Engine
from edgernn_device.monitor import LONGEST_CHUNK
from edgernn_device.stream import Step, Stream, StreamRule

Floats = NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Steps:
    """Rows for the engine: those of the series, and bridged ones between them."""

    time_s: Floats
    """(S,)"""
    x: NDArray[np.float32]
    """(S, C)"""
    starts: tuple[int, ...]
    """Where the stream starts afresh; the first is 0."""
    place: NDArray[np.intp]
    """(B + T - skipped,) of each row of `before` and `x`."""


def stream_through(engine: Engine, series: Series, *, budget: str | None, skipped: int = 0) -> Said:
    """Score and alarm of every row. Raises EdgernnError if the channels do not fit.

    A row is one step of the artefact, whatever period it was trained for; its gaps and durations
    count in periods. `budget`: another than the card's. `skipped`: first rows, of `before` and then
    of `x`, that the artefact does not get to see, and says nothing of.
    """
    card = fitted(engine.card, series)
    rule = card.alarm
    if budget is not None:
        rule = msgspec.structs.replace(rule, false_alarms=budget)
    limits = Limits.from_rule(rule, card)
    if skipped >= len(series.before) + len(series.x):
        return nothing(
            series,
            threshold=limits.enter,
            asked_per_s=parse_budget(rule.false_alarms),
            note="says nothing, for it begins behind the last row",
        )
    steps = steps_of(series, card, skipped=skipped)
    score, parts = _run(engine, steps, card)
    is_on = _alarmed(limits, steps, score, delay=card.delay)
    told = None
    if rule.quiet_s:
        told = news(_about(steps, card.delay), score, steps.starts, quiet_s=rule.quiet_s)
    unseen = max(skipped - len(series.before), 0)  # rows of x
    place = steps.place[max(len(series.before) - skipped, 0) :]
    return Said(
        score=_behind(unseen, score[place], np.nan),
        threshold=limits.enter,
        is_on=_behind(unseen, is_on[place], False),
        asked_per_s=parse_budget(rule.false_alarms),
        parts=_behind(unseen, parts[place], np.nan),
        told=None if told is None else _behind(unseen, told[place], 0.0),
    )


def _behind(rows: int, said: NDArray[Number], nothing: float) -> NDArray[Number]:
    """(T, …), so many rows later."""
    before = np.full((rows, *said.shape[1:]), nothing, said.dtype)
    return np.concatenate([before, said])


def fitted(card: Card, series: Series) -> Card:
    """The card at the period of the series. Raises EdgernnError if it is for other channels."""
    if card.task != "anomaly":
        raise EdgernnError(
            f'{card.name}: expected an artefact of task "anomaly", got "{card.task}"'
        )
    if len(card.channels) != len(series.channels):
        raise EdgernnError(
            f"{card.name} has {len(card.channels)} channels, the file {len(series.channels)}"
        )
    times = series.period_s / card.period_s
    return msgspec.structs.replace(
        card,
        period_s=series.period_s,
        max_gap_s=card.max_gap_s * times,
        alarm=card.alarm.stretched(times),
    )


def steps_of(series: Series, card: Card, *, skipped: int = 0) -> Steps:
    """What the agent's stream makes of the rows behind the skipped ones, one after the other."""
    rule = StreamRule(card.period_s, card.warm_up, card.max_gap_s, card.delay)
    stream, counts = Stream(series.name, 0, rule), Counter[str]()
    steps: list[Step] = []
    place = []
    rows = np.concatenate([series.before, series.x])[skipped:].tolist()
    for time_s, x in zip(rising_times(series)[skipped:].tolist(), rows, strict=True):
        steps += stream.admit(time_s, x, seq=None, counts=counts)
        place.append(len(steps) - 1)
    return Steps(
        np.array([step.time_s for step in steps]),
        np.array([step.x for step in steps], np.float32),
        tuple(i for i, step in enumerate(steps) if step.is_fresh),
        np.array(place),
    )


def news(
    time_s: Sequence[float], score: Floats, starts: Collection[int], *, quiet_s: float
) -> Floats:
    """Scores (S,) that are news, 0 else: what an alarm would say that goes on at any score and is
    over at once. `starts`: where the stream, and the quiet, begins afresh."""
    told, last, last_s, fresh = np.zeros(len(score)), 0.0, -np.inf, frozenset(starts)
    for step, (at_s, value) in enumerate(zip(time_s, score.tolist(), strict=True)):
        if step in fresh:
            last = 0.0
        if value > quiet_bar(last, at_s - last_s, quiet_s):  # NaN is no news
            told[step] = last = value
            last_s = at_s
    return told


def _run(engine: Engine, steps: Steps, card: Card) -> tuple[Floats, Floats]:
    """Scores (S,), NaN in warm-up, and each channel's part of them (S, C)."""
    stream = engine.add_stream()
    row = np.array([stream])
    is_off = engine.has_clock and engine.card.period_s != card.period_s
    longest = 1 if is_off else LONGEST_CHUNK  # else its clock goes on by another period
    scores, parts = [], []
    ends = [*steps.starts[1:], len(steps.x)]
    for start, end in zip(steps.starts, ends, strict=True):
        engine.reset(stream)
        first = start
        while first < end:
            last = min(first + longest, end)
            if engine.has_clock:
                last = first + in_step(steps.time_s[first:last], card.period_s)
            block = steps.x[first:last, None]  # (≤ 256, 1, C)
            score, contribution, _ = engine.run(row, block, [float(steps.time_s[first])])
            score[: max(start + card.warm_up - first, 0)] = np.nan
            scores.append(score[:, 0])
            parts.append(contribution[:, 0] * score)
            first = last
    engine.remove_stream(stream)
    return np.concatenate(scores).astype(float), np.concatenate(parts).astype(float)


def _alarmed(limits: Limits, steps: Steps, score: Floats, *, delay: int) -> NDArray[np.bool_]:
    """(S,) whether the alarm is on, after each step."""
    alarm, is_on, fresh = Alarm(limits), np.zeros(len(score), bool), set(steps.starts)
    about_s = _about(steps, delay)
    for step, (time_s, value) in enumerate(zip(about_s, score.tolist(), strict=True)):
        if step in fresh:
            alarm.end(time_s)
            alarm.reset()
        alarm.update(time_s, value)
        is_on[step] = alarm.is_on
    return is_on


def _about(steps: Steps, delay: int) -> list[float]:
    """(S,) the times of what scores are about; the first ones, which speak of nothing yet, have
    their own."""
    about_s = np.concatenate([steps.time_s[:delay], steps.time_s])[: len(steps.time_s)]
    return [float(time_s) for time_s in about_s]
