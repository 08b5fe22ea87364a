"""Every registered network, in torch and on the device's engine, float32 and int8: same checks."""

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from runners import CHANNELS, NAMES, SPREAD, EngineRunner, healthy, samples

from edgernn.card import CARD_VERSION, AlarmRule, Card, Channel, Provenance, Tail
from edgernn.nets import (
    NETWORKS,
    AdaptConfig,
    Detector,
    HeadConfig,
    LevelsConfig,
    NetworkConfig,
)
from edgernn.nets.checks import (
    Outputs,
    Runner,
    States,
    TorchRunner,
    check_causality,
    check_chunk_invariance,
    check_fault_stands_out,
    check_independence,
    check_missing_is_defined,
    check_same_detector,
)
from edgernn.recording import Track
from edgernn.training.fit import fit_scaling
from edgernn.training.train import calibrate
from edgernn_device.engine import Engine
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize

Floats = NDArray[np.float32]

CONFIGS: dict[str, tuple[NetworkConfig, HeadConfig]] = {
    **{kind: (NetworkConfig(kind=kind, hidden=16), HeadConfig()) for kind in NETWORKS},
    "relu": (NetworkConfig(kind="rnn", hidden=16, activation="relu"), HeadConfig()),
    "stacked": (
        NetworkConfig(kind="gru", hidden=8, layers=3, dropout=0.2, residual=True),
        HeadConfig(),
    ),
    "branches": (
        NetworkConfig(kind="lstm", hidden=8, branches=(("heat",), ("rate", "level"))),
        HeadConfig(),
    ),
    "conv": (NetworkConfig(kind="gru", hidden=8, conv=5), HeadConfig()),
    "tcn, 3 blocks": (NetworkConfig(kind="tcn", hidden=8, layers=3), HeadConfig()),
    "attention": (NetworkConfig(kind="gru", hidden=8, attention=12), HeadConfig()),
    "bidirectional": (
        NetworkConfig(kind="gru", hidden=8, direction="bidirectional", look_ahead=7),
        HeadConfig(),
    ),
    "low rank": (NetworkConfig(kind="fastgrnn", hidden=16, rank=4), HeadConfig()),
    "reconstruct": (NetworkConfig(hidden=8), HeadConfig(kinds=("reconstruct",))),
    "encoder-decoder": (NetworkConfig(hidden=8), HeadConfig(kinds=("encoder-decoder",), window=8)),
    "all heads, look-ahead": (
        NetworkConfig(kind="lstm", hidden=8, direction="bidirectional", look_ahead=3),
        HeadConfig(kinds=("forecast", "reconstruct", "encoder-decoder"), window=10),
    ),
    "calendar": (NetworkConfig(hidden=8, calendar=("day", "week")), HeadConfig()),
    "calendar, branches, look-ahead": (
        NetworkConfig(
            hidden=8,
            branches=(("heat",), ("rate", "level")),
            direction="bidirectional",
            look_ahead=3,
            calendar=("week",),
        ),
        HeadConfig(kinds=("forecast", "reconstruct")),
    ),
    "adapting": (NetworkConfig(hidden=8), HeadConfig()),
    "adapting scale": (NetworkConfig(hidden=8), HeadConfig()),
    "adapting, all heads, look-ahead, calendar": (
        NetworkConfig(hidden=8, direction="bidirectional", look_ahead=3, calendar=("day",)),
        HeadConfig(kinds=("forecast", "reconstruct", "encoder-decoder"), window=10),
    ),
    "levels, two heads, look-ahead": (
        NetworkConfig(hidden=8, direction="bidirectional", look_ahead=3),
        HeadConfig(kinds=("forecast", "reconstruct")),
    ),
}
"""Every kind, and every way to put them together."""
QUICK = AdaptConfig(readout=True, scale=True, memory=100, guard=5.0)
"""Learns in a few dozen samples, so that the checks see what it learnt."""
ADAPTS: dict[str, AdaptConfig] = {name: QUICK for name in CONFIGS if name.startswith("adapting")}
ADAPTS["adapting scale"] = AdaptConfig(scale=True, memory=100)
LEVELS = {
    "levels, two heads, look-ahead": LevelsConfig(of=("reading", "residual"), spans=(2, 30)),
}
PERIOD_S = 10_000.0
"""So that the clock of a calendar comes round within the samples of a check."""
INT8_TOLERANCE = 0.5
"""Of scores below 6, an untrained detector's weights being all of one size; 0.2 was measured."""


@cache
def detector(name: str) -> Detector:
    """Calibrated but not trained: the properties must hold for any weights."""
    adapt, levels = ADAPTS.get(name), LEVELS.get(name)
    made = Detector(NAMES, *CONFIGS[name], adapt, levels, span=30, seed=3, period_s=PERIOD_S)
    x = healthy(3000, 1, seed=0)[:, 0]
    pieces = _tracks(x)
    fit_scaling(made, pieces)
    calibrate(made, pieces, warm_up=30 + made.delay)
    return made.eval()


@cache
def engine(name: str, quantization: str) -> Engine:
    model = graph(name)
    if quantization == "int8":
        model = quantize(model, "int8")
    return Engine(with_card(model, a_card(detector(name))))


@cache
def graph(name: str) -> onnx.ModelProto:
    return build_graph(detector(name))


@cache
def tails() -> tuple[Tail, ...]:
    """Of any detector: a card's are not those of its graph."""
    made = Detector(NAMES, NetworkConfig(hidden=4), span=30, seed=0)
    return calibrate(made, _tracks(healthy(3000, 1, seed=0)[:, 0]), warm_up=30)


def a_card(made: Detector) -> Card:
    return Card(
        version=CARD_VERSION,
        name="checks",
        task="anomaly",
        network="",
        channels=tuple(Channel(name, "", 0.0, 1.0) for name in NAMES),
        period_s=PERIOD_S,
        max_gap_s=60.0,
        warm_up=30 + made.delay,
        delay=made.delay,
        classes=(),
        horizon=0,
        states=made.states,
        tails=tails(),
        alarm=AlarmRule(),
        quantization="none",
        tolerance=0.0,
        provenance=Provenance("", "", "", 0, "", ""),
    )


def _tracks(x: Floats) -> list[Track]:
    return [Track("s", np.arange(len(x), dtype=float), x, None)]


@pytest.fixture(scope="module", params=["torch", "float32 engine", "int8 engine"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=list(CONFIGS))
def runner(request: pytest.FixtureRequest, place: str) -> Runner:
    name = str(request.param)
    if place == "torch":
        return TorchRunner(detector(name))
    return EngineRunner(engine(name, "int8" if place == "int8 engine" else "none"))


several = settings(max_examples=12, deadline=None)


@given(x=samples(), data=st.data())
@several
def test_any_split_of_the_samples_gives_the_same_scores(
    runner: Runner, x: Floats, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(x) - 1), max_size=5))
    check_chunk_invariance(runner, x, cuts)


@given(x=samples())
@several
def test_one_sample_at_a_time_gives_the_same_scores(runner: Runner, x: Floats) -> None:
    check_chunk_invariance(runner, x, range(1, len(x)))


@given(x=samples(), data=st.data())
@several
def test_a_stream_does_not_depend_on_its_neighbours(
    runner: Runner, x: Floats, data: st.DataObject
) -> None:
    check_independence(runner, x, data.draw(st.permutations(range(x.shape[1]))))


@given(x=samples(), data=st.data())
@several
def test_the_future_changes_nothing_that_was_said(
    runner: Runner, x: Floats, data: st.DataObject
) -> None:
    check_causality(runner, x, data.draw(st.integers(1, len(x) - 1)))


@given(x=samples())
@several
def test_missing_values_have_a_defined_result(runner: Runner, x: Floats) -> None:
    check_missing_is_defined(runner, x)


def test_infinite_readings_leave_every_state_finite(runner: Runner) -> None:
    x = healthy(40, 2, seed=5)
    x[10:12, 0, 0], x[20, 1, 2] = np.inf, -np.inf
    check_missing_is_defined(runner, x)
    check_missing_is_defined(runner, x[:21])  # what waits to be judged is a state too


def test_a_shifted_channel_stands_out(runner: Runner) -> None:
    shift = np.array([0.0, 8.0, 0.0], np.float32) * SPREAD
    check_fault_stands_out(runner, healthy(600, 2, seed=6), lambda x: x + shift)


@pytest.mark.parametrize("name", CONFIGS)
@given(x=samples())
@several
def test_the_float32_engine_says_what_torch_says(name: str, x: Floats) -> None:
    check_same_detector(TorchRunner(detector(name)), EngineRunner(engine(name, "none")), x)


@pytest.mark.parametrize("name", CONFIGS)
@given(x=samples())
@several
def test_the_int8_engine_says_nearly_what_torch_says(name: str, x: Floats) -> None:
    one, other = TorchRunner(detector(name)), EngineRunner(engine(name, "int8"))
    check_same_detector(one, other, x, tolerance=INT8_TOLERANCE, below=6.0)


def test_the_checks_notice_a_detector_that_looks_ahead() -> None:
    class Peeking(TorchRunner):
        def run(self, x: Floats, states: States) -> tuple[Outputs, States]:
            return super().run(np.concatenate([x[1:], x[-1:]]), states)

    with pytest.raises(AssertionError, match="with another future"):
        check_causality(Peeking(detector("gru")), healthy(40, 1, seed=1), 20)


def test_the_checks_notice_a_state_that_is_not_carried() -> None:
    class Forgetful(TorchRunner):
        def run(self, x: Floats, states: States) -> tuple[Outputs, States]:
            return super().run(x, self.fresh(x.shape[1]))

    with pytest.raises(AssertionError, match="in chunks"):
        check_chunk_invariance(Forgetful(detector("gru")), healthy(40, 1, seed=1), [20])


def test_the_checks_notice_streams_that_mix() -> None:
    class Mixing(TorchRunner):
        def run(self, x: Floats, states: States) -> tuple[Outputs, States]:
            return super().run(x - np.nanmean(x, axis=1, keepdims=True), states)

    with pytest.raises(AssertionError, match="alone"):
        check_independence(Mixing(detector("gru")), healthy(40, 3, seed=1), [1, 2, 0])


def test_the_same_seed_gives_the_same_weights() -> None:
    a, b = (Detector(NAMES, NetworkConfig(hidden=8), span=30, seed=9) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_card_lists_each_state_as_the_graph_has_it() -> None:
    card = engine("stacked", "none").card
    assert [(state.name, state.shape, state.initial) for state in card.states] == [
        ("state.layer.0.h", (8,), 0.0),
        ("state.layer.1.h", (8,), 0.0),
        ("state.layer.2.h", (8,), 0.0),
        ("state.forecast.next", (2 * CHANNELS,), 0.0),
        ("state.forecast.window", (3 * CHANNELS,), 0.0),
    ]


def test_a_missing_channel_does_not_make_its_kin_look_strange() -> None:
    made = Detector(NAMES, NetworkConfig(hidden=4), span=30, seed=0)
    (judge,) = made.judges
    judge.relate(torch.tensor([[1.0, 0.95, 0.0], [0.95, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    x = torch.randn(200, 1, CHANNELS, generator=torch.Generator().manual_seed(0))
    alone = x.clone()
    alone[..., 0] = torch.nan
    with torch.no_grad():
        surprise, _ = made.surprise(alone, *made.fresh_state(1))  # (T, N, K, C)
        judge.relate(torch.eye(CHANNELS))
        unrelated, _ = made.surprise(alone, *made.fresh_state(1))
    assert torch.equal(surprise, unrelated)
