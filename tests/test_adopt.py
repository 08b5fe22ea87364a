"""Anybody's recurrent file, streamed: the same as on whole sequences, or refused by its node."""

import contextlib
import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner
from foreign import (
    CHANNELS,
    HIDDEN,
    LENGTH,
    STREAMS,
    Floats,
    Graph,
    Net,
    batchwise,
    exported,
    keras_like,
    streamed,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from edgernn.alarm import Limits
from edgernn.errors import EdgernnError
from edgernn_device.alarms import Alarms
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.monitor import Monitor
from edgernn_device.payload import RawSample
from edgernn_device.verify import verify
from edgernn_export.adopt.cli import adopt as command
from edgernn_export.adopt.healthy import fill, read_healthy, read_scaling
from edgernn_export.adopt.proof import noise, prove_streaming
from edgernn_export.adopt.values import Axis, arrangements
from edgernn_export.adopt.walk import Stateful, make_stateful

KINDS = ("LSTM", "GRU", "RNN")
CLOSE = 2e-6
"""Of float32 sums in another order, values near 1."""


def samples(length: int = 37, streams: int = 3) -> Floats:
    generator = np.random.default_rng(5)
    return generator.standard_normal((length, streams, CHANNELS)).astype(np.float32)


def adopted(model: onnx.ModelProto) -> Stateful:
    """Made stateful and proven."""
    stateful = make_stateful(model, where="m.onnx")
    prove_streaming(model, stateful, noise(stateful, where="m.onnx"), where="m.onnx")
    return stateful


def assert_streams(model: onnx.ModelProto, x: Floats, true: Floats) -> None:
    """Sample by sample, in ragged chunks, several streams and one: as on whole sequences."""
    for streams, chunks in ((x.shape[1], [1] * len(x)), (x.shape[1], [7, 1, 29]), (1, [30, 7])):
        got = streamed(model, np.ascontiguousarray(x[:, :streams]), chunks)
        np.testing.assert_allclose(got, true[:, :streams], atol=CLOSE)


def names_of(layers: int, kind: str) -> list[str]:
    letters = "hc" if kind == "LSTM" else "h"
    return [f"state.layer.{i}.{letter}" for i in range(layers) for letter in letters]


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(EdgernnError) as caught:
        adopted(model)
    return str(caught.value)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "dynamo"),
    [(kind, False) for kind in KINDS] + [("LSTM", True), ("GRU", True)],
    ids=lambda value: {False: "old exporter", True: "new exporter"}.get(value, value),
)
def test_a_torch_model_frozen_to_one_length_streams_any(
    kind: str, dynamo: bool, layers: int
) -> None:
    net = Net(kind, layers)
    model = exported(net, dynamo=dynamo)
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_value == LENGTH
    stateful = adopted(model)
    assert [state.name for state in stateful.states] == names_of(layers, kind)
    assert_streams(stateful.model, samples(), net.said(samples()))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_model_streams(kind: str, layers: int) -> None:
    model = keras_like(kind, layers)
    session = ort.InferenceSession(model.SerializeToString())
    (true,) = session.run(["output"], {"x": samples().transpose(1, 0, 2)})
    assert_streams(adopted(model).model, samples(), np.asarray(true).transpose(1, 0, 2))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_layout_1_which_onnx_runtime_refuses_streams_in_it(kind: str, layers: int) -> None:
    model = batchwise(kind, layers)
    x = samples(LENGTH, STREAMS)
    reference = ReferenceEvaluator(model)
    (true,) = map(np.asarray, reference.run(None, {"x": x.transpose(1, 0, 2)}))
    stateful = adopted(model)
    for chunks in ([1] * LENGTH, [3, 2]):
        got = streamed(stateful.model, x, chunks)
        np.testing.assert_allclose(got, true.transpose(1, 0, 2), atol=CLOSE)


@pytest.mark.parametrize(("kind", "states"), [("LSTM", 2), ("GRU", 1)])
def test_an_initial_state_that_was_an_input_becomes_a_state_of_each_layer(
    kind: str, states: int
) -> None:
    net = Net(kind, 2, given=True)
    model = exported(net, dynamo=False, states=states, layers=2)
    stateful = adopted(model)
    assert [value.name for value in stateful.model.graph.input] == ["x", *names_of(2, kind)]
    assert len(stateful.dropped) == states
    assert_streams(stateful.model, samples(), net.said(samples()))


def test_an_initial_state_frozen_to_a_batch_beside_free_samples_streams() -> None:
    net = Net("GRU", given=True)
    model = exported(net, dynamo=False, states=1, free={"x": {0: "n", 1: "t"}})
    assert model.graph.input[1].type.tensor_type.shape.dim[1].dim_value == STREAMS
    assert_streams(adopted(model).model, samples(), net.said(samples()))


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_older_operators_stream_too(opset: int) -> None:
    net = Net("LSTM", 2, "last")
    stateful = adopted(exported(net, dynamo=False, opset=opset))
    assert_streams(stateful.model, samples(), net.said(samples()))


@pytest.mark.parametrize("reads", ["last", "state"])
@pytest.mark.parametrize("free", [None, {"x": {0: "n", 1: "t"}}])
def test_what_was_said_of_the_last_sample_is_said_of_every_sample(
    reads: str, free: dict[str, dict[int, str]] | None
) -> None:
    net = Net("GRU", 2, reads)
    stateful = adopted(exported(net, dynamo=False, free=free))
    assert_streams(stateful.model, samples(), net.said(samples()))


def test_time_and_streams_are_free_and_states_have_rows_first() -> None:
    graph = adopted(exported(Net("LSTM"), dynamo=False)).model.graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    h, c = (["N", HIDDEN],) * 2
    state = "state.layer.0"
    assert shapes == {"x": ["T", "N", 3], f"{state}.h": h, f"{state}.c": c} | {
        graph.output[0].name: ["T", "N", 3],
        f"{state}.h.next": h,
        f"{state}.c.next": c,
    }


class Sample(NamedTuple):
    stream: str
    raw: RawSample


class Headed(nn.Module):
    """A GRU, and whatever a test does with it."""

    def __init__(self, run: Callable[["Headed", Tensor], Tensor], *, bidirectional: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(CHANNELS, HIDDEN, batch_first=True, bidirectional=bidirectional)
        self.lstm = nn.LSTM(CHANNELS, HIDDEN, batch_first=True)
        self.more = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.linear = nn.Linear(HIDDEN, CHANNELS)
        self.flat = nn.Linear(HIDDEN * LENGTH, CHANNELS)
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.point = nn.Conv1d(HIDDEN, CHANNELS, 1)
        self.batch = nn.BatchNorm1d(HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.place = nn.Parameter(torch.randn(1, LENGTH, HIDDEN))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)

    def y(self, x: Tensor) -> Tensor:
        y: Tensor = self.gru(x)[0]
        return y


def attention(net: Headed, x: Tensor) -> Tensor:
    y = net.y(x)
    return torch.softmax(y @ y.transpose(1, 2), -1) @ y


@pytest.mark.parametrize(
    ("run", "op_type", "said"),
    [
        (attention, "MatMul", "as attention does"),
        (lambda n, x: (torch.softmax(n.y(x), 1) * n.y(x)).sum(1), "Softmax", "along time"),
        (lambda n, x: n.linear(n.y(x).mean(1)), "ReduceMean", "along time"),
        (lambda n, x: n.y(n.conv(x.transpose(1, 2)).transpose(1, 2)), "Conv", "along time"),
        (lambda n, x: n.flat(n.y(x).flatten(1)), "Flatten", "mixes time"),
        (lambda n, x: n.linear(n.y(x)[:, 0]), "Gather", "some values along time"),
        (lambda n, x: n.y(x) - n.y(x)[:, -1:], "Sub", "the last sample with all"),
        (lambda n, x: n.y(x) + n.place, "Add", "of its own for each place along time"),
        (lambda n, x: n.linear(n.lstm(x)[1][1][-1]), "Gemm", "the final cell state"),
        (lambda n, x: n.y(x.flip(1)), "Slice", "some values along time"),
        (
            lambda n, x: n.more(n.gru(x)[1][-1].unsqueeze(1).repeat(1, LENGTH, 1))[0],
            "Expand",
            "decoder",
        ),
        (lambda n, x: n.more(n.y(x), n.gru(x)[1])[0], "GRU", "its initial h is computed"),
    ],
)
def test_what_needs_the_whole_sequence_is_refused_by_its_node(
    run: Callable[[Headed, Tensor], Tensor], op_type: str, said: str
) -> None:
    model = exported(Headed(run), dynamo=False)
    message = refusal(model)
    named = [n.name for n in model.graph.node if n.op_type == op_type]
    assert any(f"node {name!r} ({op_type})" in message for name in named), message
    assert said in message


def test_a_bidirectional_node_is_refused_by_its_name() -> None:
    model = exported(Headed(lambda n, x: n.y(x), bidirectional=True), dynamo=False)
    assert "node '/gru/GRU' (GRU): its direction is 'bidirectional'" in refusal(model)


@pytest.mark.parametrize(
    "run",
    [
        lambda n, x: torch.softmax(n.linear(n.norm(torch.relu(n.y(x)))), -1),
        lambda n, x: n.point(n.batch(n.y(x).transpose(1, 2))).transpose(1, 2),
        lambda n, x: x + n.linear(n.more(n.y((x - 0.5) / 2))[0]),
        lambda n, x: n.linear(n.y(x).reshape(-1, HIDDEN)).reshape(x.shape),
        lambda n, x: torch.cat([part * 2 for part in n.y(x).chunk(2, -1)], -1),
    ],
)
def test_what_looks_at_one_sample_at_a_time_is_kept(
    run: Callable[[Headed, Tensor], Tensor],
) -> None:
    net = Headed(run)
    stateful = adopted(exported(net, dynamo=False))
    with torch.no_grad():
        true = net(torch.from_numpy(samples()).transpose(0, 1)).transpose(0, 1).numpy()
    assert_streams(stateful.model, samples(), true)


def test_a_recurrent_layer_that_the_new_exporter_wrote_out_says_what_to_do() -> None:
    message = refusal(exported(Net("RNN"), dynamo=True))
    assert "no LSTM, GRU or RNN node" in message and "dynamo=False" in message


def test_a_loop_is_refused_although_a_recurrent_node_is_beside_it() -> None:
    g = Graph()
    g.add("GRU", ["x", *g.weights("GRU", CHANNELS, "l")], "y", hidden_size=HIDDEN)
    g.add("Squeeze", ["y", g.store(np.array([1]), "i1")], "s")
    g.add("CumSum", ["s", g.store(np.array(0), "i0")], "output")
    assert "'the_CumSum_2' (CumSum): a sum over all samples" in refusal(
        g.model(["t", "n"], "output")
    )


def layer(*, opset: int = 15) -> Graph:
    """A GRU that gives `s` (T, N, H), and nothing behind it yet."""
    g = Graph(opset=opset)
    g.add("GRU", ["x", *g.weights("GRU", CHANNELS, "l")], "y", hidden_size=HIDDEN)
    g.add("Squeeze", ["y", g.store(np.array([1]), "i1")], "s")
    return g


def filled() -> onnx.ModelProto:
    g = layer()
    g.add("Shape", ["x"], "shape")
    g.add("ConstantOfShape", ["shape"], "zeros")
    g.add("Neg", ["zeros"], "minus")
    g.add("Add", ["x", "minus"], "output")
    return g.model(["t", "n"], "output")


def misshapen() -> onnx.ModelProto:
    g = layer()
    shape = g.store(np.array([3, 3]), "shape")
    g.add("Reshape", [g.store(np.ones(4, np.float32), "k"), shape], "square")
    g.add("Mul", ["s", "square"], "output")
    return g.model(["t", "n"], "output")


def named(name: str) -> onnx.ModelProto:
    g = layer()
    g.add("Tanh", ["s"], name)
    return g.model(["t", "n"], name)


def sparse(opset: int) -> onnx.ModelProto:
    g = layer(opset=opset)
    g.add("Mul", ["s", "k"], "output")
    model = g.model(["t", "n"], "output")
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "k")
    places = onnx.numpy_helper.from_array(np.array([2]), "")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [HIDDEN]))
    return model


def beside_a_sequence() -> onnx.ModelProto:
    model = named("output")
    more = onnx.helper.make_tensor_sequence_value_info("q", onnx.TensorProto.FLOAT, None)
    model.graph.input.append(more)
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (filled, "'the_Neg_4' (Neg): input 0 is expected to follow from the samples"),
        (misshapen, "'the_Reshape_2' (Reshape): cannot be calculated beforehand: cannot reshape"),
        (lambda: named("c0"), "output 'c0': a name that is needed; rename it"),
        (lambda: named("v0.0"), "output 'v0.0': a name that is needed; rename it"),
        (lambda: sparse(15), "cannot be brought to opset 21: Input k is undefined!"),
        (lambda: sparse(21), "'k': sparse weights; store them densely"),
        (beside_a_sequence, "input 'q': expected a tensor, got a sequence"),
    ],
)
def test_an_odd_graph_is_refused_in_a_sentence(
    make: Callable[[], onnx.ModelProto], said: str
) -> None:
    message = refusal(make())
    assert message.startswith("m.onnx: ") and said in message


def dequantized(g: Graph) -> str:
    stored = g.store(np.arange(-8, 8, dtype=np.int8).reshape(HIDDEN, 4), "stored")
    return g.add("DequantizeLinear", [stored, g.store(np.float32(0.1), "scale")], "kernel")


def test_weights_stored_as_integers_stream() -> None:
    g = layer(opset=21)
    g.add("MatMul", ["s", dequantized(g)], "output")
    x = samples()
    model = g.model(["t", "n"], "output")
    (true,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert_streams(adopted(model).model, x, np.asarray(true))


def with_initial(array: Floats) -> onnx.ModelProto:
    g = Graph()
    initial = g.store(array, "initial")
    g.add("GRU", ["x", *g.weights("GRU", CHANNELS, "l"), "", initial], "y", hidden_size=HIDDEN)
    g.add("Squeeze", ["y", g.store(np.array([1]), "i1")], "output")
    return g.model([LENGTH, STREAMS], "output")


def test_a_fresh_state_holds_the_number_that_the_original_starts_from() -> None:
    stateful = adopted(with_initial(np.full((1, STREAMS, HIDDEN), 0.25, np.float32)))
    assert [state.initial for state in stateful.states] == [0.25]


def test_an_initial_state_of_different_values_is_refused() -> None:
    array = np.arange(STREAMS * HIDDEN, dtype=np.float32).reshape(1, STREAMS, HIDDEN)
    assert "'the_GRU_0' (GRU): starts from an initial h of different values" in refusal(
        with_initial(array)
    )


def test_layout_1_that_onnxs_reference_does_not_run_either_is_refused() -> None:
    g = Graph(opset=18)  # the reference has this DequantizeLinear from 19 on
    g.add("GRU", ["x", *g.weights("GRU", CHANNELS, "l")], "y", hidden_size=HIDDEN, layout=1)
    g.add("Squeeze", ["y", g.store(np.array([2]), "i2")], "s")
    g.add("MatMul", ["s", dequantized(g)], "output")
    assert "m.onnx: layout 1, which ONNX Runtime does not run, nor ONNX's reference: " in refusal(
        g.model(["n", "t"], "output")
    )


def test_lengths_other_than_of_whole_sequences_are_refused() -> None:
    model = batchwise("GRU", 1)
    (lengths,) = [t for t in model.graph.initializer if t.name == "lengths"]
    lengths.CopyFrom(onnx.numpy_helper.from_array(np.full(STREAMS, 3, np.int32), "lengths"))
    assert "lengths of sequences" in refusal(model)


def test_a_length_of_one_proves_nothing_and_is_refused() -> None:
    g = Graph()
    g.add("GRU", ["x", *g.weights("GRU", CHANNELS, "l")], "y", hidden_size=HIDDEN)
    g.add("Squeeze", ["y", g.store(np.array([1]), "i1")], "output")
    assert "sequences of one sample" in refusal(g.model([1, 1], "output"))


@pytest.mark.parametrize(
    "forget",
    [
        lambda node: node.input.__delitem__(slice(5, None)),
        lambda node: node.attribute.append(onnx.helper.make_attribute("clip", 0.1)),
    ],
    ids=["its state", "its own attributes"],
)
def test_the_proof_notices_a_node_that_forgets(
    forget: Callable[[onnx.NodeProto], None],
) -> None:
    model = exported(Net("GRU", 2), dynamo=False)
    stateful = make_stateful(model, where="m.onnx")
    forget(next(node for node in stateful.model.graph.node if node.op_type == "GRU"))
    with pytest.raises(EdgernnError, match=r"no file written\n  N=1, T=1: "):
        prove_streaming(model, stateful, noise(stateful, where="m"), where="m")


@given(
    st.lists(st.integers(2, 5), min_size=1, max_size=3),
    st.permutations(["T", "N"]),
    st.integers(0, 3),
)
@settings(max_examples=50)
def test_a_reshape_that_parts_and_joins_features_keeps_time_and_streams_apart(
    features: list[int], order: list[str], ones: int
) -> None:
    sizes = {"T": 7, "N": 11, "B": 11}
    axes = [Axis(letter, sizes[letter]) for letter in order] + [Axis("", f) for f in features]
    target = [*(sizes[letter] for letter in order), *[1] * ones, int(np.prod(features))]
    (way,) = arrangements(axes, target, sizes)
    assert [axis.runs for axis in way] == [*order, *[""] * (ones + 1)]
    joined = [*target[1:-1], target[0] * target[-1]]
    assert arrangements(axes, joined, sizes) == []


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_filling_takes_the_last_value_that_was_there(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((30, CHANNELS)).astype(np.float32)
    hidden = generator.random(x.shape) < 0.4
    gaps = np.where(hidden, generator.choice([np.nan, np.inf], x.shape), x).astype(np.float32)
    centre = np.array([7, 8, 9], np.float32)
    filled = fill(gaps, centre)
    for t, c in np.argwhere(hidden):
        assert filled[t, c] == (filled[t - 1, c] if t else centre[c])
    np.testing.assert_array_equal(filled[~hidden], x[~hidden])


# ---- the command, and what the agent takes -------------------------------------------------------

OPTIONS = ["--channels", "level,rate,heat", "--healthy", "healthy.csv", "--scale", "scale.csv"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy recording, a model's scaling, and models."""
    from runners import LEVEL, NAMES, SPREAD, healthy

    made = tmp_path_factory.mktemp("adopt")
    x = healthy(3000, 1, seed=3)[:, 0]
    with (made / "healthy.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", *NAMES])
        rows.writerows([1.7e9 + t, *row] for t, row in enumerate(x.tolist()))
    lines = [f"{n},{m},{s}" for n, m, s in zip(NAMES, LEVEL, SPREAD, strict=True)]
    (made / "scale.csv").write_text("\n".join(["channel,mean,std", *lines]))
    onnx.save_model(exported(Net("LSTM"), dynamo=False), made / "lstm.onnx")
    onnx.save_model(
        exported(Net("GRU", 1, "last"), dynamo=False, free={"x": {0: "n", 1: "t"}}),
        made / "last.onnx",
    )
    g = layer()
    g.add("Cast", ["s"], "output", to=onnx.TensorProto.DOUBLE)
    model = g.model(["t", "n"], "output")
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save_model(model, made / "double.onnx")
    return made


def adopt(folder: Path, *words: str) -> str:
    """What the command prints."""
    runner = CliRunner()
    with contextlib.chdir(folder):
        done = runner.invoke(command, words, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_without_a_task_only_the_states_are_new(folder: Path) -> None:
    words = [sys.executable, "-m", "edgernn", "adopt", "lstm.onnx", "-o", "stateful.onnx"]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "state.layer.0.h (N, 4), state.layer.0.c (N, 4)" in done.stdout
    model = onnx.load_model(folder / "stateful.onnx")
    assert not model.metadata_props
    assert_streams(model, samples(), Net("LSTM").said(samples()))


def test_the_loop_of_the_page_prints_what_the_model_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "adopt.md").read_text()
    (loop,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    adopt(folder, "lstm.onnx", "-o", "stateful.onnx")
    x = samples(streams=1)
    with contextlib.chdir(folder):
        exec(loop, {"samples": x[:, 0]})
    printed = np.array(re.findall(r"-?\d\.\d+(?:e-\d+)?", capsys.readouterr().out), np.float32)
    np.testing.assert_allclose(printed, Net("LSTM").said(x).ravel(), atol=1e-6)


def engine_says(path: Path, x: Floats, chunks: list[int]) -> list[Floats]:
    engine = Engine.load(path)
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    parts = [engine.run(rows, np.ascontiguousarray(part)) for part in np.split(x, chunks)]
    return [np.concatenate(said) for said in zip(*parts, strict=True)]


def in_sensor_units(net: Net, x: Floats) -> Floats:
    """What the network says of filled samples x (T, N, C)."""
    from runners import LEVEL, SPREAD

    return net.said((x - LEVEL) / SPREAD) * SPREAD + LEVEL


@pytest.fixture(scope="module")
def score_file(folder: Path) -> Path:
    """An LSTM that predicts the next sample, adopted."""
    words = ["--task", "score", "--predicts", "next", *OPTIONS]
    said = adopt(folder, "lstm.onnx", "-o", "score.onnx", *words)
    assert "proven on the device's engine:\n  N=1, T=1: score differs by" in said
    return folder / "score.onnx"


def test_a_score_is_that_of_the_models_own_prediction_of_the_sample(score_file: Path) -> None:
    from runners import healthy

    x = healthy(400, 2, seed=9)
    score, contribution, expected = engine_says(score_file, x, [1, 50, 51, 52])
    told = in_sensor_units(Net("LSTM"), x)
    np.testing.assert_allclose(expected[1:], told[:-1], rtol=1e-5, atol=1e-3)
    assert (score >= 0).all()
    assert np.median(score) < 1
    np.testing.assert_allclose(contribution.sum(-1), 1, atol=1e-5)


def test_the_agents_monitor_alerts_on_a_fault_and_names_its_channel(score_file: Path) -> None:
    from runners import NAMES, healthy

    x = healthy(400, 1, seed=9)[:, 0]
    x[200:230, 2] += 3000
    engine = Engine.load(score_file)
    alarms = Alarms(engine, Limits.from_rule(engine.card.alarm, engine.card), node="pi")
    rule = AgentConfig(model="a").stream_rule(engine.card)
    monitor = Monitor(engine, alarms, rule=rule, max_streams=2)
    alerts = monitor.take(
        Sample("tank", RawSample(1.7e9 + t, None, dict(zip(NAMES, row, strict=True))))
        for t, row in enumerate(x.tolist())
    ).alerts
    assert [alert.edge for alert in alerts] == ["on", "off"]
    assert alerts[0].channels[0].name == "heat"


def test_an_adopted_artefact_proves_itself_on_the_target(score_file: Path) -> None:
    found = verify(score_file.read_bytes(), where="score.onnx")
    assert found.samples > 0
    assert found.largest < 1e-6


def test_a_missing_value_poisons_neither_state_nor_score(folder: Path) -> None:
    from runners import healthy

    words = ["--task", "score", "--predicts", "same", *OPTIONS]
    adopt(folder, "lstm.onnx", "-o", "same.onnx", *words)
    x = healthy(100, 1, seed=9)
    x[40:45] = np.nan
    x[60, :, 1] = np.inf
    score, _, expected = engine_says(folder / "same.onnx", x, [3, 41, 62])
    assert np.isnan(score[40:45]).all()
    assert np.isfinite(np.delete(score, np.s_[40:45], axis=0)).all()
    filled = fill(x, np.zeros(CHANNELS, np.float32))
    np.testing.assert_allclose(expected, in_sensor_units(Net("LSTM"), filled), rtol=1e-5, atol=1e-3)


def test_a_forecast_is_the_models_with_the_spread_of_its_errors(folder: Path) -> None:
    from runners import healthy

    adopt(folder, "last.onnx", "-o", "ahead.onnx", "--task", "forecast", *OPTIONS)
    x = healthy(300, 2, seed=9)
    forecast, spread = engine_says(folder / "ahead.onnx", x, [1, 2, 60])
    told = in_sensor_units(Net("GRU", 1), x)
    np.testing.assert_allclose(forecast[:, :, 0], told, rtol=1e-5, atol=1e-3)
    errors = np.sqrt(np.mean((x[1:] - told[:-1]) ** 2, axis=(0, 1)))
    np.testing.assert_allclose(spread[0, 0, 0], errors, rtol=0.2)


def test_rows_labelled_as_faults_are_not_healthy(tmp_path: Path) -> None:
    rows = [f"{1.7e9 + t},{t if t < 5 else 1000},{'leak' if t >= 5 else ''}" for t in range(9)]
    (tmp_path / "x.csv").write_text("\n".join(["time,a,label", *rows]))
    healthy = read_healthy(tmp_path / "x.csv", ["a"], period_s=None)
    assert (healthy.channels[0].high, healthy.channels[0].longest_still) == (4, 1)
    assert "4 rows labelled as faults are left out" in healthy.recording.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,mean\na,1", "expected a header channel,mean,std"),
        ("channel,mean,std\na,1,x", "line 2: expected numbers"),
        ("channel,mean,std\na,1,0", "line 2: expected a mean and an std above 0"),
        ("channel,mean,std\nb,1,1", "channel a is missing"),
        ("channel,mean,std\na,1,1\na,2,1", "line 3: channel a is there twice"),
    ],
)
def test_a_scaling_that_makes_no_sense_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "scale.csv").write_text(text)
    with pytest.raises(EdgernnError, match=re.escape(said)):
        read_scaling(tmp_path / "scale.csv", ["a"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lstm.onnx", "--task", "score", *OPTIONS], "--task score needs --predicts"),
        (["lstm.onnx", "--task", "forecast", "--healthy", "healthy.csv"], "needs --channels"),
        (["lstm.onnx", "--channels", "a,b,c"], "--channels: only for --task forecast or score"),
        (
            ["lstm.onnx", "--task", "forecast", *OPTIONS, "--channels", "level,rate"],
            "--channels: expected 3 names, as many as input 'x' has columns, got 2",
        ),
        (
            ["lstm.onnx", "--task", "forecast", *OPTIONS, "--channels", "level,rate,hat"],
            "channel hat is missing: it has level, rate, heat",
        ),
        (
            ["lstm.onnx", "--task", "forecast", *OPTIONS, "--horizon", "2"],
            "expected 2 × 3 values a sample",
        ),
        (
            ["double.onnx", "--task", "forecast", *OPTIONS],
            "double.onnx: output 'output': expected float32, got DOUBLE",
        ),
        (["scale.csv"], "scale.csv: not a readable ONNX file"),
        (["no.onnx"], "no.onnx: no such file"),
    ],
)
def test_what_cannot_be_adopted_is_said_in_a_sentence_and_no_file_is_left(
    folder: Path, words: list[str], said: str
) -> None:
    with pytest.raises(EdgernnError, match=re.escape(said)):
        adopt(folder, *words, "-o", "x.onnx")
    assert not (folder / "x.onnx").exists()
