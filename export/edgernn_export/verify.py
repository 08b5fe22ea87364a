"""Proof: the device's engine must decide as the trained detector decides, or there is no file."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.alarm import CRITICAL_ABOVE, Alarm, Edge, Limits
from edgernn.nets.detector import Detector
from edgernn.recording import Recording
from edgernn.run import Run
from edgernn_device.engine import Engine

Floats = NDArray[np.float32]

SAMPLES = 6000
"""Length of the proof stream."""
STREAMS = 8
TOLERANCE = {"none": 1e-3, "int8": 1.0}
"""Largest difference in score up to the critical level, by how weights are stored. Measured on the
simulated pump: float32 2e-5 to 1e-4 (the same arithmetic in another order), int8 0.24 at worst,
a hundredth in the median. 1 is a factor of ten in probability."""
EXPECTED_TOLERANCE = {"none": 1e-3, "int8": 0.25}
"""Largest difference in an expected value, in standard deviations of its channel."""
SHARE_TOLERANCE = {"none": 1e-2, "int8": 0.25}
"""Largest difference in a channel's contribution where the score is above 1: below, nothing is
surprising and the shares of nothing are not a statement."""
STATE_TOLERANCE = {"none": 1e-2, "int8": 2.0}
"""Largest difference in an end state; the window's holds means of squares up to 25."""


class Deviation(msgspec.Struct, frozen=True):
    """One way in which the engine differs from the detector."""

    run: str
    """Such as "N=8, ragged chunks"."""
    what: str
    difference: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"{self.run}: {self.what} differs by {self.difference:.3g}, allowed {self.allowed:.3g}"
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared, and what came out."""

    samples: int
    largest: tuple[Deviation, ...]
    """The largest difference of every output in every run, allowed or not."""
    failures: tuple[Deviation, ...]


def prove(model: bytes, run: Run, *, quantization: str) -> Proof:
    """Run artefact and detector free over the same `SAMPLES` samples and compare everything:
    scores, shares, expectations, end states, and alarm by alarm. Three ways: one stream sample by
    sample, eight in ragged chunks, eight side by side in one call a sample for a part of them."""
    x = proof_stream(run.healthy, streams=STREAMS)  # (T, N, C)
    card = Engine(model).card
    limits = Limits.from_rule(card.alarm, card)
    truth = _torch_outputs(run.detector, x)
    deviations: list[Deviation] = []
    for name, streams, chunks in (
        ("N=1, T=1", 1, _single(len(x))),
        (f"N={STREAMS}, ragged chunks", STREAMS, _ragged(len(x))),
        (f"N={STREAMS}, T=1", STREAMS, _single(len(x) // 10)),
    ):
        got = _engine_outputs(Engine(model), x[:, :streams], chunks)
        deviations += _compare(name, run, truth, got, limits, quantization)
    failures = tuple(d for d in deviations if not d.difference <= d.allowed)
    return Proof(SAMPLES, tuple(deviations), failures)


def proof_stream(healthy: Recording, *, streams: int, samples: int = SAMPLES) -> Floats:
    """(T, N, C) healthy samples with everything that goes wrong: single values, channels and whole
    samples missing, values frozen, shifted and wild, so that alarms go on and off. The faults are
    plain ones: whether a score at the threshold is above it says nothing about a graph."""
    together = np.concatenate([track.x for track in healthy.tracks])
    together = np.resize(together, (max(len(together), samples), together.shape[1]))
    generator = np.random.default_rng(0)
    spread = np.nanstd(together, axis=0) + 1e-6
    lanes = []
    for n in range(streams):
        lane = np.roll(together, -n * len(together) // streams, axis=0)[:samples].copy()
        for start in range(300, samples - 300, 600):  # 300 disturbed, 300 to recover
            part = lane[start : start + 300]
            channel = generator.integers(lane.shape[1])
            match generator.integers(6):
                case 0:
                    part[generator.random(part.shape) < 0.2] = np.nan
                case 1:
                    part[:200, channel] = np.nan
                case 2:
                    part[50:80] = np.nan
                case 3:
                    part[:200, channel] += 8 * spread[channel]
                case 4:
                    part[:200, channel] = part[0, channel] - 8 * spread[channel]  # and frozen
                case _:
                    part[100:103] += 30 * spread
        lanes.append(lane)
    return np.stack(lanes, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Outputs:
    score: Floats  # (T, N)
    contribution: Floats  # (T, N, C)
    expected: Floats  # (T, N, C)
    states: dict[str, Floats]  # name → (N, …), after the last sample


def _torch_outputs(detector: Detector, x: Floats) -> dict[int, _Outputs]:
    """By number of samples: all of them, and the first tenth."""
    found = {}
    for length in (len(x), len(x) // 10):
        with torch.no_grad():
            score, contribution, expected, *states = detector(
                torch.from_numpy(x[:length]), *detector.fresh_state(x.shape[1])
            )
        named = {s.name: v.numpy() for s, v in zip(detector.states, states, strict=True)}
        found[length] = _Outputs(score.numpy(), contribution.numpy(), expected.numpy(), named)
    return found


def _engine_outputs(engine: Engine, x: Floats, chunks: Sequence[int]) -> _Outputs:
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    parts, start = [], 0
    for length in chunks:
        parts.append(engine.step(rows, np.ascontiguousarray(x[start : start + length])))
        start += length
    states = [engine.state_of(int(row)) for row in rows]
    return _Outputs(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.contribution for part in parts]),
        np.concatenate([part.expected for part in parts]),
        {name: np.stack([state[name] for state in states]) for name in states[0]},
    )


def _compare(
    name: str,
    run: Run,
    truth: dict[int, _Outputs],
    got: _Outputs,
    limits: Limits,
    quantization: str,
) -> list[Deviation]:
    """The largest difference of every output, and every alarm that only one of the two raised."""
    length, streams = got.score.shape
    true = truth[length]
    score = true.score[:, :streams]
    level = limits.enter + CRITICAL_ABOVE  # beyond it only "critical" matters, not by how much
    unknown = np.isnan(score) != np.isnan(got.score)
    scale = run.detector.scale.numpy()
    allowed = TOLERANCE[quantization]
    telling = np.nan_to_num(np.minimum(score, got.score)) > 1
    rows = [
        ("score", _largest(np.minimum(score, level), np.minimum(got.score, level)), allowed),
        ("score known or unknown, samples", float(unknown.sum()), 0.0),
        (
            "contribution",
            _largest(true.contribution[:, :streams][telling], got.contribution[telling]),
            SHARE_TOLERANCE[quantization],
        ),
        (
            "expected, in standard deviations",
            _largest(true.expected[:, :streams] / scale, got.expected / scale),
            EXPECTED_TOLERANCE[quantization],
        ),
    ]
    for state, value in got.states.items():
        rows.append(
            (state, _largest(true.states[state][:streams], value), STATE_TOLERANCE[quantization])
        )
    for n in range(streams):
        flipped = flipped_alarms(
            score[:, n], got.score[:, n], limits, period_s=run.card.period_s, tolerance=allowed
        )
        rows += [(f"stream {n}: alarm {what}, alarms", 1.0, 0.0) for what in flipped]
    return [Deviation(name, what, difference, limit) for what, difference, limit in rows]


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


def _largest(a: Floats, b: Floats) -> float:
    """Where both are NaN they agree; where only one is, nothing could differ more."""
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return math.inf
    difference = np.abs(a - b)[~np.isnan(a)]
    return float(difference.max()) if difference.size else 0.0


def _single(samples: int) -> list[int]:
    return [1] * samples


def _ragged(samples: int) -> list[int]:
    generator = np.random.default_rng(1)
    chunks: list[int] = []
    while (left := samples - sum(chunks)) > 0:
        chunks.append(min(left, int(generator.choice([1, 2, 3, 7, 16, 64, 100, 333]))))
    return chunks
