"""How rare a surprise is in its own stream: −log10 of the share of samples that surprised more.

A histogram of the logarithm of past surprise, which forgets slowly, and a Pareto tail beyond what
was seen. Samples of one long excursion count about once together: else an anomaly that lasts
teaches the histogram that it is normal.

Everything is continuous in the surprise, also what is learnt from it: at a border a sample is
shared between two bins, the tail begins between bins, an excursion begins by degrees. So two
engines whose sums differ in the last bit go on saying the same.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edgernn.nets.readings import MOST_COUNTED

Floats = NDArray[np.float32]

BINS = 64
WIDTH = math.log(10**6) / BINS
"""Of a bin, in the logarithm of surprise."""
START = -21.5 * WIDTH
"""Where the first bin begins: at a hundredth. A surprise of 1 is in the middle of a bin."""
MEMORY = 100_000.0
"""Samples that are remembered."""
TAIL = 0.05
"""Share of all samples that are the tail."""
TAIL_SHARE = 0.3
"""Of the tail's own score in what is said of a sample far inside it; the rest is the count."""
SLOPE, SLOPE_SAMPLES = 0.2, 100.0
"""Scale of the tail in the logarithm of surprise before it is known, which is a Pareto tail of
shape 5, and how many exceedances that is worth."""
PRIOR_SAMPLES, PRIOR_RANGE = 5.0, (1.0, 3.0)
"""Samples that stand for those to come while there are few, and the surprise between which they
lie: so the tail does not begin below what the first ones happen to be."""
SMALLEST_SCALE = 0.02
"""Of the tail: else 100 samples of one surprise would make any other impossible."""
LARGEST_EXPONENT = 60.0
"""Keeps 10^−score a float32."""
SOFTNESS = 1e-3
"""Share of all samples that an empty bin counts as where the tail begins: what a rounding error
moves that point by is bounded."""
EDGE = 0.04
"""Width of a bin's border, in bins: within it a sample is shared between two. Shared wherever it
is, it would leave half of itself above itself: on NAB that cost 0.3 of 65.0 and 2.6 of 58.5."""
EXCURSION = 0.9, 1.1
"""Scores between which a sample begins to count as part of an excursion."""
RECOVERY = 0.95
"""What is left of an excursion's length after each sample that is none of it."""
SMALLEST, LARGEST = math.exp(START), math.exp(START + BINS * WIDTH)
"""Surprise: what is beyond counts as these."""


def prior_counts() -> Floats:
    """(BINS,) the prior's samples, evenly over the logarithm of their range."""
    low, high = ((math.log(end) - START) / WIDTH for end in PRIOR_RANGE)
    edges = np.arange(BINS + 1)
    covered = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
    counts: Floats = (covered * (PRIOR_SAMPLES / (high - low))).astype(np.float32)
    return counts


_PRIOR = prior_counts()
_BIN = np.arange(BINS, dtype=np.float32)


def _higher(counts: Floats) -> Floats:
    """How many are in higher bins."""
    from_above: Floats = counts[..., ::-1].cumsum(-1)[..., ::-1]
    return from_above - counts


def step(s: Floats, known: Floats, state: Floats) -> tuple[Floats, Floats]:
    """Surprise → −log10 p by the stream's own past, each of V views by its own.

    z = ln s, c the histogram with n samples, R the length of the present excursion:

        above = Σ c_j · (share of bin j above z)
        tail:   u where 5 % of the samples are above, b = their mean of z − u, both with a prior
                q = min(1, 0.05 · exp(−(z − u)/b))
        count:  y = −log10((above + q) / (n + 1))
        said:   y, and inside the tail 0.7 · y − 0.3 · log10 q
        learnt: c += ω · (one sample − c/100000), ω = 1/(1 + R)
                R' = R + 1 in an excursion, which is y > 1, else 0.95 · R

    s ≥ 0 (N, V), 1 where it is known (N, 1), state (N, V, BINS + 1) → −log10 p (N, V), 0 where
    nothing is known; next state.
    """
    c, length = state[..., :BINS], state[..., BINS]
    one = np.float32(1)
    g = np.log(np.clip(s, np.float32(SMALLEST), np.float32(LARGEST)))
    g = (g - np.float32(START)) * np.float32(1 / WIDTH)  # in bins, (N, V)
    above = (c * np.clip(_BIN + one - g[..., None], 0, 1)).sum(-1)
    n = c.sum(-1)
    with_prior = c + _PRIOR
    all_of_it = (n + np.float32(PRIOR_SAMPLES))[..., None]
    missing = np.float32(TAIL) * all_of_it - _higher(with_prior)  # to be found in this bin or below
    share = np.clip(missing / (with_prior + np.float32(SOFTNESS) * all_of_it), 0, 1)
    start = np.float32(BINS) - share.sum(-1)
    taken = share * with_prior
    excess = (_BIN + one - np.float32(0.5) * share) - start[..., None]
    spread = np.float32(WIDTH) * (taken * excess).sum(-1)
    spread = spread + np.float32(SLOPE * SLOPE_SAMPLES)
    spread = spread / (taken.sum(-1) + np.float32(SLOPE_SAMPLES))
    spread = np.maximum(spread, np.float32(SMALLEST_SCALE))
    exponent = np.float32(math.log(TAIL)) + (start - g) * np.float32(WIDTH) / spread
    exponent = np.clip(exponent, -np.float32(LARGEST_EXPONENT), 0)
    p = (above + np.exp(exponent)) / (n + one)
    to_score = np.float32(-1 / math.log(10))
    y = np.maximum(np.log(p) * to_score, 0) * known
    inside = np.float32(TAIL_SHARE) * np.clip(g - start, 0, 1)  # of the tail, from its first bin on
    said = y + inside * (exponent * to_score * known - y)
    low, high = EXCURSION
    excursion = np.clip((y - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    weight = known / (one + length)
    where = np.clip(g - np.float32(0.5), 0, BINS - 1)[..., None]
    sample = np.float32(0.5 + 0.5 / EDGE) - np.abs(where - _BIN) * np.float32(1 / EDGE)
    sample = np.clip(sample, 0, 1)  # in one bin, or shared between two
    learnt = c + weight[..., None] * (sample - np.float32(1 / MEMORY) * c)
    going_on = excursion * (length + one - np.float32(RECOVERY) * length)
    longer = np.minimum(np.float32(RECOVERY) * length + going_on, np.float32(MOST_COUNTED))
    length = length + known * (longer - length)
    return said, np.concatenate([learnt, length[..., None]], axis=-1)
