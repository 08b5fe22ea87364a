"""What counts as the same: outputs of the device's engine beside those of the trained model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.alarm import CRITICAL_ABOVE, Alarm, Edge, Limits
from edgernn.card import Card
from edgernn.nets.model import Exportable
from edgernn.recording import Recording

Floats = NDArray[np.float32]

TOLERANCE: Mapping[str, Mapping[str, float]] = {
    "anomaly": {"none": 1e-3, "float16": 0.1, "int8": 1.0, "int8-dynamic": 1.0, "int4": 2.0},
    "classify": {"none": 1e-3, "float16": 0.02, "int8": 0.1, "int8-dynamic": 0.1, "int4": 0.2},
    "forecast": {"none": 1e-3, "float16": 0.02, "int8": 0.1, "int8-dynamic": 0.1, "int4": 0.2},
}
"""Task → by how weights are stored, the largest difference

* in score up to the critical level. Measured on the simulated pump: float32 2e-5 to 1e-4 (the same
  arithmetic in another order), float16 0.04, int8 0.06 to 0.65 at worst, int4 0.9 to 4. 1 is a
  factor of ten in probability;
* in a class's probability. Measured on the simulated pump: int8 0.047 at worst, where
  two classes are about as likely;
* in a forecast, in standard deviations of its channel, and in the logarithm of its spread.
  Measured on a house, 96 steps ahead: float32 4e-6, int8 (which is int16 there) 0.0004."""
EXPECTED_TOLERANCE = {
    "none": 1e-3,
    "float16": 0.025,
    "int8": 0.25,
    "int8-dynamic": 0.25,
    "int4": 0.5,
}
"""Largest difference in an expected value, in standard deviations of its channel."""
SHARE_TOLERANCE = {"none": 1e-2, "float16": 0.1, "int8": 0.25, "int8-dynamic": 0.25, "int4": 0.5}
"""Largest difference in a channel's contribution where the score is above 1: below, nothing is
surprising and the shares of nothing are not a statement."""
STATE_TOLERANCE = {"none": 1e-2, "float16": 0.1, "int8": 0.5, "int8-dynamic": 0.5, "int4": 1.0}
"""Largest difference in an end state, relative to its largest value where that is above 1: a
window's holds means of squares up to 25, and nothing bounds a ReLU."""


class Deviation(msgspec.Struct, frozen=True):
    """One way in which the engine differs from the model."""

    run: str
    """Such as "N=8, ragged chunks"."""
    what: str
    difference: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"{self.run}: {self.what} differs by {self.difference:.3g}, allowed {self.allowed:.3g}"
        )


class Reference(Protocol):
    """What an artefact is proven against, such as a run."""

    @property
    def card(self) -> Card:
        """Of the artefact, with its channels."""

    @property
    def model(self) -> Exportable:
        """In torch."""

    @property
    def healthy(self) -> Recording:
        """That the proof stream is made of."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was said of a proof stream, and what was remembered at its end."""

    said: dict[str, Floats]
    """Name of the output → (T, N, …)."""
    states: dict[str, Floats]
    """Name → (N, …)."""


def compare(
    name: str, run: Reference, true: Outputs, got: Outputs, quantization: str
) -> list[Deviation]:
    """The largest difference of every output and end state, and every decision that only one of the
    two makes. `name` says which run it was."""
    match run.card.task:
        case "classify":
            rows = _of_classes(true.said, got.said, TOLERANCE["classify"][quantization])
        case "forecast":
            rows = _of_forecasts(run, true.said, got.said, TOLERANCE["forecast"][quantization])
        case _:
            rows = _of_scores(run, true.said, got.said, quantization)
    for state, value in got.states.items():
        size = max(1.0, float(np.abs(true.states[state]).max(initial=0.0)))
        difference = largest(true.states[state], value) / size
        rows.append((state, difference, STATE_TOLERANCE[quantization]))
    return [Deviation(name, what, difference, limit) for what, difference, limit in rows]


Rows = list[tuple[str, float, float]]
"""What, by how much it differs, and how much is allowed."""


def _of_scores(
    run: Reference, true: Mapping[str, Floats], got: Mapping[str, Floats], quantization: str
) -> Rows:
    limits = Limits.from_rule(run.card.alarm, run.card).without_memory()
    a, b = true["score"], got["score"]
    level = limits.enter + CRITICAL_ABOVE  # beyond it only "critical" matters, not by how much
    unknown = np.isnan(a) != np.isnan(b)
    scale = run.model.scale.numpy()
    allowed = TOLERANCE["anomaly"][quantization]
    telling = np.nan_to_num(np.minimum(a, b)) > 1
    rows = [
        ("score", largest(np.minimum(a, level), np.minimum(b, level)), allowed),
        ("score known or unknown, samples", float(unknown.sum()), 0.0),
        (
            "contribution",
            largest(true["contribution"][telling], got["contribution"][telling]),
            SHARE_TOLERANCE[quantization],
        ),
        (
            "expected, in standard deviations",
            largest(true["expected"] / scale, got["expected"] / scale),
            EXPECTED_TOLERANCE[quantization],
        ),
    ]
    for n in range(a.shape[1]):
        flipped = flipped_alarms(
            a[:, n], b[:, n], limits, period_s=run.card.period_s, tolerance=allowed
        )
        rows += [(f"stream {n}: alarm {what}, alarms", 1.0, 0.0) for what in flipped]
    return rows


def _of_classes(true: Mapping[str, Floats], got: Mapping[str, Floats], allowed: float) -> Rows:
    """Whichever class is the likeliest, it is so by as much on both sides."""
    a, b = true["probability"], got["probability"]  # (T, N, L)
    unknown = np.isnan(a).any(-1) != np.isnan(b).any(-1)
    return [
        ("probability", largest(np.nan_to_num(a), np.nan_to_num(b)), allowed),
        ("class known or unknown, samples", float(unknown.sum()), 0.0),
    ]


def _of_forecasts(
    run: Reference, true: Mapping[str, Floats], got: Mapping[str, Floats], allowed: float
) -> Rows:
    scale = run.model.scale.numpy()
    return [
        (
            "forecast, in standard deviations",
            largest(true["forecast"] / scale, got["forecast"] / scale),
            allowed,
        ),
        ("spread, its logarithm", largest(np.log(true["spread"]), np.log(got["spread"])), allowed),
    ]


def flipped_alarms(
    a: Floats, b: Floats, limits: Limits, *, period_s: float, tolerance: float
) -> list[str]:
    """Alarms that scores a (T,) raise and b (T,) do not, or the other way round: "lost at sample
    17", "gained at sample 40".

    Alarms that overlap in time are the same one. An alarm is missing if the other scores raise none
    even at a threshold lower by `tolerance`: what lies that near the threshold may fall on either
    side of it. An alarm that is cooling down stands for those that it keeps from going on.
    """
    apart = limits.cooldown_s / period_s
    lower = msgspec.structs.replace(
        limits, enter=limits.enter - tolerance, leave=limits.leave - tolerance
    )
    lost = _without_partner(_alarms(a, limits, period_s), _alarms(b, lower, period_s), apart)
    gained = _without_partner(_alarms(b, limits, period_s), _alarms(a, lower, period_s), apart)
    return [f"lost at sample {t:g}" for t in lost] + [f"gained at sample {t:g}" for t in gained]


def count_flips(
    a: Floats, b: Floats, a_limits: Limits, b_limits: Limits, *, period_s: float
) -> tuple[int, int]:
    """Alarms that scores b (T,) raise and a (T,) do not, and those lost, each at its own threshold
    and with no tolerance. Alarms that overlap in time are the same one, as above."""
    apart = a_limits.cooldown_s / period_s
    ours, theirs = _alarms(a, a_limits, period_s), _alarms(b, b_limits, period_s)
    gained, lost = _without_partner(theirs, ours, apart), _without_partner(ours, theirs, apart)
    return len(list(gained)), len(list(lost))


def _alarms(score: Floats, limits: Limits, period_s: float) -> list[tuple[float, float]]:
    """From–to of every alarm, in samples; those that follow within the time to recover and cool
    down are one, as its first end and second beginning hang on single samples."""
    alarm = Alarm(limits)
    edges: list[Edge] = [
        edge
        for t, value in enumerate(score)
        if (edge := alarm.update(t * period_s, float(value))) is not None
    ]
    on = [edge.time_s / period_s for edge in edges if edge.is_on]
    off = [edge.time_s / period_s for edge in edges if not edge.is_on]
    apart = 2 * (limits.recover_s + limits.cooldown_s) / period_s
    alarms: list[tuple[float, float]] = []
    for start, end in zip(on, [*off, float(len(score))], strict=False):
        if alarms and start - alarms[-1][1] <= apart:
            alarms[-1] = (alarms[-1][0], end)
        else:
            alarms.append((start, end))
    return alarms


def _without_partner(
    ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]], apart: float
) -> Iterator[float]:
    """Starts of those of `ours` that none of `theirs` is within `apart` samples of."""
    for start, end in ours:
        if not any(start <= o_end + apart and o_start <= end + apart for o_start, o_end in theirs):
            yield start


def largest(a: Floats, b: Floats) -> float:
    """Where both are NaN they agree; where only one is, nothing could differ more."""
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return math.inf
    difference = np.abs(a - b)[~np.isnan(a)]
    return float(difference.max()) if difference.size else 0.0
