"""Classifier and forecaster, in torch and on the device's engine, float32 and int8: the checks."""

from functools import cache

import msgspec
import numpy as np
import onnx
import pytest
import torch
from cards import make_card
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from runners import CHANNELS, NAMES, SPREAD, EngineRunner, healthy, samples

from edgernn.card import Channel
from edgernn.errors import EdgernnError
from edgernn.nets import Classifier, Forecaster, Model, NetworkConfig
from edgernn.nets.checks import (
    Outputs,
    Runner,
    States,
    TorchRunner,
    check_causality,
    check_chunk_invariance,
    check_classes_are_defined,
    check_forecasts_are_defined,
    check_independence,
    check_same_outputs,
)
from edgernn.recording import Track
from edgernn.training.fit import fit_scaling
from edgernn_device.engine import Engine
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize

Floats = NDArray[np.float32]

CLASSES = ("healthy", "bearing", "leak")
HORIZON = 5
NETWORKS = {
    "gru": NetworkConfig(kind="gru", hidden=16),
    "bidirectional": NetworkConfig(kind="lstm", hidden=8, direction="bidirectional", look_ahead=4),
    "calendar": NetworkConfig(hidden=8, calendar=("day", "week")),
    "late calendar": NetworkConfig(
        hidden=8, direction="bidirectional", look_ahead=4, calendar=("day",)
    ),
}
"""One that speaks at once, and one whose features come late; the same by the time."""
CONFIGS = [
    "classify, gru",
    "classify, bidirectional",
    "classify, late calendar",
    "forecast, gru",
    "forecast, calendar",
]
PERIOD_S = 10_000.0
"""So that the clock of a calendar comes round within the samples of a check."""
SAME = {"classify": {"probability": 1e-4}, "forecast": {"forecast": 1e-4, "spread": 1e-4}}
"""Of probabilities, and relative of forecasts and spreads: sums of float32 in another order."""
NEARLY = {"classify": {"probability": 0.02}, "forecast": {"forecast": 0.02, "spread": 0.02}}
"""The same with integer weights, in an untrained network."""

several = settings(max_examples=10, deadline=None)


def untrained(name: str, *, seed: int = 3) -> Model:
    """The properties must hold for any weights."""
    task, network = name.split(", ")
    if task == "classify":
        return Classifier(NAMES, NETWORKS[network], classes=CLASSES, seed=seed, period_s=PERIOD_S)
    return Forecaster(NAMES, NETWORKS[network], horizon=HORIZON, seed=seed, period_s=PERIOD_S)


@cache
def model(name: str) -> Model:
    made = untrained(name)
    x = healthy(3000, 1, seed=0)[:, 0]
    fit_scaling(made, [Track("s", np.arange(len(x), dtype=float), x, None)])
    return made.eval()


@cache
def float_graph(name: str) -> onnx.ModelProto:
    return build_graph(model(name))


@cache
def engine(name: str, quantization: str) -> Engine:
    made, graph = model(name), float_graph(name)
    if quantization == "int8":
        graph = quantize(graph, "int8")
    task = name.split(",", maxsplit=1)[0]
    card = make_card(
        task=task,
        channels=tuple(Channel(f"c{i}", "", 0.0, 1.0) for i in range(CHANNELS)),
        warm_up=10,
        delay=made.delay,
        classes=CLASSES if task == "classify" else (),
        horizon=HORIZON if task == "forecast" else 0,
        states=made.states,
        tails=(),
    )
    return Engine(with_card(graph, card))


@pytest.fixture(scope="module", params=["torch", "float32 engine", "int8 engine"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def runner(name: str, place: str) -> Runner:
    if place == "torch":
        return TorchRunner(model(name))
    return EngineRunner(engine(name, "int8" if place == "int8 engine" else "none"))


@given(x=samples(), data=st.data())
@several
def test_any_split_of_the_samples_says_the_same(
    runner: Runner, x: Floats, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(x) - 1), max_size=5))
    check_chunk_invariance(runner, x, cuts)


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


def test_a_classifier_that_looks_ahead_has_seen_the_sample_it_speaks_of() -> None:
    made = model("classify, bidirectional")
    x = torch.from_numpy(healthy(40, 1, seed=2))
    other = x.clone()
    other[10] += torch.from_numpy(SPREAD)
    with torch.no_grad():
        one, two = (made(each, *made.fresh_state(1))[0] for each in (x, other))
    assert not torch.equal(one[10 + made.delay], two[10 + made.delay])


@given(x=samples())
@several
def test_missing_values_have_a_defined_result(runner: Runner, name: str, x: Floats) -> None:
    if name.startswith("classify"):
        check_classes_are_defined(runner, x)
    else:
        check_forecasts_are_defined(runner, x)


@given(x=samples())
@several
def test_the_engine_says_what_torch_says(name: str, x: Floats) -> None:
    task = name.split(",", maxsplit=1)[0]
    torch_runner = TorchRunner(model(name))
    check_same_outputs(torch_runner, EngineRunner(engine(name, "none")), x, SAME[task])
    check_same_outputs(torch_runner, EngineRunner(engine(name, "int8")), x, NEARLY[task])


def test_the_checks_notice_a_state_that_is_not_carried(name: str) -> None:
    class Forgetful(TorchRunner):
        def run(self, x: Floats, states: States) -> tuple[Outputs, States]:
            return super().run(x, self.fresh(x.shape[1]))

    with pytest.raises(AssertionError, match="in chunks"):
        check_chunk_invariance(Forgetful(model(name)), healthy(40, 1, seed=1), [20])


@given(
    st.lists(st.integers(1, 39), max_size=6, unique=True), st.integers(0, 100), st.integers(1, 3)
)
@several
def test_the_loss_of_a_recording_is_the_sum_over_its_chunks_with_the_state_carried_on(
    name: str, cuts: list[int], seed: int, streams: int
) -> None:
    made, x = untrained(name, seed=seed), lesson(name, 40, streams, seed=seed)
    hidden = (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.1).float()
    with torch.no_grad():
        whole, values, end = made.loss(x, hidden, *made.fresh_state(streams))
        state, total, count = made.fresh_state(streams), 0.0, 0.0
        for chunk in np.split(np.arange(40), sorted(cuts)):
            loss, number, state = made.loss(x[chunk], hidden[chunk], *state)
            total, count = total + float(loss), count + float(number)
    assert count == pytest.approx(float(values))
    assert not made.loss(x, hidden, *made.fresh_state(streams))[1].requires_grad
    assert total == pytest.approx(float(whole), rel=1e-5)
    for a, b in zip(state, end, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def lesson(name: str, length: int, streams: int, *, seed: int) -> torch.Tensor:
    """Samples as training sees them: with the class behind them, in a classifier's."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(length, streams, CHANNELS, generator=generator)
    x[5, 0, 0] = torch.nan
    if name.startswith("forecast"):
        return x
    label = torch.randint(len(CLASSES), (length, streams, 1), generator=generator).float()
    label[7, 0] = torch.nan
    return torch.cat([x, label], dim=-1)


def test_the_forecasts_loss_is_that_of_what_forward_says() -> None:
    made = Forecaster(NAMES, NetworkConfig(hidden=6), horizon=HORIZON, seed=0)
    x = lesson("forecast", 30, 2, seed=1)
    with torch.no_grad():
        loss, count, _ = made.loss(x, torch.zeros_like(x), *made.fresh_state(2))
        forecast, spread, *_ = made(x, *made.fresh_state(2))
    total, values = 0.0, 0
    for t in range(30):
        for h in range(1, HORIZON + 1):
            if t + h < 30:
                truth = torch.distributions.Normal(forecast[t, :, h - 1], spread[t, :, h - 1])
                log_p = truth.log_prob(x[t + h].nan_to_num())  # type: ignore[no-untyped-call]
                nll = -log_p[~x[t + h].isnan()]
                total, values = total + float(nll.sum()), values + len(nll)
    assert float(count) == values
    assert float(loss) == pytest.approx(total, rel=1e-5)


def test_the_classifiers_loss_is_the_weighted_cross_entropy_of_what_forward_says() -> None:
    for network in NETWORKS:
        made = untrained(f"classify, {network}").eval()
        assert isinstance(made, Classifier)
        made.weigh(torch.tensor([600, 30, 1]))
        x = lesson("classify", 30, 2, seed=1)
        with torch.no_grad():
            loss, count, _ = made.loss(x, torch.zeros_like(x), *made.fresh_state(2))
            probability, *_ = made(x[..., :-1], *made.fresh_state(2))
        label = x[: 30 - made.delay, :, -1]
        p = probability[made.delay :][label.isfinite()]  # (·, L), each beside its own sample
        answer = label[label.isfinite()].long()
        weight = made.weights[answer]
        nll = -torch.log(p[torch.arange(len(answer)), answer])
        assert float(count) == pytest.approx(float(weight.sum()), rel=1e-5)
        assert float(loss) == pytest.approx(float((weight * nll).sum()), rel=1e-5)


def test_a_rare_class_weighs_more_but_at_most_ten_times() -> None:
    made = Classifier(NAMES, NetworkConfig(hidden=4), classes=CLASSES, seed=0)
    made.weigh(torch.tensor([900, 300, 0]))
    assert made.weights.tolist() == pytest.approx([400 / 900, 400 / 300, 10.0])


def test_the_card_and_the_graph_must_agree_on_shapes() -> None:
    graph = float_graph("forecast, gru")
    card = engine("forecast, gru", "none").card
    with pytest.raises(EdgernnError, match=r"gives forecast as \[5, 3\] a sample, its card"):
        Engine(with_card(graph, msgspec.structs.replace(card, horizon=4)))
