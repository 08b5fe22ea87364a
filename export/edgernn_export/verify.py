"""Proof: the device's engine must decide as the trained model decides, or there is no file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.card import Card
from edgernn.errors import EdgernnError
from edgernn.nets.model import Exportable
from edgernn.recording import Recording
from edgernn_device.engine import Engine
from edgernn_device.golden import probed
from edgernn_export.compare import Deviation, Outputs, Reference, compare

Floats = NDArray[np.float32]

SAMPLES = 10_000
"""Length of the proof stream."""
STREAMS = 8
GOLDEN_SAMPLES = 48
"""That travel inside the artefact."""
BLOCK = 500
"""Samples that run through the model at a time."""
MOST_VALUES = 128
"""Of one output of one sample: a forecast of more is compared at every second sample, every third
…, to bound the memory of the proof. States and chunks are those of all samples."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared, and what came out."""

    samples: int
    largest: tuple[Deviation, ...]
    """The largest difference of every output in every run, allowed or not."""
    failures: tuple[Deviation, ...]


def prove(model: bytes, run: Reference, *, quantization: str) -> Proof:
    """Run artefact and model free over the same `SAMPLES` samples and compare everything: what they
    say, end states, and alarm by alarm. Three ways: one stream sample by sample, eight in ragged
    chunks, and, for a part of them, eight side by side in one call a sample, which begin with the
    states that the model has there."""
    x = proof_stream(run.healthy, streams=STREAMS)  # (T, N, C)
    every = sampled_every(run.card)
    starts_s = proof_starts(run.healthy, streams=STREAMS)
    fresh = [state.numpy() for state in run.model.fresh_state(STREAMS, starts_s)]
    truth = model_outputs(run.model, x, every, fresh)
    _check_is_finite(truth)
    first, second = np.split(x[: len(x) // 5], 2)
    midway = list(model_outputs(run.model, first, every, fresh).states.values())
    later = model_outputs(run.model, second, every, midway)
    deviations: list[Deviation] = []
    for name, true, given, start, chunks in (
        ("N=1, T=1", _first_stream(truth), x[:, :1], [s[:1] for s in fresh], _single(len(x))),
        (f"N={STREAMS}, ragged chunks", truth, x, fresh, _ragged(len(x))),
        (f"N={STREAMS}, T=1, from states", later, second, midway, _single(len(second))),
    ):
        got = engine_outputs(probed(model), given, chunks, every, start)
        deviations += compare(name, run, true, got, quantization)
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
    for first in _first_rows(len(together), streams):
        lane = np.roll(together, -first, axis=0)[:samples].copy()
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


def proof_starts(healthy: Recording, *, streams: int) -> tuple[float, ...]:
    """(N,) times of the first samples of `proof_stream`: a calendar says what it was trained for.
    From there the clock goes on by itself, so that all ways have the same times."""
    time_s = np.concatenate([track.time_s for track in healthy.tracks])
    rows = _first_rows(max(len(time_s), SAMPLES), streams)
    return tuple(float(time_s[row % len(time_s)]) for row in rows)


def _first_rows(rows: int, streams: int) -> list[int]:
    """Where in a recording of so many rows each lane of the proof stream begins."""
    return [-(-n * rows // streams) for n in range(streams)]


def sampled_every(card: Card) -> int:
    """Which samples are compared, to bound the memory: every one, or every n-th."""
    return -(-max(int(np.prod(shape)) for shape in card.outputs.values()) // MOST_VALUES)


def golden_stream(healthy: Recording) -> Floats:
    """(T, C) the first healthy samples, some missing, a channel away, another shifted."""
    together = np.concatenate([track.x for track in healthy.tracks])
    x = together[:GOLDEN_SAMPLES].copy()
    x[8:10] = np.nan
    x[20:24, 0] = np.nan
    x[32:, -1] += 8 * np.nanstd(together[:, -1]) + 1e-6
    return x


def model_outputs(model: Exportable, x: Floats, every: int, start: Sequence[Floats]) -> Outputs:
    """Of the trained model in one go, block by block: of each `every`-th sample."""
    state = tuple(map(torch.from_numpy, start))
    parts: list[list[Floats]] = []
    with torch.no_grad():
        for begin in range(0, len(x), BLOCK):
            results = model(torch.from_numpy(x[begin : begin + BLOCK]), *state)
            said, state = results[: len(model.outputs)], results[len(model.outputs) :]
            parts.append([one[-begin % every :: every].numpy() for one in said])
    return Outputs(
        _joined(model.outputs, parts),
        {one.name: value.numpy() for one, value in zip(model.states, state, strict=True)},
    )


def _check_is_finite(outputs: Outputs) -> None:
    """A model whose own states leave all bounds is no graph's fault."""
    if lost := [name for name, v in outputs.states.items() if not np.isfinite(v).all()]:
        raise EdgernnError(
            f"refused: {', '.join(lost)} of the trained model is not finite after "
            f"{SAMPLES} disturbed samples; train it anew with a lower learning_rate, another seed "
            'or a network whose state is bounded (kind = "gru")'
        )


def engine_outputs(
    engine: Engine, x: Floats, chunks: Sequence[int], every: int, start: Sequence[Floats]
) -> Outputs:
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    names = [state.name for state in engine.card.states]
    for n, row in enumerate(rows):
        engine.set_state(int(row), {k: s[n] for k, s in zip(names, start, strict=True)})
    parts: list[list[Floats]] = []
    begin = 0
    for length in chunks:
        said = engine.run(rows, np.ascontiguousarray(x[begin : begin + length]))
        parts.append([one[-begin % every :: every] for one in said])
        begin += length
    states = [engine.state_of(int(row)) for row in rows]
    return Outputs(
        _joined(tuple(engine.card.outputs), parts),
        {name: np.stack([state[name] for state in states]) for name in states[0]},
    )


def _joined(names: Sequence[str], parts: Sequence[Sequence[Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}


def _first_stream(outputs: Outputs) -> Outputs:
    return Outputs(
        {name: value[:, :1] for name, value in outputs.said.items()},
        {name: value[:1] for name, value in outputs.states.items()},
    )


def _single(samples: int) -> list[int]:
    return [1] * samples


def _ragged(samples: int) -> list[int]:
    generator = np.random.default_rng(1)
    chunks: list[int] = []
    while (left := samples - sum(chunks)) > 0:
        chunks.append(min(left, int(generator.choice([1, 2, 3, 7, 16, 64, 100, 333]))))
    return chunks
