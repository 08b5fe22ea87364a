"""A general detector whose streams begin with what a recording showed, not with nothing."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgernn.card import AlarmRule, Tail
from edgernn.errors import EdgernnError
from edgernn.nets.general import General, follow
from edgernn.nets.levels import UNGUARDED
from edgernn.nets.model import CLOCK
from edgernn.recording import Track
from edgernn.spill import IN_MEMORY, Spill

Floats = NDArray[np.float32]

FEWEST_SAMPLES = int(UNGUARDED)
"""With as many a stream guards what it knows from its first sample on."""
CLUSTERS = 0.7
"""Share of exceedances that begin a cluster. With it a budget of one alarm a day raised 0.5 and 1.4
of those asked on healthy stretches of SMD and GECCO; with 1 it raised 0.4 and 0.5, with 0.5 it was
0.7 and 1.6."""
ITS_OWN_SCORE = Tail(
    view="level.rank",
    knots=(0.0,),
    scores=(0.0,),
    shape=1e-6,
    scale=1 / math.log(10),
    extremal_index=CLUSTERS,
)
"""What the graph says is −log10 p already, by the stream's own past."""
ALARM = AlarmRule(recover_s=10.0, leave=2.0, cooldown_s=0.0, quiet_s=100.0, steered=True)
"""At a period of one second. A score by a stream's own past cannot stay where it began: the second
sample of a fault is as rare as one in all before. While the fault lasts it stays above 2.5 or so,
so the alarm ends below 2."""
BLOCK = 4096
"""Samples between two looks at how far it is."""


def begin(
    model: General,
    pieces: Sequence[Track],
    spill: Spill = IN_MEMORY,
    on_block: Callable[[int], None] = lambda _: None,
) -> None:
    """Go through a recording once, one piece after the other, learn all of it alike, and have
    streams begin with what is known then. `on_block` is told how many samples were gone through.

    Raises EdgernnError for a recording that is too short.
    """
    total = sum(len(piece.x) for piece in pieces)
    if total < FEWEST_SAMPLES:
        raise EdgernnError(
            f"the recording is too short: {total} samples, at least {FEWEST_SAMPLES} are needed; "
            "record longer"
        )
    names = list(model.state_shapes)
    clock = names.index(CLOCK)
    states, done = _fresh(model), 0
    for piece in spill.one_by_one(pieces):
        states[clock] = _fresh(model, float(piece.time_s[0]))[clock]
        for start in range(0, len(piece.x), BLOCK):
            block = np.ascontiguousarray(piece.x[start : start + BLOCK, None])  # (≤ BLOCK, 1, C)
            said = follow(block, states, model.config, unguarded=math.inf)
            states = list(said[-len(names) :])
            done += len(block)
            on_block(done)
    model.begin(states)


def _fresh(model: General, *times_s: float) -> list[Floats]:
    return [one.numpy() for one in model.fresh_state(1, times_s)]
