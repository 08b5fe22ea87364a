"""The artefact: its graph, its integers, its proof, and what is refused."""

import copy
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from edgernn.alarm import Limits
from edgernn.card import CARD_KEY
from edgernn.errors import EdgernnError
from edgernn_device.engine import Engine
from edgernn_device.golden import GOLDEN_KEY
from edgernn_export import artefact as module
from edgernn_export import weights as weights_module
from edgernn_export.artefact import build_artefact, with_card, with_short_numbers
from edgernn_export.compare import flipped_alarms, largest
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize
from edgernn_export.storage import to_integers
from edgernn_export.verify import GOLDEN_SAMPLES, golden_stream, proof_stream, prove
from edgernn_export.weights import SMALLEST

if TYPE_CHECKING:
    from edgernn.run import Run

LIMITS = Limits(enter=5.0, leave=4.0, min_duration_s=0.0, recover_s=3.0, cooldown_s=0.0)


@pytest.fixture(scope="module")
def graph(trained_run: "Run") -> onnx.ModelProto:
    return build_graph(trained_run.detector)


def scores(*levels: tuple[float, int]) -> NDArray[np.float32]:
    """(T,) each level for so many samples."""
    return np.concatenate([np.full(n, level, np.float32) for level, n in levels])


def test_time_and_streams_are_free_on_every_input_and_output(graph: onnx.ModelProto) -> None:
    frozen = [
        value.name
        for value in (*graph.graph.input, *graph.graph.output)
        for dim, name in zip(
            value.type.tensor_type.shape.dim,
            ["N"] if "state." in value.name else ["T", "N"],
            strict=False,
        )
        if dim.dim_param != name
    ]
    assert frozen == []


def test_each_recurrent_layer_is_one_fused_node(graph: onnx.ModelProto) -> None:
    types = [node.op_type for node in graph.graph.node]
    assert (types.count("GRU"), types.count("Scan"), types.count("Loop")) == (1, 0, 0)


def test_an_artefact_carries_nothing_of_the_machine_that_made_it(artefact: Path) -> None:
    content = artefact.read_bytes()
    assert [w for w in (b"Traceback", b".py", b"torch.export") if w in content] == []
    model = onnx.load_from_string(content)
    names = [n for node in model.graph.node for n in (*node.input, *node.output, node.name)]
    assert not [name for name in names if "/" in name]
    assert [entry.key for entry in model.metadata_props] == [GOLDEN_KEY, CARD_KEY]
    assert str(Path.home()).encode() not in content


def test_no_weight_stays_float32_when_integers_are_asked_for(graph: onnx.ModelProto) -> None:
    quantized = quantize(graph, "int8").graph
    weights = {n.input[i] for n in quantized.node if n.op_type == "GRU" for i in (1, 2)}
    weights |= {n.input[1] for n in quantized.node if n.op_type == "MatMul"}
    floats = {t.name for t in quantized.initializer if np.prod(t.dims) >= SMALLEST}
    assert weights & floats == set()


def test_a_weight_that_the_quantiser_does_not_know_is_not_passed_over(
    graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "WEIGHT_INPUTS", {"GRU": (1,)})
    with pytest.raises(EdgernnError, match=r"^quantisation: weight .* is still float32$"):
        quantize(graph, "int8")


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from(["int4", "int8", "int16"]))
def test_an_integer_weight_is_within_half_a_step_of_the_float(
    rows: int, columns: int, kind: str
) -> None:
    weight = np.random.default_rng(rows).standard_normal((1, rows, columns)).astype(np.float32)
    stored, scale = to_integers(weight, axis=1, kind=kind)
    assert (np.abs(stored * scale[None, :, None] - weight) <= 0.52 * scale[None, :, None]).all()


def test_the_proof_passes_for_float32_with_a_thousandth_of_a_score(
    trained_run: "Run", graph: onnx.ModelProto
) -> None:
    proof = prove(with_card(graph, trained_run.card), trained_run, quantization="none")
    assert (proof.failures, proof.samples >= 5000) == ((), True)


def test_the_proof_stream_has_every_kind_of_gap(trained_run: "Run") -> None:
    x = proof_stream(trained_run.healthy, streams=2)
    missing = np.isnan(x)
    partly = missing.any(axis=-1) & ~missing.all(axis=-1)
    assert (len(x), int(missing.all(axis=-1).sum()) > 30, int(partly.sum()) > 300) == (
        10_000,
        True,
        True,
    )


def broken(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with one recurrent weight a tenth too large."""
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    (node,) = [node for node in other.graph.node if node.op_type == "GRU"]
    (weight,) = [t for t in other.graph.initializer if t.name == node.input[2]]
    weight.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(weight), weight.name))
    return other


def test_a_graph_that_says_something_else_is_refused_with_every_deviation(
    trained_run: "Run", graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "build_graph", lambda _: broken(graph))
    with pytest.raises(EdgernnError) as caught:
        build_artefact(trained_run, quantization="none")
    first, *deviations = str(caught.value).splitlines()
    assert "no file written" in first
    assert {"N=1, T=1", "N=8, ragged chunks", "N=8, T=1, from states"} <= {
        line.strip().partition(": ")[0] for line in deviations
    }


def test_a_model_that_leaves_all_bounds_is_refused_for_what_it_is(trained_run: "Run") -> None:
    wild = copy.deepcopy(trained_run)
    recurrent = next(p for n, p in wild.model.named_parameters() if "weight_hh" in n)
    recurrent.data.fill_(math.nan)
    with pytest.raises(EdgernnError, match=r"^refused: state\..* of the trained model is not fin"):
        build_artefact(wild, quantization="none")


def test_a_state_that_is_not_handed_on_is_noticed(
    trained_run: "Run", graph: onnx.ModelProto
) -> None:
    forgetful = onnx.ModelProto()
    forgetful.CopyFrom(graph)
    (node,) = [node for node in forgetful.graph.node if node.op_type == "GRU"]
    del node.input[5:]  # its initial state
    proof = prove(with_card(forgetful, trained_run.card), trained_run, quantization="none")
    assert {failure.what for failure in proof.failures} >= {"score", "state.layer.0.h"}


def test_a_refused_export_leaves_no_file_behind(run_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, edgernn_export.compare as c\n"
        "c.TOLERANCE['anomaly']['none'] = c.STATE_TOLERANCE['none'] = 1e-12\n"
        f"sys.argv = ['edgernn', 'export', {str(run_folder)!r}, '-o', 'x.onnx']\n"
        "sys.argv += ['--quantize', 'none']\n"
        "from edgernn.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, "refused" in done.stderr, list(tmp_path.iterdir())) == (2, True, [])


def test_an_alarm_that_only_one_of_two_raises_is_flipped() -> None:
    quiet, loud = scores((1, 60)), scores((1, 20), (9, 10), (1, 30))
    assert flipped_alarms(loud, quiet, LIMITS, period_s=1.0, tolerance=1.0) == ["lost at sample 20"]
    assert flipped_alarms(quiet, loud, LIMITS, period_s=1.0, tolerance=1.0) == [
        "gained at sample 20"
    ]


def test_an_alarm_at_the_threshold_is_not_flipped_by_a_difference_within_the_tolerance() -> None:
    a, b = (scores((1, 20), (level, 10), (1, 30)) for level in (5.2, 4.8))
    assert flipped_alarms(a, b, LIMITS, period_s=1.0, tolerance=0.5) == []


def test_scores_that_do_not_differ_flip_no_alarm_that_another_cools_down_over() -> None:
    limits = msgspec.structs.replace(LIMITS, cooldown_s=20.0)
    same = scores((1, 20), (4.5, 30), (2.5, 10), (9, 1), (1, 30))  # 4.5: on at a lower threshold
    assert flipped_alarms(same, same, limits, period_s=1.0, tolerance=1.0) == []


def test_the_card_in_the_file_says_how_its_weights_are_stored(
    trained_run: "Run", artefact: Path
) -> None:
    card = Engine.load(artefact).card
    card_of_run = with_short_numbers(trained_run.card)
    assert card == msgspec.structs.replace(card_of_run, quantization="int8", tolerance=1.0)


def test_a_value_that_only_the_artefact_does_not_know_is_a_deviation() -> None:
    known = np.zeros((4, 2), np.float32)
    unknown = known.copy()
    unknown[1, 1] = np.nan
    assert (largest(known, unknown), largest(unknown, unknown)) == (np.inf, 0.0)


def test_golden_samples_are_made_of_a_channel_that_comes_late(trained_run: "Run") -> None:
    (track, *_) = trained_run.healthy.tracks
    x = track.x.copy()
    x[: GOLDEN_SAMPLES + 5, -1] = np.nan
    late = replace(trained_run.healthy, tracks=(replace(track, x=x),))
    golden = golden_stream(late)  # numpy's warnings are errors here
    assert np.isnan(golden[:, -1]).all() and np.isfinite(golden[0, :-1]).all()
