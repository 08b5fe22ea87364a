"""How long artefacts take on this machine, side by side."""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn_device.engine import Engine

Floats = NDArray[np.float32]

ROUNDS, ROUND_S = 40, 0.003
"""Rounds, and how long a round repeats one call, so that the clock's own cost is nothing."""
STREAMS = (1, 64, 1024)
"""Side by side in a step of one sample."""
BACKLOG = 64
"""Samples of one stream in one call."""


class Latency(msgspec.Struct, frozen=True):
    """The least disturbed round, in microseconds."""

    us_1: float
    """A step of one sample of one stream."""
    us_64: float
    """Of 64 streams."""
    us_1024: float
    us_sample: float
    """A sample, where 64 of one stream come in one call."""


def measure_latency(artefacts: Mapping[str, bytes], x: Floats) -> dict[str, Latency]:
    """Name → times over samples x (T, C). Every round calls each artefact in turn, so that
    whatever else this machine does strikes all of them alike."""
    sizes = [(1, n) for n in STREAMS] + [(BACKLOG, 1)]
    least: dict[str, list[float]] = {name: [] for name in artefacts}
    for samples, streams in sizes:
        given = np.resize(x, (samples, streams, x.shape[1]))
        calls = {name: _call(Engine(one), given) for name, one in artefacts.items()}
        for name, us in _interleaved(calls).items():
            least[name].append(us / samples)
    return {name: Latency(*values) for name, values in least.items()}


def _interleaved(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Name → microseconds of a call in the least disturbed round."""
    repeats = {name: max(1, round(ROUND_S / _seconds(call, 3))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(_seconds(call, repeats[name]))
    return {name: 1e6 * min(values) for name, values in times.items()}


def _call(engine: Engine, x: Floats) -> Callable[[], Sequence[Floats]]:
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    return lambda: engine.run(rows, x)


def _seconds(call: Callable[[], object], times: int) -> float:
    began_s = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began_s) / times
