"""The device's engine as the checks know it, and samples to check with."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.nets.checks import Outputs, States
from edgernn_device.engine import Engine

Floats = NDArray[np.float32]

NAMES = ("level", "rate", "heat")
CHANNELS = len(NAMES)
LEVEL = np.array([20.0, -3.0, 1000.0], np.float32)
SPREAD = np.array([2.0, 0.1, 300.0], np.float32)


class EngineRunner:
    """The device's engine as a `Runner`: states go in and come out by way of its arena."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.channels = len(engine.card.channels)
        self.delay = engine.card.delay

    def fresh(self, streams: int) -> States:
        return tuple(
            np.full((streams, *s.shape), s.initial, np.float32) for s in self.engine.card.states
        )

    def run(self, x: Floats, states: States) -> tuple[Outputs, States]:
        rows = [self.engine.add_stream() for _ in range(x.shape[1])]
        names = [state.name for state in self.engine.card.states]
        for n, row in enumerate(rows):
            self.engine.set_state(row, {k: s[n] for k, s in zip(names, states, strict=True)})
        said = dict(zip(self.engine.card.outputs, self.engine.run(np.array(rows), x), strict=True))
        after = [self.engine.state_of(row) for row in rows]
        for row in rows:
            self.engine.remove_stream(row)
        return said, tuple(np.stack([state[name] for state in after]) for name in names)


def healthy(samples: int, streams: int, *, seed: int) -> Floats:
    """(T, N, C) slow waves of related channels with noise, in units of very different size."""
    generator = np.random.default_rng(seed)
    t = np.arange(samples)[:, None] + generator.uniform(0, 500, streams)
    wave = np.sin(2 * np.pi * t / 90)
    z = np.stack([wave, 0.5 * wave + 0.5 * np.cos(2 * np.pi * t / 47), wave**2], axis=-1)
    z = z + 0.1 * generator.standard_normal(z.shape)
    x: Floats = (LEVEL + SPREAD * z).astype(np.float32)
    return x


@st.composite
def samples(draw: st.DrawFn) -> Floats:
    """(T, N, C), T 2–70, N 1–6, with values, channels and whole samples missing."""
    t, n = draw(st.integers(2, 70)), draw(st.integers(1, 6))
    x = healthy(t, n, seed=draw(st.integers(0, 1000)))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    x[generator.random(x.shape) < draw(st.sampled_from([0.0, 0.1, 0.5]))] = np.nan
    if draw(st.booleans()):
        x[:, :, draw(st.integers(0, CHANNELS - 1))] = np.nan
    if draw(st.booleans()):
        x[t // 3 : 2 * t // 3] = np.nan
    return x
