"""Detectors judged by levels: what is joined, what streams begin with, and what it does to alarms."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from runners import LEVEL, NAMES, SPREAD, EngineRunner, healthy

from edgernn.alarm import Limits
from edgernn.config import Config, ScoreConfig, TrainingConfig
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
    return made.eval()


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
    parts = [run_stream(made.gathered, made, one)[WARM_UP:] for one in (x[:1500], x[1500:])]
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
    x = healthy(6000, 1, seed=0)[:, 0]
    training = TrainingConfig(epochs=4, streams=16, learning_rate=0.01, device="cpu")
    config = Config(
        recording=(),
        network=NetworkConfig(hidden=12),
        levels=levels,
        training=training,
        score=ScoreConfig(window=WARM_UP),
    )
    recording = Recording(NAMES, ("", "", ""), (piece(x),), 1.0, ())
    made, _ = train(config, recording, name="levels")
    return made


@torch.no_grad()
def scores(made: Run, x: Floats) -> Floats:
    said = run_stream(
        lambda x, *state: (lambda y: (y[0], y[3:]))(made.model(x, *state)), made.detector, x
    )
    return said


def alarm_share(made: Run, x: Floats) -> float:
    limits = Limits.from_rule(made.card.alarm, made.card)
    return float((scores(made, x)[made.card.warm_up :] > limits.enter).mean())
