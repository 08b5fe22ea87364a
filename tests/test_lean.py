"""The exported graph is lean: a call of one sample holds nothing that only several need."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from runners import NAMES

from edgernn.card import KNOTS, Tail
from edgernn.nets import AdaptConfig, Detector, HeadConfig, LevelsConfig, NetworkConfig
from edgernn.nets.detector import TailScores
from edgernn_device import engine
from edgernn_export.graph import build_graph
from edgernn_export.ops.tails import ExportedTailScores
from edgernn_export.quantize import quantize

HEADS = {
    "forecast": HeadConfig(),
    "all heads": HeadConfig(kinds=("forecast", "reconstruct", "encoder-decoder"), window=8),
}
MOST_NODES = {"forecast": 80, "all heads": 202}
"""Of a step as ONNX Runtime runs it; 79 and 201 were counted."""

MOST_NODES_ADAPTING = 161
"""With a read-out and a scale that learn; 160 were counted."""

MOST_NODES_WITH_LEVELS = 151
"""Of readings and residuals; 150 were counted."""


NODES_OF_A_CALENDAR = 7
"""Two additions, a product, sine and cosine beside each other, and the clock that comes round."""


@pytest.fixture(scope="module", params=list(HEADS))
def heads(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def graph(heads: str) -> onnx.ModelProto:
    return build_graph(
        Detector(NAMES, NetworkConfig(hidden=16), HEADS[heads], span=30, seed=0).eval()
    )


def as_it_runs(
    model: onnx.ModelProto, folder: Path, monkeypatch: pytest.MonkeyPatch, samples: int | None
) -> Counter[str]:
    """Op → how many of it ONNX Runtime is left with, opened as the device does."""
    path = folder / "optimised.onnx"
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    with monkeypatch.context() as patched:
        patched.setattr(ort, "SessionOptions", lambda: options)
        engine._open(model.SerializeToString(), "graph", samples=samples)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_a_call_of_one_sample_has_no_branch_and_no_loop_for_several(
    graph: onnx.ModelProto, heads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = as_it_runs(graph, tmp_path, monkeypatch, samples=None)
    one = as_it_runs(graph, tmp_path, monkeypatch, samples=1)
    lags = 1
    assert several["If"] == lags + len(HEADS[heads].kinds)
    assert (one["If"], one["RNN"], one["Shape"]) == (0, 0, several["Shape"] - several["If"])
    assert one.total() <= MOST_NODES[heads]


def test_what_a_stream_learns_of_one_sample_takes_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = AdaptConfig(readout=True, scale=True)
    made = Detector(NAMES, NetworkConfig(hidden=16), None, everything, span=30, seed=0).eval()
    graph = build_graph(made)
    several = as_it_runs(graph, tmp_path, monkeypatch, samples=None)
    one = as_it_runs(graph, tmp_path, monkeypatch, samples=1)
    lags, means, learners = 2, 1, 1
    assert several["If"] == lags + means + learners
    assert (one["Scan"], one["If"], one["RNN"]) == (0, 0, 0)
    assert one.total() <= MOST_NODES_ADAPTING


def test_a_calendar_of_one_sample_takes_seven_nodes_and_counts_no_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NetworkConfig(hidden=16, calendar=("day", "week"))
    graph = build_graph(Detector(NAMES, network, span=30, seed=0).eval())
    one = as_it_runs(graph, tmp_path, monkeypatch, samples=1)
    assert one["Range"] == 0
    assert one.total() <= MOST_NODES["forecast"] + NODES_OF_A_CALENDAR


def test_levels_of_one_sample_take_no_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = LevelsConfig(of=("reading", "residual"))
    made = Detector(NAMES, NetworkConfig(hidden=16), None, None, both, span=30, seed=0).eval()
    graph = build_graph(made)
    several = as_it_runs(graph, tmp_path, monkeypatch, samples=None)
    one = as_it_runs(graph, tmp_path, monkeypatch, samples=1)
    lags, levels = 1, 1
    assert several["If"] == lags + levels
    assert (one["Scan"], one["If"], one["RNN"]) == (0, 0, 0)
    assert one.total() <= MOST_NODES_WITH_LEVELS


def test_nothing_of_this_machine_is_inside_a_branch(graph: onnx.ModelProto) -> None:
    branches = [a.g for node in graph.graph.node for a in node.attribute if a.g.node]
    assert len(branches) >= 4
    nodes = [node for branch in branches for node in branch.node]
    items = [*nodes, *(value for branch in branches for value in branch.output)]
    assert [item for item in items if item.metadata_props or item.doc_string] == []
    assert {node.name for node in nodes} == {""}


def test_the_read_out_behind_a_branch_is_still_found_as_one(graph: onnx.ModelProto) -> None:
    stored = {
        tensor.name: tensor.data_type
        for tensor in quantize(graph, "int8").graph.initializer
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT16)
    }
    assert stored["heads.0.read_out.linear.weight"] == onnx.TensorProto.INT16
    assert stored["layers.0.r"] == onnx.TensorProto.INT8
    assert not any("calibration" in name for name in stored)


def tail(knots: list[float], shape: float, scale: float) -> Tail:
    scores = tuple(np.linspace(0.0, 1.7, KNOTS).tolist())
    return Tail("view", tuple(knots), scores, shape, scale, extremal_index=1.0)


def test_calibration_as_matrix_products_gives_the_scores_it_gave() -> None:
    wide = np.cumsum([0.0, 1.5, 0.5, 0.3, 0.8, 2.0, 1.0, 4.0]).tolist()
    close = [0.0, *(3.0 + 3e-6 * i for i in range(KNOTS - 1))]  # a view that hardly ever moves
    scores = TailScores(3)
    scores.load([tail(wide, 0.1, 0.7), tail(close, 0.5, 1e-3), tail(wide, 0.01, 3.0)])
    surprise = torch.cat([torch.linspace(0, 12, 500), torch.logspace(1, 4, 100)])
    x = surprise.reshape(-1, 1, 1).expand(-1, 2, 3)
    torch.testing.assert_close(ExportedTailScores(scores)(x), scores(x), rtol=1e-4, atol=1e-4)
