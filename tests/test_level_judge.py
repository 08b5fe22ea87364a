"""Detectors judged by levels: what is joined, what streams begin with, what it does to alarms."""

import math
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from runners import LEVEL, NAMES, SPREAD, EngineRunner, healthy

from edgernn.alarm import Limits
from edgernn.config import Config, TrainingConfig
from edgernn.nets import Detector, LevelsConfig, NetworkConfig
from edgernn.nets.level_judge import PastView
from edgernn.nets.levels import UNGUARDED, rows
from edgernn.recording import Recording, Track
from edgernn.run import Run, load_run, save_run
from edgernn.training.settle import run_stream, settle_levels
from edgernn.training.tails import Prior, fit_tail
from edgernn.training.train import train
from edgernn_device.engine import Engine
from edgernn_export.artefact import build_artefact

Floats = NDArray[np.float32]

BOTH = LevelsConfig(of=("reading", "residual"))
CHANNELS = len(NAMES)
WARM_UP = 30


def untrained(levels: LevelsConfig) -> Detector:
    made = Detector(NAMES, NetworkConfig(hidden=4), None, None, levels, span=WARM_UP, seed=0)
    made.centre.copy_(torch.from_numpy(LEVEL))
    made.scale.copy_(torch.from_numpy(SPREAD))
    return made.eval().requires_grad_(False)


def piece(x: Floats) -> Track:
    return Track("s", np.arange(len(x), dtype=float), x, None)


def test_the_square_of_the_largest_distance_is_shared_out_among_the_channels() -> None:
    view = PastView()
    u = torch.tensor([[2.5, 0.0, 1.0], [1.5, 4.5, 50.0]]).expand(1, 1, 2, 3)  # (T, N, K, C)
    surprise, _ = view(u, torch.ones(1, 1, 3))
    square = (3.0**2 + 8.5**2) / 3  # of the second span: beyond 1.5, and 10 at most
    assert surprise.sum().item() == pytest.approx(square, rel=1e-5)
    assert surprise[0, 0].argmax() == 2
    assert view.total(surprise).item() == pytest.approx(math.log1p(math.sqrt(square)), rel=1e-5)


def test_healthy_pieces_are_all_learnt_alike() -> None:
    x = healthy(3000, 1, seed=0)[:, 0]
    x[1000:1100, 0] += 20 * SPREAD[0]  # a guard would leave it out
    x[2000:2100, 1] = np.nan
    made = untrained(BOTH)
    settle_levels(made, [piece(x[:1500]), piece(x[1500:])], warm_up=WARM_UP)
    (judge,) = made.levels
    halves = piece(x[:1500]), piece(x[1500:])
    parts = [run_stream(made.gathered, made, one)[WARM_UP:] for one in halves]
    seen = np.concatenate(parts)
    assert seen.shape[1] == judge.start.shape[1] == 2 * CHANNELS
    start = judge.start.numpy()
    np.testing.assert_array_equal(start[0], np.isfinite(seen).sum(0))
    for level in start[2:5]:
        np.testing.assert_allclose(start[1] + level, np.nanmean(seen, axis=0), atol=1e-3)


def test_a_short_recording_is_guarded_from_the_first_sample_on() -> None:
    made = untrained(BOTH)
    settle_levels(made, [piece(healthy(200, 1, seed=0)[:, 0])], warm_up=WARM_UP)
    (judge,) = made.levels
    assert (judge.start[0] == UNGUARDED).all()
    assert not judge.start[5:8].any()  # and nothing departs as yet


def test_what_a_stream_has_not_seen_stays_as_training_left_it() -> None:
    made = untrained(BOTH)
    settle_levels(made, [piece(healthy(900, 1, seed=0)[:, 0])], warm_up=WARM_UP)
    (judge,) = made.levels
    x = torch.from_numpy(healthy(20, 1, seed=1))
    x[:, :, 1] = torch.nan
    with torch.no_grad():
        *_, moments = made(x, *made.fresh_state(1))
    unseen = [1, 1 + CHANNELS]
    assert torch.equal(moments[0][:, unseen], judge.start[:, unseen])
    assert (moments[0, 0] - judge.start[0]).tolist() == [20, 0, 20, 20, 0, 20]


def test_only_what_is_asked_for_is_followed() -> None:
    shapes = {
        of: untrained(LevelsConfig(of=of, spans=(2, 9))).state_shapes["levels.moments"]
        for of in [("reading",), ("residual",), ("residual", "reading")]
    }
    assert list(shapes.values()) == [(rows(2), CHANNELS), (rows(2), CHANNELS), (rows(2), 6)]


def test_a_prior_is_weighed_by_independent_samples() -> None:
    series = [np.random.default_rng(0).exponential(0.5, 4000)]
    prior = Prior(offset=0.1, scale=0.2, samples=1e9)
    strong = fit_tail("v", series, prior=prior)
    assert strong.knots[1:] == pytest.approx(
        [0.1 + 0.2 * math.log(10) * score for score in strong.scores[1:]], rel=1e-4
    )
    assert strong.scale == pytest.approx(0.2, rel=1e-4)
    weak = fit_tail("v", series, prior=prior._replace(samples=1e-6))
    assert weak.knots == pytest.approx(fit_tail("v", series).knots, rel=1e-6)
    assert weak.scale == pytest.approx(0.5, rel=0.2)
    even = fit_tail("v", series, prior=prior._replace(samples=4000 * weak.extremal_index))
    assert even.scale == pytest.approx((strong.scale + weak.scale) / 2, rel=1e-4)


@cache
def run(levels: LevelsConfig) -> Run:
    """A detector of three related channels, 1 Hz."""
    x = healthy(9000, 1, seed=0)[:, 0]
    training = TrainingConfig(epochs=4, streams=16, learning_rate=0.01, device="cpu")
    network = NetworkConfig(hidden=12)
    config = Config(recording=(), network=network, training=training, levels=levels)
    recording = Recording(NAMES, ("",) * CHANNELS, (piece(x),), 1.0, ())
    return train(config, recording, name="waves")[0]


def scores(made: Run, x: Floats) -> Floats:
    """Of samples x (T, N, C), (T, N)."""
    with torch.no_grad():
        score: Floats = made.detector(torch.from_numpy(x), *made.detector.fresh_state(x.shape[1]))[
            0
        ].numpy()
    return score


def share_above(levels: LevelsConfig, x: Floats, *, budget: str = "1/day") -> float:
    """Of the last ten minutes of samples (T, N, C), the share that scores above the threshold."""
    made = run(levels)
    rule = msgspec.structs.replace(made.card.alarm, false_alarms=budget)
    threshold = Limits.from_rule(rule, made.card).enter
    return float((scores(made, x)[-600:] > threshold).mean())


def test_a_slow_drift_raises_no_alarms_where_levels_follow_it_and_does_where_they_do_not() -> None:
    x = healthy(15_000, 2, seed=1)
    ramp = np.linspace(0, 1, len(x), dtype=np.float32)[:, None, None]
    x += 0.3 * ramp * np.array([1, -1, 1], np.float32) * SPREAD
    assert share_above(LevelsConfig(), x) > 0.02
    assert share_above(BOTH, x) == 0


def test_channels_that_contradict_each_other_are_seen_in_residuals_not_in_readings() -> None:
    x = healthy(3000, 2, seed=1)
    x[-1200:, :, 1] = 2 * LEVEL[1] - x[-1200:, :, 1]  # upside down, and within its range

    def above_usual(of: tuple[str, ...]) -> float:
        score = scores(run(LevelsConfig(of=of)), x)
        return float((score[-1200:] > score[300:-1200].max()).mean())

    assert above_usual(BOTH.of) > 0.2
    assert above_usual(("reading",)) < 0.01


def test_a_fault_that_lasts_scores_to_its_end() -> None:
    x = healthy(8000, 2, seed=1)
    x[-5000:] += 6 * SPREAD
    assert share_above(BOTH, x) > 0.9


@cache
def artefact() -> bytes:
    """Proven, or this raises."""
    return build_artefact(run(BOTH), quantization="int8")[0]


def test_a_detector_with_levels_is_exported_and_proven() -> None:
    card = Engine(artefact()).card
    assert card.network == "3 → gru 12, levels"
    assert [tail.view for tail in card.tails] == ["levels.past"]
    names = ["state.layer.0.h", "state.forecast.next", "state.levels.moments"]
    assert [state.name for state in card.states] == names


def test_what_streams_begin_with_keeps_all_its_digits() -> None:
    graph = onnx.load_from_string(artefact()).graph
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert stored["levels.0.start"] == onnx.TensorProto.FLOAT


def test_a_stream_that_is_resumed_goes_on_as_if_it_had_not_been_interrupted() -> None:
    x = healthy(2000, 1, seed=2) + 0.3 * SPREAD
    one, other = EngineRunner(Engine(artefact())), EngineRunner(Engine(artefact()))
    whole, end = one.run(x, one.fresh(1))
    _, midway = one.run(x[:1000], one.fresh(1))
    rest, resumed = other.run(np.ascontiguousarray(x[1000:]), midway)
    np.testing.assert_array_equal(whole["score"][1000:], rest["score"])
    for a, b in zip(end, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    forgot, _ = other.run(np.ascontiguousarray(x[1000:]), other.fresh(1))
    assert np.abs(forgot["score"] - whole["score"][1000:]).max() > 0.1  # what was learnt counts


def test_a_run_keeps_what_its_streams_begin_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save_run(folder, run(BOTH), [])
    loaded = load_run(folder)
    assert loaded.config.levels == BOTH
    x = healthy(100, 1, seed=4)
    np.testing.assert_array_equal(scores(loaded, x), scores(run(BOTH), x))


def test_a_stream_of_eight_channels_remembers_at_most_16_kb() -> None:
    most = LevelsConfig(of=("reading", "residual"), spans=(1, 2, 4, 8, 16, 32))
    made = Detector(tuple("abcdefgh"), NetworkConfig(), None, None, most, span=60, seed=0)
    assert 4 * sum(math.prod(shape) for shape in made.state_shapes.values()) <= 16_384


def test_the_gradient_knows_nothing_of_levels() -> None:
    plain, levelled = (
        Detector(NAMES, NetworkConfig(hidden=4), None, None, levels, span=30, seed=0)
        for levels in (None, BOTH)
    )
    x = torch.from_numpy(healthy(50, 2, seed=0))
    losses = [
        made.loss(x, torch.zeros_like(x), *made.fresh_state(2))[0] for made in (plain, levelled)
    ]
    assert torch.equal(*losses)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in levelled.named_parameters()]
