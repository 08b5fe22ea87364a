"""Every stateful layer: its equations, state, gradient, exported graph and integers."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from by_hand import (
    ByHand,
    attention,
    backward,
    convolution,
    delay,
    elman,
    fastgrnn,
    gru,
    lstm,
    mingru,
    relu,
    tcn,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from edgernn.errors import EdgernnError
from edgernn.nets.attention import Attention
from edgernn.nets.convolution import CausalConv, TcnBlock
from edgernn.nets.gates import FastGrnnLayer, MinGruLayer
from edgernn.nets.layers import GruLayer, LstmLayer, RnnLayer, Stateful
from edgernn.nets.networks import Stack
from edgernn.nets.scan import linear_scan
from edgernn.nets.start import STARTS, initialise
from edgernn.nets.windows import BackwardWindow, Delay
from edgernn_device.engine import _open
from edgernn_export.graph import build_layer_graph
from edgernn_export.quantize import quantize
from edgernn_export.weights import SMALLEST

INT8, INT16 = onnx.TensorProto.INT8, onnx.TensorProto.INT16
C, H = 12, 16
LAYERS: dict[str, tuple[Callable[[], Stateful], ByHand]] = {
    "elman": (lambda: RnnLayer(C, H), elman(np.tanh)),
    "elman, relu": (lambda: RnnLayer(C, H, "relu"), elman(relu)),
    "gru": (lambda: GruLayer(C, H), gru),
    "lstm": (lambda: LstmLayer(C, H), lstm),
    "fastgrnn": (lambda: FastGrnnLayer(C, H), fastgrnn),
    "fastgrnn, rank 6": (lambda: FastGrnnLayer(C, H, rank=6), fastgrnn),
    "mingru": (lambda: MinGruLayer(C, H), mingru),
    "convolution": (lambda: CausalConv(C, H, kernel=3, dilation=2), convolution(3, 2)),
    "convolution, kernel 1": (lambda: CausalConv(C, H, kernel=1), convolution(1, 1)),
    "tcn": (lambda: TcnBlock(C, H, kernel=3, dilation=2, dropout=0.5), tcn(3, 2)),
    "tcn, same width": (lambda: TcnBlock(C, C, kernel=2, dilation=1), tcn(2, 1)),
    "attention": (lambda: Attention(C, length=6), attention(6)),
    "attention, length 1": (lambda: Attention(C, length=1), attention(1)),
    "backward lstm": (lambda: BackwardWindow(C, LstmLayer(C, H), 5), backward(lstm, 5)),
    "backward gru, 1 sample": (lambda: BackwardWindow(C, GruLayer(C, H), 1), backward(gru, 1)),
    "delay": (lambda: Delay(C, 3), delay(3)),
    "delay, none": (lambda: Delay(C, 0), delay(0)),
}
SIZES = [(1, 1), (300, 5), (2, 1), (33, 3)]
"""T, N that a graph is run with; it was traced with none of them."""
TOLERANCE = 1e-5
"""Of float32 features near 1, ONNX Runtime against torch. Measured 5e-7 at most."""
INT8_TOLERANCE = 0.05
"""The same with integer weights, none of them trained. Measured 0.023 at most."""

Feed = dict[str, NDArray[np.float32]]
each_layer = pytest.mark.parametrize("name", LAYERS)
several = settings(max_examples=8)


@cache
def layer(name: str, dtype: torch.dtype = torch.float32) -> Stateful:
    """With no weight at a value that would hide it, such as a bias at 0."""
    torch.manual_seed(3)
    made = LAYERS[name][0]().to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        if name == "elman, relu":  # nothing else keeps it from growing without bound
            made.get_parameter("rnn.weight_hh_l0").mul_(0.5)
    return made


@cache
def graph(name: str, quantization: str) -> onnx.ModelProto:
    if quantization == "int8":
        return quantize(graph(name, "none"), "int8")
    return build_layer_graph(layer(name), C)


@cache
def session(name: str, quantization: str) -> ort.InferenceSession:
    """With the device engine's own options."""
    return _open(graph(name, quantization).SerializeToString(), name)


def fresh(made: Stateful, streams: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.zeros(streams, *row, dtype=dtype) for row in made.state_shapes.values()]


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@each_layer
@given(t=st.integers(1, 80), n=st.integers(1, 4), seed=st.integers(0, 999))
@several
def test_a_layer_computes_what_its_equations_say(name: str, t: int, n: int, seed: int) -> None:
    made, x = layer(name, torch.float64), noise(t, n, C, seed=seed)
    with torch.no_grad():
        features, _ = made(x, *fresh(made, n, torch.float64))
    weights = {key: value.numpy() for key, value in made.state_dict().items()}
    expected = np.stack([LAYERS[name][1](weights, x[:, i].numpy()) for i in range(n)], axis=1)
    assert features.shape == (t, n, made.width)
    np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=1e-12)


@each_layer
@given(t=st.integers(2, 120), n=st.integers(1, 4), data=st.data())
@several
def test_any_split_of_the_samples_gives_the_same_features(
    name: str, t: int, n: int, data: st.DataObject
) -> None:
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, t - 1), max_size=6))), t]
    made, x = layer(name, torch.float64), noise(t, n, C, seed=t)
    with torch.no_grad():
        whole, end = made(x, *fresh(made, n, torch.float64))
        state = tuple(fresh(made, n, torch.float64))
        parts = []
        for start, stop in pairwise(cuts):
            features, state = made(x[start:stop], *state)
            parts.append(features)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)
    assert [s.shape[1:] for s in state] == [torch.Size(r) for r in made.state_shapes.values()]
    for a, b in zip(state, end, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@each_layer
@given(data=st.data())
@several
def test_streams_do_not_mix(name: str, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(4)))
    made, x = layer(name, torch.float64), noise(20, 4, C, seed=7)
    state = [noise(4, *row, seed=8) for row in made.state_shapes.values()]
    with torch.no_grad():
        features, following = made(x, *state)
        shuffled, after = made(x[:, order], *(s[order] for s in state))
    torch.testing.assert_close(shuffled, features[:, order], rtol=0, atol=1e-12)
    for a, b in zip(after, following, strict=True):
        torch.testing.assert_close(a, b[order], rtol=0, atol=1e-12)


@each_layer
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    made, x = layer(name), noise(40, 3, C, seed=1, dtype=torch.float32).requires_grad_()
    state = [noise(3, *row, seed=2, dtype=torch.float32) for row in made.state_shapes.values()]
    made.zero_grad()
    features, _ = made(x, *state)
    features.square().sum().backward()
    silent = {
        key
        for key, parameter in made.named_parameters()
        if parameter.grad is None or not 0 < float(parameter.grad.norm()) < np.inf
    }
    # a single sample has no state before it to be multiplied by
    assert silent == ({"layer.gru.weight_hh_l0"} if name == "backward gru, 1 sample" else set())
    assert x.grad is not None
    assert 0 < float(x.grad.norm()) < np.inf


@each_layer
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_exported_graph_computes_the_same(name: str, quantization: str) -> None:
    made, allowed = layer(name), TOLERANCE if quantization == "none" else INT8_TOLERANCE
    for t, n in SIZES:
        x = noise(t, n, C, seed=t, dtype=torch.float32)
        state = [noise(n, *r, seed=n, dtype=torch.float32) for r in made.state_shapes.values()]
        feed: Feed = {"x": x.numpy()} | {
            f"state.{key}": value.numpy()
            for key, value in zip(made.state_shapes, state, strict=True)
        }
        with torch.no_grad():
            features, following = made(x, *state)
        got = session(name, quantization).run(None, feed)
        for a, b in zip((features, *following), got, strict=True):
            np.testing.assert_allclose(b, a.numpy(), rtol=0, atol=allowed)


@each_layer
def test_no_matrix_stays_float32_when_integers_are_asked_for(name: str) -> None:
    tensors = {t.name: t for t in graph(name, "int8").graph.initializer}
    floats = [
        key
        for key, tensor in tensors.items()
        if tensor.data_type == onnx.TensorProto.FLOAT
        and np.prod(tensor.dims) >= SMALLEST
        and sum(size > 1 for size in tensor.dims) > 1
    ]
    assert floats == []
    stored = sum(int(np.prod(t.dims)) for t in tensors.values() if t.data_type in (INT8, INT16))
    large = [p.numel() for p in layer(name).parameters() if p.dim() > 1 and p.numel() >= SMALLEST]
    assert stored == sum(large)  # every number of every matrix, once


@each_layer
def test_a_layer_is_one_fused_node_or_plain_ones(name: str) -> None:
    kinds = {"elman": "RNN", "gru": "GRU", "mingru": "GRU", "lstm": "LSTM", "fastgrnn": "Scan"}
    word = name.removeprefix("backward ").partition(",")[0]
    fused = {"RNN", "GRU", "LSTM", "Scan", "Loop", "If"}
    found = [node.op_type for node in graph(name, "none").graph.node if node.op_type in fused]
    assert found == ([kinds[word]] if word in kinds else [])


def test_nothing_of_this_machine_is_in_the_body_of_a_scan() -> None:
    (scan,) = [n for n in graph("fastgrnn", "none").graph.node if n.op_type == "Scan"]
    (body,) = [a.g for a in scan.attribute if a.name == "body"]
    notes = [n for n in (body, *body.node) if n.doc_string or n.metadata_props]
    assert (notes, len(body.initializer), b".py" in body.SerializeToString()) == ([], 0, False)


def test_weights_between_layers_are_int8_and_those_at_the_edge_and_of_mingru_int16() -> None:
    torch.manual_seed(0)
    stack = Stack([TcnBlock(C, H, 3), LstmLayer(H, H), MinGruLayer(H, H), CausalConv(H, C, 2)])
    stored = {
        tensor.name: tensor.data_type
        for tensor in quantize(build_layer_graph(stack, C), "int8").graph.initializer
        if tensor.data_type in (INT8, INT16)
    }
    wide = {name for name, kind in stored.items() if kind == INT16}
    assert wide == {
        "layer.layers.0.first.linear.weight",
        "layer.layers.0.shortcut.weight",
        "layer.layers.2.w_z",
        "layer.layers.2.w_h",
        "layer.layers.3.linear.weight",
    }
    assert len(stored) == 8


# -- what single layers promise --------------------------------------------------------------------


def one_after_the_other(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    steps = []
    for t in range(len(a)):
        h = a[t] * h + b[t]
        steps.append(h)
    return torch.stack(steps)


@given(
    t=st.one_of(st.integers(1, 130), st.sampled_from([1023, 1024, 1025, 2100])),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    seed=st.integers(0, 999),
)
@settings(max_examples=30)
def test_the_scan_and_its_gradient_are_those_of_single_steps(
    t: int, scale: float, seed: int
) -> None:
    a = torch.sigmoid(scale * noise(t, 2, 3, seed=seed)).float()  # at 1000 just about 0 and 1
    inputs = [a, noise(t, 2, 3, seed=seed + 1).float(), noise(2, 3, seed=seed + 2).float()]
    weight = noise(t, 2, 3, seed=seed + 3).float()
    found = []
    for scan in (one_after_the_other, linear_scan):
        leaves = [one.clone().requires_grad_() for one in inputs]
        y = scan(*leaves)
        found.append([y, *torch.autograd.grad((weight * y).sum(), leaves)])
    for ours, exact in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_fastgrnn_is_the_derivative() -> None:
    torch.manual_seed(0)
    made = FastGrnnLayer(3, 4, rank=2).double()
    inputs = [noise(6, 2, 3, seed=1).requires_grad_(), noise(2, 4, seed=2).requires_grad_()]

    def features(x: Tensor, h: Tensor, *_: Tensor) -> Tensor:
        y: Tensor = made(x, h)[0]
        return y

    assert torch.autograd.gradcheck(features, (*inputs, *made.parameters()))


def test_a_fresh_lstm_remembers_and_a_fresh_relu_layer_adds_up() -> None:
    made = LstmLayer(C, H).lstm
    bias = made.get_parameter("bias_ih_l0") + made.get_parameter("bias_hh_l0")
    assert torch.equal(bias[H : 2 * H], torch.ones(H))
    adding = RnnLayer(C, H, "relu")
    h = torch.rand(1, H)
    y, _ = adding(torch.zeros(5, 1, C), h)
    assert torch.equal(y[-1], h)


def test_the_factors_of_a_low_rank_layer_are_all_that_is_stored() -> None:
    made = FastGrnnLayer(C, 64, rank=6)
    tensors = build_layer_graph(made, C).graph.initializer
    numbers = sum(int(np.prod(t.dims)) for t in tensors if t.data_type == onnx.TensorProto.FLOAT)
    assert numbers == 6 * (64 + C) + 6 * (64 + 64) + 2 * 64 + 2


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    made, x = (
        TcnBlock(C, H, 3, dropout=0.5),
        noise(20, 1, C, seed=0, dtype=torch.float32),
    )
    state = fresh(made, 1)
    assert not torch.equal(made(x, *state)[0], made(x, *state)[0])
    made.eval()
    assert torch.equal(made(x, *state)[0], made(x, *state)[0])


# -- what weights start from -----------------------------------------------------------------------


def every_layer() -> Stack:
    layers = [
        RnnLayer(C, H, "relu"),
        LstmLayer(H, H),
        FastGrnnLayer(H, H),
        MinGruLayer(H, H),
    ]
    return Stack([*layers, TcnBlock(H, H, 3), Attention(H, 4), GruLayer(H, H)])


@pytest.mark.parametrize("start", STARTS)
def test_the_same_seed_starts_from_the_same_weights(start: str) -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        network = every_layer()
        initialise(network, start)
        found.append(network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("start", ["xavier", "he", "orthogonal"])
def test_a_start_changes_every_matrix_and_no_bias(start: str) -> None:
    network = every_layer()
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    initialise(network, start)
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {name for name, parameter in before.items() if parameter.dim() == 2}


def test_the_default_start_leaves_the_identity_of_a_relu_layer() -> None:
    network = every_layer()
    initialise(network, "default")
    assert torch.equal(network.get_parameter("layers.0.rnn.weight_hh_l0"), torch.eye(H))


def test_each_gate_is_orthogonal_by_itself() -> None:
    network = every_layer()
    initialise(network, "orthogonal")
    for name in ("1.lstm.weight_hh_l0", "3.linear.weight", "5.qkv.weight", "6.gru.weight_ih_l0"):
        for gate in torch.split(network.get_parameter(f"layers.{name}"), H):
            torch.testing.assert_close(gate @ gate.T, torch.eye(H), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("start", "variance"), [("xavier", 2 / (64 + 128)), ("he", 2 / 64)])
def test_entries_have_the_variance_that_the_start_asks_for(start: str, variance: float) -> None:
    torch.manual_seed(0)
    made = LstmLayer(64, 128)
    initialise(made, start)
    for gate in torch.split(made.lstm.get_parameter("weight_ih_l0"), 128):
        assert float(gate.detach().var()) == pytest.approx(variance, rel=0.1)


def test_an_unknown_start_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(EdgernnError, match=r"expected one of default, xavier, .*, got 'glorot'"):
        initialise(every_layer(), "glorot")
