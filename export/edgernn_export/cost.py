"""What a detector costs the device, unproven: for choosing among many, not for shipping."""

import time

import msgspec
import numpy as np

from edgernn.nets.general import General
from edgernn.run import Run
from edgernn_device.engine import Engine
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize

WARM_UP, STEPS = 50, 500


def artefact_bytes(run: Run) -> float:
    """Size of the artefact with integer weights."""
    return float(len(_build(run)))


def step_us(run: Run) -> float:
    """Median time of the device's engine for one sample of one stream, in µs, on this machine."""
    engine = Engine(_build(run))
    rows = np.array([engine.add_stream()])
    x = np.concatenate([track.x for track in run.healthy.tracks])[:, None, :]  # (T, 1, C)
    times = []
    for t in range(WARM_UP + STEPS):
        sample = x[t % len(x)][None]  # (1, 1, C)
        start = time.perf_counter_ns()
        engine.run(rows, sample)
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times[WARM_UP:])) / 1e3


def _build(run: Run) -> bytes:
    mode = "none" if isinstance(run.model, General) else "int8"
    card = msgspec.structs.replace(run.card, quantization=mode)
    return with_card(quantize(build_graph(run.model), mode), card)
