"""What every model must do, whatever its network and task: run these on each that is registered.

The checks know a model as a `Runner`, so that the same ones run on torch and on the device's
engine, float32 and quantised. Each raises AssertionError with the figure that is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.nets.model import Exportable

Floats = NDArray[np.float32]
States = tuple[Floats, ...]
Outputs = Mapping[str, Floats]
"""Name → (T, N, …), such as "score"."""

TOLERANCE = 2e-3
"""Of scores, shares and scaled expectations between two orders of the same float32 sums. Measured
2e-4 at most over 10,000 samples of noise; scores are steep where the window's variance is small."""


class Runner(Protocol):
    """A model with explicit states."""

    channels: int
    delay: int
    """What is said with sample t is about sample t − delay."""

    def fresh(self, streams: int) -> States:
        """States of streams that have seen nothing, each (N, …)."""

    def run(self, x: Floats, states: States) -> tuple[Outputs, States]:
        """x (T, N, C) → what is said of it, next states."""


class TorchRunner:
    """A torch model as a `Runner`."""

    def __init__(self, model: Exportable) -> None:
        self.model = model.eval()
        self.channels = model.channels
        self.delay = model.delay

    def fresh(self, streams: int) -> States:
        return tuple(state.numpy() for state in self.model.fresh_state(streams))

    def run(self, x: Floats, states: States) -> tuple[Outputs, States]:
        with torch.no_grad():
            results = self.model(torch.from_numpy(x), *map(torch.from_numpy, states))
        arrays = [result.numpy() for result in results]
        names = self.model.outputs
        return dict(zip(names, arrays, strict=False)), tuple(arrays[len(names) :])


def check_chunk_invariance(runner: Runner, x: Floats, cuts: Sequence[int]) -> None:
    """x (T, N, C) in one call ≡ x cut at the given samples, states carried over."""
    whole, end = runner.run(x, runner.fresh(x.shape[1]))
    states = runner.fresh(x.shape[1])
    parts = []
    for chunk in np.split(x, sorted(cuts)):
        if len(chunk):
            said, states = runner.run(np.ascontiguousarray(chunk), states)
            parts.append(said)
    _check_same(whole, _joined(parts, axis=0), "in one call", "in chunks")
    for a, b in zip(end, states, strict=True):
        _check_close(a, b, "the end state in one call", "in chunks")


def check_independence(runner: Runner, x: Floats, order: Sequence[int]) -> None:
    """A stream's result is the same alone, and in any other row of any batch.

    x (T, N, C); `order` is a permutation of its N streams.
    """
    together, _ = runner.run(x, runner.fresh(x.shape[1]))
    shuffled, _ = runner.run(np.ascontiguousarray(x[:, list(order)]), runner.fresh(x.shape[1]))
    for row, stream in enumerate(order):
        alone, _ = runner.run(np.ascontiguousarray(x[:, [stream]]), runner.fresh(1))
        mine = _rows(together, [stream])
        _check_same(mine, alone, f"stream {stream} in a batch", "alone")
        _check_same(mine, _rows(shuffled, [row]), f"stream {stream} in row {stream}", f"row {row}")


def check_causality(runner: Runner, x: Floats, t: int) -> None:
    """Nothing said of the samples before `t` changes when all samples from `t` on do."""
    changed = x.copy()
    changed[t:] = np.where(np.isnan(x[t:]), 1.0, -3.0 * x[t:] + 1.0)
    before, _ = runner.run(x, runner.fresh(x.shape[1]))
    after, _ = runner.run(changed, runner.fresh(x.shape[1]))
    for name in before:
        _check_close(
            before[name][:t], after[name][:t], f"{name} before sample {t}", "with another future"
        )


def check_missing_is_defined(runner: Runner, x: Floats) -> None:
    """The score is NaN exactly where no channel was observed, or the stream had not yet begun; all
    else is finite. Shares are ≥ 0 and sum to 1."""
    said, states = runner.run(x, runner.fresh(x.shape[1]))
    nothing = _unobserved(runner, x)
    assert np.array_equal(np.isnan(said["score"]), nothing), (
        "NaN scores are not the unobserved samples"
    )
    assert (said["score"][~nothing] >= 0).all(), "a score is below 0"
    assert np.isfinite(said["expected"]).all(), "an expected value is not finite"
    assert all(np.isfinite(state).all() for state in states), "a state is not finite"
    assert (said["contribution"] >= 0).all(), "a contribution is below 0"
    _check_close(said["contribution"].sum(-1), np.ones_like(said["score"]), "the shares' sum", "1")


def check_classes_are_defined(runner: Runner, x: Floats) -> None:
    """Probabilities are NaN exactly where no channel was observed, or the stream had not yet begun;
    else they are from 0 to 1 and sum to 1. States are finite."""
    said, states = runner.run(x, runner.fresh(x.shape[1]))
    p = said["probability"]
    is_unknown = np.isnan(p)
    assert np.array_equal(is_unknown.any(-1), _unobserved(runner, x)), (
        "NaN probabilities are not the unobserved samples"
    )
    assert np.array_equal(is_unknown.any(-1), is_unknown.all(-1)), "a class alone is NaN"
    known = p[~is_unknown.any(-1)]
    assert ((known >= 0) & (known <= 1)).all(), "a probability is not from 0 to 1"
    _check_close(known.sum(-1), np.ones(len(known), np.float32), "the probabilities' sum", "1")
    assert all(np.isfinite(state).all() for state in states), "a state is not finite"


def check_forecasts_are_defined(runner: Runner, x: Floats) -> None:
    """Forecasts are finite whatever is missing, their spreads above 0, and states finite."""
    said, states = runner.run(x, runner.fresh(x.shape[1]))
    assert np.isfinite(said["forecast"]).all(), "a forecast is not finite"
    assert np.isfinite(said["spread"]).all(), "a spread is not finite"
    assert (said["spread"] > 0).all(), "a spread is not above 0"
    assert all(np.isfinite(state).all() for state in states), "a state is not finite"


def check_fault_stands_out(
    runner: Runner, healthy: Floats, fault: Callable[[Floats], Floats]
) -> None:
    """A planted fault scores far above the same samples without it.

    healthy (T, N, C); `fault` changes its last tenth and is given that part.
    """
    start = len(healthy) - len(healthy) // 10
    faulty = healthy.copy()
    faulty[start:] = fault(healthy[start:])
    usual, _ = runner.run(healthy, runner.fresh(healthy.shape[1]))
    unusual, _ = runner.run(faulty, runner.fresh(healthy.shape[1]))
    a, b = float(np.nanmax(usual["score"][start:])), float(np.nanmax(unusual["score"][start:]))
    assert b > a + 3, f"the fault scores {b:.2f}, the healthy samples {a:.2f}"


def check_same_detector(
    one: Runner, other: Runner, x: Floats, *, tolerance: float = TOLERANCE, below: float = np.inf
) -> None:
    """Two runners say the same of x (T, N, C): torch ≡ ONNX ≡ quantised, to a stated tolerance.

    Scores above `below` count as `below`: far beyond the threshold only "critical" matters.
    """
    a, _ = one.run(x, one.fresh(x.shape[1]))
    b, _ = other.run(x, other.fresh(x.shape[1]))
    mine, theirs = np.minimum(a["score"], below), np.minimum(b["score"], below)
    _check_close(mine, theirs, "a score", "the other's", tolerance)


def check_same_outputs(
    one: Runner, other: Runner, x: Floats, tolerances: Mapping[str, float]
) -> None:
    """Two runners say the same of x (T, N, C), output by output to its tolerance."""
    a, _ = one.run(x, one.fresh(x.shape[1]))
    b, _ = other.run(x, other.fresh(x.shape[1]))
    assert set(a) == set(tolerances), f"{list(a)} are said, {list(tolerances)} compared"
    for name, tolerance in tolerances.items():
        _check_close(a[name], b[name], f"{name} of one", "the other", tolerance)


def _unobserved(runner: Runner, x: Floats) -> NDArray[np.bool_]:
    """(T, N) where nothing was observed of the sample that is spoken of."""
    nothing = np.asarray(np.isnan(x).all(axis=-1))
    if runner.delay:
        before = np.ones((runner.delay, x.shape[1]), bool)
        nothing = np.concatenate([before, nothing])[: len(x)]
    return nothing


def _check_same(a: Outputs, b: Outputs, what: str, other: str) -> None:
    for name in a:
        _check_close(a[name], b[name], f"{name} {what}", other)


def _check_close(a: Floats, b: Floats, what: str, other: str, tolerance: float = TOLERANCE) -> None:
    assert a.shape == b.shape, f"{what}: shape {a.shape}, {other}: {b.shape}"
    assert np.array_equal(np.isnan(a), np.isnan(b)), f"{what} and {other} differ in what is NaN"
    difference = np.abs(a - b) / np.maximum(1.0, np.abs(a))
    largest = float(np.nanmax(difference)) if np.isfinite(difference).any() else 0.0
    assert largest <= tolerance, (
        f"{what} and {other} differ by {largest:.3g}, allowed {tolerance:g}"
    )


def _joined(parts: Sequence[Outputs], axis: int) -> Outputs:
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}


def _rows(said: Outputs, rows: list[int]) -> Outputs:
    return {name: value[:, rows] for name, value in said.items()}
