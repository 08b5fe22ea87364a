"""A general detector whose streams begin with what a recording showed, not with nothing."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from edgernn.card import AlarmRule, Tail
from edgernn.errors import EdgernnError
from edgernn.nets.general import General, follow
from edgernn.nets.levels import UNGUARDED
from edgernn.recording import Recording, Track
from edgernn.spill import IN_MEMORY, Spill
from edgernn.training.stretches import blocks

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
FAR_APART = 3.0
"""Standard deviations of both streams."""
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
    rows = [np.isfinite(piece.x).any(axis=1).sum() for piece in spill.one_by_one(pieces)]
    total = int(sum(rows))  # without what was missing, bridged or labelled
    if total < FEWEST_SAMPLES:
        raise EdgernnError(
            f"the recording is too short: {total} samples, at least {FEWEST_SAMPLES} are needed; "
            "record longer"
        )
    count, done = len(model.state_shapes), 0
    state = model.fresh_state(1)
    for piece in spill.one_by_one(pieces):
        for block, first_s in blocks(piece, BLOCK, model.step_s):
            states = [one.numpy() for one in model.set_clock(state, first_s)]
            said = follow(block.numpy(), states, model.config, unguarded=math.inf)
            state = tuple(map(torch.from_numpy, said[-count:]))
            done += len(block)
            on_block(done)
    model.begin([one.numpy() for one in state])
    if len(model.unknown) == model.channels:
        raise EdgernnError("no channel of the recording moves: there is nothing to begin with")


def apart(recording: Recording) -> list[str]:
    """A sentence for each channel whose streams are further apart than either moves: one level
    cannot be usual for both."""
    said = []
    for c, name in enumerate(recording.channels):
        values = [(track.stream, track.x[:, c]) for track in recording.tracks]
        known = [(stream, x[np.isfinite(x)]) for stream, x in values]
        levels = [(float(x.mean()), float(x.std()), stream) for stream, x in known if len(x)]
        if not levels:
            continue
        (low, a, one), (high, b, other) = min(levels), max(levels)
        if high - low > FAR_APART * (a + b):
            said.append(
                f"{name} is at {low:.4g} in {one} and at {high:.4g} in {other}: new streams begin "
                "with what the last stream of the recording shows; an artefact for each, or "
                "`--model general`, knows them better"
            )
    return said
