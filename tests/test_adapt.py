"""What goes on learning on the device: by hand, at its limits, and what it does to alarms."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import by_hand
import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from runners import NAMES, SPREAD, EngineRunner, healthy

from edgernn.alarm import Limits
from edgernn.config import Config, TrainingConfig
from edgernn.nets import AdaptConfig, Detector, HeadConfig, NetworkConfig
from edgernn.nets.adapt import LARGEST_FACTOR, LEVEL_PACE, NORMAL_UNREST, Paces, learn
from edgernn.recording import Recording, Track
from edgernn.run import Run, load_run, save_run
from edgernn.training.train import calibrate, train
from edgernn_device.engine import Engine
from edgernn_export.artefact import build_artefact

Floats = NDArray[np.float32]

MEMORY, GUARD, SPAN = 400, 20.0, 30
SIZE, CHANNELS = 4, 3
USUAL = 0.5
"""Of the guard; 0.3 is the 99 % quantile of normal residuals over 30 samples."""


def lessons(samples: int, seed: int, *, streams: int = 1) -> tuple[Floats, Floats]:
    """φ (T, N, F) and normal residuals (T, N, C) that it says nothing of."""
    generator = np.random.default_rng(seed)
    phi = generator.standard_normal((samples, streams, SIZE)).astype(np.float32)
    phi[..., 0] = LEVEL_PACE
    return phi, generator.standard_normal((samples, streams, CHANNELS)).astype(np.float32)


def fresh(streams: int = 1) -> tuple[Floats, ...]:
    shapes = ((CHANNELS,), (2 * CHANNELS,), (SIZE, SIZE + CHANNELS))
    return tuple(np.zeros((streams, *shape), np.float32) for shape in shapes)


def learnt(
    phi: Floats,
    r: Floats,
    state: tuple[Floats, ...] | None = None,
    *,
    memory: int = MEMORY,
    guard: float = GUARD,
    scale: bool = True,
) -> tuple[Floats, Floats, tuple[Floats, ...]]:
    """Missing residuals are NaN."""
    observed = np.isfinite(r).astype(np.float32)
    config = AdaptConfig(readout=True, scale=scale, memory=memory, guard=guard)
    usual = np.full(CHANNELS, USUAL, np.float32)
    unrest = np.full(CHANNELS, NORMAL_UNREST, np.float32)
    given = phi, np.nan_to_num(r), observed
    return learn(*given, state or fresh(r.shape[1]), usual, unrest, Paces.of(config, SPAN))


def test_it_learns_as_written_down_by_hand() -> None:
    phi, r = lessons(1500, 0)
    r[400:900, 0, 1] += 3  # learnt slowly, and unlearnt
    r[1000:, 0, 2] *= 2
    r[np.random.default_rng(1).random(r.shape) < 0.1] = np.nan
    r[600:620] = np.nan
    moved, judged, _ = learnt(phi, r)
    moved_by_hand, judged_by_hand = by_hand.adapt(
        phi[:, 0].astype(float),
        r[:, 0].astype(float),
        memory=MEMORY,
        guard=GUARD,
        span=SPAN,
        usual=USUAL,
        unrest=NORMAL_UNREST,
    )
    assert np.abs(moved_by_hand).max() > 0.5
    np.testing.assert_allclose(moved[:, 0], moved_by_hand, atol=1e-4)
    np.testing.assert_allclose(judged[:, 0], judged_by_hand, atol=1e-4)


def test_without_guard_and_forgetting_it_is_a_ridge_regression() -> None:
    phi, noise = lessons(300, 2)
    phi[..., 0] = 1  # else what is learnt at first is more than the largest lesson
    truth = np.random.default_rng(3).normal(0, 0.5, (SIZE, CHANNELS))
    r = (phi @ truth + 0.1 * noise).astype(np.float32)
    paces = Paces(recent=0.1, floor=1.0, prior=0.02, forget=0.0, scale=0.0)
    ones = np.ones(CHANNELS, np.float32)
    *_, (_, _, a) = learn(phi, r, np.ones_like(r), fresh(), ones, ones, paces)
    x, y = phi[:, 0].astype(float), r[:, 0].astype(float)
    exact = np.linalg.solve(x.T @ x + np.eye(SIZE) / 0.02, x.T @ y)
    np.testing.assert_allclose(a[0, :, SIZE:], exact, atol=1e-4)
    np.testing.assert_allclose(
        a[0, :, :SIZE], np.linalg.inv(x.T @ x + np.eye(SIZE) / 0.02), atol=1e-6
    )


def test_a_fresh_stream_is_judged_as_it_was_trained() -> None:
    phi, r = lessons(1, 4)
    moved, judged, _ = learnt(phi, r)
    assert not moved.any()
    np.testing.assert_array_equal(judged, r)


def test_a_gap_changes_nothing() -> None:
    phi, r = lessons(200, 5)
    *_, before = learnt(phi, r)
    *_, after = learnt(phi, np.full_like(r, np.nan), before)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_learnt_of_a_missing_channel() -> None:
    phi, r = lessons(200, 6)
    *_, before = learnt(phi, r)
    r[..., 1] = np.nan
    *_, (scale, recent, a) = learnt(phi, r, before)
    assert scale[0, 1] == before[0][0, 1]
    np.testing.assert_array_equal(recent[0, [1, 1 + CHANNELS]], before[1][0, [1, 1 + CHANNELS]])
    np.testing.assert_array_equal(a[0, :, SIZE + 1], before[2][0, :, SIZE + 1])
    assert (a[0, :, SIZE] != before[2][0, :, SIZE]).any()


def samples_until_normal(level: float, guard: float) -> int:
    """After how many samples a new level of so many standard deviations is within half of one."""
    memory = int(LEVEL_PACE * MEMORY)  # so that a level is learnt in MEMORY
    phi, r = lessons(int(30 * MEMORY * guard / 5), 7)
    phi[..., 1:] = 0
    *_, state = learnt(phi[:2000], r[:2000], memory=memory, guard=guard)
    moved, _, _ = learnt(phi, r + level, state, memory=memory, guard=guard)
    return int(np.argmax(moved[:, 0, 0] > level - 0.5))


@pytest.mark.parametrize("level", [4.0, 8.0, 20.0])
def test_a_new_level_becomes_normal_after_a_fifth_of_memory_times_guard(level: float) -> None:
    """As docs/training.md says it: memory / 5 · guard · (ln(2·size) up to 5 standard deviations,
    and for each 5 more one besides)."""
    guard = 5.0
    times = np.log(2 * min(level, 5.0)) + max(level - 5.0, 0.0) / 5
    assert samples_until_normal(level, guard) == pytest.approx(MEMORY * guard * times, rel=0.35)


def test_without_guard_a_new_level_is_learnt_in_a_fifth_of_the_memory() -> None:
    assert samples_until_normal(4.0, 1.0) == pytest.approx(MEMORY * np.log(8), rel=0.35)


def test_the_scale_follows_more_noise_and_less_within_its_bounds() -> None:
    phi, r = lessons(40 * MEMORY, 8)
    r *= np.array([1.5, 0.6, 100.0], np.float32)
    *_, (scale, _, _) = learnt(phi, r)
    assert np.exp(scale[0, :2]) == pytest.approx([1.5, 0.6], rel=0.15)
    assert np.exp(scale[0, 2]) == pytest.approx(LARGEST_FACTOR)


def test_the_scale_stays_where_it_is_not_asked_to_follow() -> None:
    phi, r = lessons(2000, 9)
    *_, (scale, _, _) = learnt(phi, 1.5 * r, scale=False)
    assert not scale.any()


def test_an_offset_is_not_taken_for_noise() -> None:
    phi, r = lessons(4000, 10)
    *_, (scale, _, _) = learnt(phi, r + 4)
    assert np.exp(scale).max() < 1.2


@pytest.mark.parametrize("memory", [100, 1_000_000])
def test_the_covariance_stays_one_over_a_long_time(memory: int) -> None:
    phi, r = lessons(20_000, 11)
    phi[:, :, 2] = phi[:, :, 1]  # two directions that say the same
    phi[5000:, :, 3] = 0  # and one that says nothing more
    *_, (_, _, a) = learnt(phi, r, memory=memory)
    p = a[0, :, :SIZE].astype(float)
    prior = 10 / memory
    np.testing.assert_allclose(p, p.T, atol=1e-6 * prior)
    values = np.linalg.eigvalsh((p + p.T) / 2)
    assert values.min() > 0
    assert values.max() <= prior * 1.001


def test_streams_learn_side_by_side_what_they_learn_alone() -> None:
    phi, r = lessons(100, 12, streams=3)
    moved, _, _ = learnt(phi, r)
    for n in range(3):
        alone, _, _ = learnt(phi[:, [n]], r[:, [n]])
        np.testing.assert_allclose(moved[:, [n]], alone, atol=1e-6)


HOUR = 3600


@cache
def run(adapt: AdaptConfig) -> Run:
    """A detector of three related channels, 1 Hz."""
    x = healthy(9000, 1, seed=0)[:, 0]
    track = Track("s", np.arange(len(x), dtype=float), x, None)
    training = TrainingConfig(epochs=4, streams=16, learning_rate=0.01, device="cpu")
    network = NetworkConfig(hidden=12)
    config = Config(recording=(), network=network, training=training, adapt=adapt)
    units = ("",) * len(NAMES)
    return train(config, Recording(NAMES, units, (track,), 1.0, ()), name="waves")[0]


ON = AdaptConfig(readout=True, scale=True, memory=HOUR)


def scores(made: Run, x: Floats) -> NDArray[np.float32]:
    """Of samples x (T, N, C), (T, N)."""
    with torch.no_grad():
        score: NDArray[np.float32] = made.detector(
            torch.from_numpy(x), *made.detector.fresh_state(x.shape[1])
        )[0].numpy()
    return score


def threshold(made: Run) -> float:
    return Limits.from_rule(made.card.alarm, made.card).enter


def share_above(adapt: AdaptConfig, disturbed: Floats) -> float:
    """Of the last ten minutes of samples (T, N, C), the share that scores above the threshold."""
    made = run(adapt)
    return float((scores(made, disturbed)[-HOUR // 6 :] > threshold(made)).mean())


def drifted(samples: int) -> Floats:
    """A slow drift of every channel's level, by three times its noise in the end."""
    ramp = np.linspace(0, 1, samples, dtype=np.float32)[:, None, None]
    x = healthy(samples, 2, seed=1)
    return x + 0.3 * ramp * np.array([1, -1, 1], np.float32) * SPREAD


def test_a_slow_drift_raises_no_alarms_where_it_is_learnt_and_does_where_it_is_not() -> None:
    x = drifted(6 * HOUR)
    assert share_above(AdaptConfig(), x) > 0.02
    assert share_above(ON, x) == 0


def test_a_drift_too_fast_for_the_directions_is_learnt_by_the_levels() -> None:
    x = drifted(2 * HOUR)
    assert share_above(AdaptConfig(), x) > 0.02
    assert share_above(ON, x) == 0


def test_the_directions_are_learnt_in_the_memory_and_the_level_five_times_as_fast() -> None:
    made = run(ON).detector
    (adapter,) = made.adapters
    regressors = adapter.regressors(torch.zeros(12))
    assert regressors[0] == LEVEL_PACE
    phi, r = lessons(20_000, 13)
    *_, (_, _, a) = learnt(phi, r, guard=1.0)
    weights = np.square([LEVEL_PACE, 1, 1, 1]) * np.diag(a[0, :, :SIZE])
    np.testing.assert_allclose(MEMORY * weights, [LEVEL_PACE, 1, 1, 1], rtol=0.25)


def shifted(x: Floats) -> None:
    """The level of a channel, by twenty times its noise."""
    x[..., 0] += 2 * SPREAD[0]


def restless(x: Floats) -> None:
    """A channel with six times its noise more."""
    x[..., 0] += 0.6 * SPREAD[0] * np.random.default_rng(0).standard_normal(x.shape[:2])


@pytest.mark.parametrize("fault", [shifted, restless])
def test_a_fault_as_long_as_the_memory_scores_to_its_end_and_only_by_the_guard(
    fault: Callable[[Floats], None],
) -> None:
    x = healthy(3 * HOUR, 2, seed=1)
    fault(x[-HOUR:])
    assert share_above(ON, x) > 0.75
    unguarded = msgspec.structs.replace(ON, memory=HOUR // 2, guard=1.0)
    assert share_above(unguarded, x) < 0.5


@cache
def artefact() -> bytes:
    """Proven, or this raises."""
    return build_artefact(run(ON), quantization="int8")[0]


def test_an_adapting_detector_is_exported_and_proven() -> None:
    card = Engine(artefact()).card
    assert card.network == "3 → gru 12, adapting"
    names = [state.name for state in card.states]
    assert [name for name in names if ".adapt." in name] == [
        "state.forecast.adapt.last",
        "state.forecast.adapt.scale",
        "state.forecast.adapt.recent",
        "state.forecast.adapt.readout",
    ]


def test_a_stream_that_is_resumed_goes_on_as_if_it_had_not_been_interrupted() -> None:
    x = drifted(2 * HOUR)[:, :1]
    one, other = EngineRunner(Engine(artefact())), EngineRunner(Engine(artefact()))
    whole, end = one.run(x, one.fresh(1))
    _, midway = one.run(x[:HOUR], one.fresh(1))
    rest, resumed = other.run(np.ascontiguousarray(x[HOUR:]), midway)
    np.testing.assert_array_equal(whole["score"][HOUR:], rest["score"])
    for a, b in zip(end, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    forgot, _ = other.run(np.ascontiguousarray(x[HOUR:]), other.fresh(1))
    assert np.abs(forgot["score"] - whole["score"][HOUR:]).max() > 1  # what was learnt counts


def test_a_run_keeps_what_it_knows_of_adapting(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save_run(folder, run(ON), [])
    loaded = load_run(folder)
    assert loaded.config.adapt == ON
    x = healthy(100, 1, seed=4)
    np.testing.assert_array_equal(scores(loaded, x), scores(run(ON), x))


def test_what_is_learnt_on_keeps_all_its_digits() -> None:
    stored = {t.name: t.data_type for t in onnx.load_from_string(artefact()).graph.initializer}
    assert stored["adapters.0.learner.prior"] == onnx.TensorProto.FLOAT
    assert stored["adapters.0.basis"] == onnx.TensorProto.INT8


def test_a_stream_of_eight_channels_remembers_at_most_16_kb() -> None:
    everything = AdaptConfig(readout=True, scale=True, features=32)
    made = Detector(tuple("abcdefgh"), NetworkConfig(), None, everything, span=60, seed=0)
    assert 4 * sum(int(np.prod(shape)) for shape in made.state_shapes.values()) <= 16_384


@pytest.mark.parametrize("adapt", [AdaptConfig(), ON])
def test_calibrating_again_changes_nothing(adapt: AdaptConfig) -> None:
    made = run(adapt)
    pieces = made.healthy.tracks
    again = calibrate(copy.deepcopy(made.detector), pieces, warm_up=made.card.warm_up)
    for one, other in zip(made.card.tails, again, strict=True):
        np.testing.assert_allclose(one.knots, other.knots, rtol=1e-3)
        assert one.shape == pytest.approx(other.shape, abs=1e-3)


def test_the_gradient_knows_nothing_of_it() -> None:
    plain, adapting = (
        Detector(NAMES, NetworkConfig(hidden=4), HeadConfig(), adapt, span=30, seed=0)
        for adapt in (AdaptConfig(), ON)
    )
    x = torch.from_numpy(healthy(50, 2, seed=0))
    losses = [
        made.loss(x, torch.zeros_like(x), *made.fresh_state(2))[0] for made in (plain, adapting)
    ]
    assert torch.equal(*losses)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in adapting.named_parameters()]
