"""Weights in fewer bits: every kind of network by every mode, what is measured, what is chosen."""

import csv
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from cards import make_card
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from runners import healthy
from test_detectors import CONFIGS, a_card, detector, graph

from edgernn.alarm import Limits
from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.nets import NETWORKS, Detector, NetworkConfig
from edgernn.recording import read_recording, write_recording
from edgernn.run import EpochLoss, load_run, save_run
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.train import train
from edgernn_device.engine import Engine
from edgernn_export.artefact import Candidate, Source, prepare, with_card
from edgernn_export.budget import Budget, parse_budget
from edgernn_export.choice import Measured, choose, find_misses
from edgernn_export.cli import export
from edgernn_export.compare import count_flips, largest
from edgernn_export.graph import build_graph
from edgernn_export.latency import Latency, measure_latency
from edgernn_export.qat import train_on
from edgernn_export.quality import Piece, Quality, _auc_pr_loss
from edgernn_export.quantize import computes_in_integers, quantize, stored_as
from edgernn_export.rounding import healthy_lanes, measure_moments, rounded_weight
from edgernn_export.select import Wish, select
from edgernn_export.storage import largest_of, store_float16, to_integers
from edgernn_export.verify import Proof, engine_outputs, model_outputs
from edgernn_export.vocabulary import QUANTIZATIONS
from edgernn_export.weights import SMALLEST

if TYPE_CHECKING:
    from edgernn.run import Run

KINDS = (*NETWORKS, "relu")
INTEGERS = {"int8": "int8", "int8-dynamic": "int8", "int4": "int4"}
WORST = {"none": 1e-3, "float16": 0.05, "int8": 0.5, "int8-dynamic": 3.0, "int4": 4.0}
"""Of scores below 6 of detectors that nobody trained, their weights being all of one size."""
RECURRENT = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "fastgrnn": "Scan", "mingru": "GRU"}
COMPUTED = {"lstm": ("DynamicQuantizeLSTM",)}
"""Kinds of network whose own weights "int8-dynamic" computes with in integers."""


Floats = NDArray[np.float32]


@cache
def quantized(name: str, mode: str) -> onnx.ModelProto:
    x = healthy(500, 4, seed=1)
    return quantize(graph(name), mode, moments=measure_moments(graph(name), x))


def scores(model: onnx.ModelProto, name: str) -> Floats:
    engine = Engine(with_card(model, a_card(detector(name))))
    x = healthy(300, 4, seed=7)
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    return engine.run(rows, x)[0][30:]


@pytest.mark.parametrize("mode", QUANTIZATIONS)
@pytest.mark.parametrize("name", KINDS)
def test_every_network_says_nearly_the_same_by_every_mode(name: str, mode: str) -> None:
    a, b = scores(graph(name), name), scores(quantized(name, mode), name)
    assert np.abs(np.minimum(a, 6) - np.minimum(b, 6)).max() <= WORST[mode]


@pytest.mark.parametrize("mode", QUANTIZATIONS[1:])
@pytest.mark.parametrize("name", KINDS)
def test_no_weight_of_any_network_stays_float32_by_any_mode(name: str, mode: str) -> None:
    kinds = stored_as(quantized(name, mode))
    assert stored_as(graph(name)).keys() == {"float32"}
    assert "float32" not in kinds
    assert sum(kinds.values()) == sum(stored_as(graph(name)).values())


@pytest.mark.parametrize("mode", INTEGERS)
@pytest.mark.parametrize("name", ["gru", "lstm", "rnn", "fastgrnn"])
def test_the_recurrent_weights_are_integers_of_the_mode(name: str, mode: str) -> None:
    kinds = stored_as(quantized(name, mode))
    hidden, gates = 16, {"gru": 3, "lstm": 4}.get(name, 1)
    assert kinds[INTEGERS[mode]] >= gates * hidden * hidden


@pytest.mark.parametrize("name", RECURRENT)
def test_only_the_lstm_computes_in_integers_and_says_so(name: str) -> None:
    operators = computes_in_integers(quantized(name, "int8-dynamic"))
    assert operators == COMPUTED.get(name, ())


def test_products_between_layers_are_computed_in_integers() -> None:
    assert computes_in_integers(quantized("tcn", "int8-dynamic")) == ("MatMulInteger",)


@pytest.mark.parametrize("mode", ["float16", "int8", "int4"])
@pytest.mark.parametrize("name", ["gru", "lstm", "rnn", "tcn"])
def test_stored_weights_leave_no_node_behind_in_the_loaded_graph(
    name: str, mode: str, tmp_path: Path
) -> None:
    def loaded(model: onnx.ModelProto) -> list[str]:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
        options.log_severity_level = 4
        ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return sorted(node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node)

    assert loaded(quantized(name, mode)) == loaded(graph(name))


def test_an_audit_finds_a_weight_that_stayed_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in QUANTIZATIONS[1:]:
        with monkeypatch.context() as patched:
            patched.setattr("edgernn_export.weights.WEIGHT_INPUTS", {"GRU": (1,)})
            with pytest.raises(EdgernnError, match=r"^quantisation: weight .* is still float32$"):
                quantize(graph("gru"), mode)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["int4", "int8"]))
def test_rounding_twice_is_rounding_once(rows: int, columns: int, kind: str) -> None:
    generator = np.random.default_rng(rows)
    weight = generator.standard_normal((1, 10 * rows, columns)).astype(np.float32)
    moments = {"w": np.cov(generator.standard_normal((columns, 50))).reshape(columns, columns)}
    once = rounded_weight("w", weight, kind, moments)
    again = rounded_weight("w", once, kind, moments)
    np.testing.assert_allclose(again, once, rtol=1e-5, atol=1e-7)


def test_rounding_with_feedback_moves_what_comes_out_less_than_the_nearest() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2000, 4)) @ generator.standard_normal((4, 24))  # go together
    weight = generator.standard_normal((1, 48, 24)).astype(np.float32)
    moments = {"w": x.T @ x / len(x)}
    for kind in ("int4", "int8"):
        errors = [
            np.square(x @ (rounded_weight("w", weight, kind, known)[0] - weight[0]).T).mean()
            for known in (moments, {})
        ]
        assert errors[0] < errors[1] / 4


def test_integers_keep_to_their_range_and_two_int4_share_a_byte() -> None:
    weight = np.random.default_rng(0).standard_normal((1, 64, 16)).astype(np.float32)
    stored, _ = to_integers(weight, axis=1, kind="int4")
    assert np.abs(stored).max() == largest_of("int4") == 7
    model = quantized("gru", "int4")
    (tensor,) = [
        t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT4
    ]  # recurrent, (1, 3H, H)
    assert len(tensor.raw_data) == 3 * 16 * 16 // 2
    assert np.abs(numpy_helper.to_array(tensor).astype(np.int8)).max() == 7


def test_a_number_that_float16_does_not_reach_is_refused() -> None:
    tensor = numpy_helper.from_array(np.full((8, 8), 1e5, np.float32), "w")
    with pytest.raises(
        EdgernnError, match=r"^quantisation: w holds 1e\+05, float16 ends at 65504$"
    ):
        store_float16(tensor)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_wide_networks_are_three_tenths_of_their_float32_size_and_less(kind: str) -> None:
    assert size(kind, 96, "int8", is_tight=True) <= 0.30 * size(kind, 96, "none")
    assert size(kind, 128, "int4") <= 0.18 * size(kind, 128, "none")


@cache
def size(kind: str, hidden: int, mode: str, *, is_tight: bool = False) -> int:
    """Bytes of an artefact of 8 channels without golden vectors."""
    card = msgspec.structs.replace(a_card(detector("gru")), states=wide(kind, hidden).states)
    return len(with_card(quantize(wide_graph(kind, hidden), mode, is_tight=is_tight), card))


@cache
def wide_graph(kind: str, hidden: int) -> onnx.ModelProto:
    return build_graph(wide(kind, hidden))


def wide(kind: str, hidden: int) -> Detector:
    config = NetworkConfig(kind=kind, hidden=hidden)
    return Detector(tuple("abcdefgh"), config, span=30, seed=0).eval()


@pytest.mark.parametrize(("mode", "bar"), [("none", 6350), ("int8", 6750)])
def test_card_and_graph_weigh_6_kb_and_what_turns_integers_back_half_a_kb(
    mode: str, bar: int
) -> None:
    model = quantize(wide_graph("gru", 64), mode)
    weights = sum(
        len(t.raw_data) for t in model.graph.initializer if int(np.prod(t.dims)) >= SMALLEST
    )
    assert size("gru", 64, mode) - weights <= bar


def test_the_card_has_no_more_digits_than_float32() -> None:
    card = a_card(detector("gru"))
    artefact = with_card(graph("gru"), card)
    got = Engine(artefact).card
    assert got != card
    assert all(
        np.float32(a) == np.float32(b)
        for ours, theirs in zip(card.tails, got.tails, strict=True)
        for a, b in zip((*ours.knots, *ours.scores), (*theirs.knots, *theirs.scores), strict=True)
    )


# what is measured, and what is chosen


BUDGET = Budget()
LIMITS = Limits(enter=5.0, leave=4.0, min_duration_s=0.0, recover_s=3.0, cooldown_s=0.0)


def test_flips_are_counted_at_the_true_threshold() -> None:
    quiet, near, loud = (
        np.concatenate([np.ones(20), np.full(10, level), np.ones(30)]).astype(np.float32)
        for level in (1.0, 4.9, 5.1)
    )
    assert count_flips(near, loud, LIMITS, LIMITS, period_s=1.0) == (1, 0)
    assert count_flips(loud, quiet, LIMITS, LIMITS, period_s=1.0) == (0, 1)
    lower = msgspec.structs.replace(LIMITS, enter=4.8)
    assert count_flips(loud, near, LIMITS, lower, period_s=1.0) == (0, 0)


def row(name: str, size: int, us: float, *, flips: int = 0, budget: Budget = BUDGET) -> Measured:
    candidate = Candidate(name, b"0" * size, Proof(1, (), ()))
    quality = Quality(0.1, flips, 0, 0.001)
    latency = Latency(us, us, us, us)
    misses = find_misses(candidate, quality, latency=latency, budget=budget)
    return Measured(name, candidate, quality, latency, misses)


ROWS = [
    row("none", 100, 10),
    row("int8", 40, 10.4),
    row("int8-dynamic", 45, 15),
    row("int4", 20, 40),
]


@pytest.mark.parametrize(
    ("goal", "name"), [("size", "int4"), ("latency", "int8"), ("balanced", "int8")]
)
def test_the_goal_decides_among_those_inside_the_budget(goal: str, name: str) -> None:
    assert choose(ROWS, goal, Budget()).name == name


def test_an_alarm_that_flips_costs_a_candidate_its_place() -> None:
    assert choose([*ROWS[:3], row("int4", 20, 40, flips=1)], "size", Budget()).name == "int8"


def test_no_candidate_inside_the_budget_is_refused_with_what_each_misses() -> None:
    budget = Budget(bytes=50, us=11)
    rows = [row("none", 100, 10, budget=budget), row("int4", 20, 40, flips=2, budget=budget)]
    with pytest.raises(
        EdgernnError,
        match=r"^refused: no candidate is inside the budget "
        r"\(flips=0,auc-pr=0.005,bytes=50,us=11\); no file written: 'none' misses bytes; "
        r"'int4' misses flips, us$",
    ):
        choose(rows, "size", budget)


def test_a_budget_is_read() -> None:
    budget, said = parse_budget("flips=2, auc-pr=any,bytes=2e4")
    assert budget == Budget(flips=2, auc_pr=math.inf, bytes=20_000)
    assert said == {"flips", "auc_pr", "bytes"}
    assert parse_budget("") == (Budget(), frozenset())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "flop=0",
            "expected KEY=NUMBER with a key of flips, auc-pr, difference, bytes, us, got 'flop=0'",
        ),
        (
            "flips",
            "expected KEY=NUMBER with a key of flips, auc-pr, difference, bytes, us, got 'flips'",
        ),
        ("us=fast", "us: expected a number from 0, or \"any\", got 'fast'"),
        ("us=-1", "us: expected a number from 0, or \"any\", got '-1'"),
        ("us=nan", "us: expected a number from 0, or \"any\", got 'nan'"),
        ("us=1,us=2", "us is said twice"),
    ],
)
def test_what_is_no_budget_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(EdgernnError) as caught:
        parse_budget(text)
    assert str(caught.value) == f"--budget: {sentence}"


def test_times_are_above_zero_and_grow_with_streams() -> None:
    artefact = with_card(graph("gru"), a_card(detector("gru")))
    (latency,) = measure_latency({"none": artefact}, healthy(100, 1, seed=0)[:, 0]).values()
    assert 0 < latency.us_1 < latency.us_1024
    assert 0 < latency.us_sample < latency.us_1


def test_a_labelled_piece_shorter_than_the_delay_adds_nothing() -> None:
    card = make_card(delay=7, warm_up=7)
    score = np.arange(60, dtype=np.float32)[:, None]
    whole = Piece(score[:, None], (), np.arange(60) >= 30), score, score[::-1]
    short = Piece(score[:4, None], (), np.ones(4, np.bool_)), score[:4], score[:4]
    alone = _auc_pr_loss(card, [whole])
    assert alone is not None and alone > 0.1
    assert _auc_pr_loss(card, [whole, short]) == alone


# the command


@pytest.fixture
def short_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fewer samples: what the full one finds has tests of its own."""
    monkeypatch.setattr("edgernn_export.verify.SAMPLES", 1200)


@pytest.fixture
def folder(trained_run: "Run", tmp_path: Path) -> Path:
    """A run folder of this test's own, its recording beside it."""
    config = msgspec.structs.replace(
        trained_run.config, recording=(RecordingConfig(path="../healthy.csv"),)
    )
    save_run(tmp_path / "run", replace(trained_run, config=config), [EpochLoss(1, 1.5, 1.25, 0.01)])
    return tmp_path / "run"


def run_export(folder: Path, *options: str) -> Result:
    output = folder.with_name("pump.onnx")
    return CliRunner().invoke(export, [str(folder), "-o", str(output), *options])


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "quantization.csv").open(encoding="utf-8") as file:
        return {line["candidate"]: line for line in csv.DictReader(file)}


@pytest.mark.usefixtures("short_proof")
def test_auto_measures_every_mode_and_keeps_table_and_pictures(folder: Path) -> None:
    labelled = folder.with_name("faulty.csv")
    faults = [parse_fault("leak@15m")]
    write_recording(labelled, simulate_pump(hours=0.5, seed=3, faults=faults))
    done = run_export(folder, "--quantize", "auto", "--labelled", str(labelled))
    assert done.exit_code == 0, done.exception
    rows = rows_of(folder)
    assert tuple(rows) == QUANTIZATIONS
    (chosen,) = [name for name, line in rows.items() if line["chosen"]]
    artefact = folder.with_name("pump.onnx").read_bytes()
    assert Engine(artefact).card.quantization == chosen
    inside = [line for line in rows.values() if not line["misses"]]
    assert len(artefact) == min(int(line["bytes"]) for line in inside)
    assert float(rows["none"]["difference"]) < 1e-3 < float(rows["int4"]["difference"])
    assert {float(line["auc_pr_loss"]) for line in rows.values()} != {0.0}
    assert all(float(line["us_step_n1"]) > 0 for line in rows.values())
    for name in ("quantization-quality.png", "quantization-latency.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert f"**{chosen}**" in (folder / "quantization.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("short_proof")
def test_outside_the_budget_no_file_is_written_and_the_table_still_says_why(folder: Path) -> None:
    done = run_export(folder, "--quantize", "int8", "--budget", "bytes=1000")
    assert str(done.exception) == (
        "refused: no candidate is inside the budget (flips=0,auc-pr=0.005,bytes=1000); no file "
        "written: 'int8' misses bytes"
    )
    assert rows_of(folder)["int8"]["misses"] == "bytes"
    assert not folder.with_name("pump.onnx").exists()


@pytest.mark.usefixtures("short_proof")
def test_training_on_stores_the_weights_it_trained_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recording(folder.with_name("healthy.csv"), simulate_pump(hours=3, seed=1))
    monkeypatch.setattr("edgernn_export.qat.EPOCHS", 1)
    source = prepare(load_run(folder))
    trained = train_on(source, folder, "int4")
    model = build_graph(trained.model)
    x = healthy_lanes(trained.healthy)
    stored = quantize(model, "int4", moments=measure_moments(model, x))
    ours, theirs = (
        model_outputs(trained.model, x[:200], 1, [s.numpy() for s in trained.model.fresh_state(8)]),
        Engine(with_card(stored, trained.card)),
    )
    fresh = [np.zeros((8, *s.shape), np.float32) for s in theirs.card.states]
    got = engine_outputs(theirs, x[:200], [200], 1, fresh)
    assert largest(ours.said["score"], got.said["score"]) < 0.05
    weights = [dict(run.model.named_parameters()) for run in (source.run, trained)]
    name = "network.layers.0.gru.weight_hh_l0"
    assert not torch.equal(weights[0][name], weights[1][name])
    assert len(np.unique(weights[1][name][0].detach().numpy())) <= 15  # of a row, as int4 has them


@pytest.mark.parametrize("kind", [*KINDS, "calendar"])
def test_every_network_can_be_trained_on(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgernn_export.qat.EPOCHS", 1)
    write_recording(tmp_path / "healthy.csv", simulate_pump(hours=0.5, seed=1))
    config = Config(
        recording=(RecordingConfig(path="healthy.csv"),),
        network=CONFIGS[kind][0],
        training=TrainingConfig(epochs=1, streams=8, chunk=64, device="cpu"),
    )
    run, _ = train(config, read_recording(tmp_path / "healthy.csv"), name=kind)
    trained = train_on(prepare(run), tmp_path, "int4")
    before, after = (dict(one.model.named_parameters()) for one in (run, trained))
    biases = [name for name in before if "bias" in name]  # they carry the calibrated spread
    assert all(torch.equal(before[name], after[name]) for name in biases)
    assert apart(trained) < 0.05  # what was rounded stays as it is


def apart(run: "Run") -> float:
    """Largest difference of a score below 6 that storing weights as int4 makes, on healthy data."""
    source = prepare(run)
    x = healthy_lanes(run.healthy)[:200]
    theirs = model_outputs(run.model, x, 1, [s.numpy() for s in run.model.fresh_state(8)])
    engine = Engine(with_card(quantize(source.graph, "int4", moments=source.moments), run.card))
    fresh = [np.zeros((8, *s.shape), np.float32) for s in engine.card.states]
    ours = engine_outputs(engine, x, [len(x)], 1, fresh)
    return largest(np.minimum(ours.said["score"], 6), np.minimum(theirs.said["score"], 6))


def test_training_on_with_other_recordings_is_refused(folder: Path) -> None:
    write_recording(folder.with_name("healthy.csv"), simulate_pump(hours=3, seed=2))
    with pytest.raises(
        EdgernnError,
        match=r"^--qat: the run's recordings have changed since it was trained \(another data hash",
    ):
        train_on(prepare(load_run(folder)), folder, "int8")


def test_training_on_without_the_recordings_is_refused(folder: Path) -> None:
    source = Source(load_run(folder), build_graph(load_run(folder).model), {})
    with pytest.raises(
        EdgernnError,
        match=r"^--qat trains on the run's own recordings: .*healthy.csv: no such file$",
    ):
        train_on(source, folder, "int8")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--budget", "auc-pr=0.01"),
            "--budget: auc-pr needs --labelled RECORDING to be measured on",
        ),
        (("--labelled", "gone.csv"), "gone.csv: no such file"),
        (("--budget", "flip=0"), "--budget: expected KEY=NUMBER with a key of "),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_built(
    folder: Path, options: tuple[str, str], sentence: str
) -> None:
    done = run_export(folder, *options)
    assert isinstance(done.exception, EdgernnError)
    assert str(done.exception).startswith(sentence)


def test_alarms_are_counted_for_detectors_alone(folder: Path) -> None:
    run = load_run(folder)
    wish = Wish("auto", "size", "flips=1", None, is_qat=False)
    other = replace(run, card=msgspec.structs.replace(run.card, task="forecast"))
    with pytest.raises(
        EdgernnError,
        match=r'^--labelled, flips and auc-pr: only for task "anomaly", .* "forecast"$',
    ):
        select(other, folder, wish, say=print)


def test_a_labelled_recording_without_labels_is_refused(folder: Path) -> None:
    write_recording(folder.with_name("plain.csv"), simulate_pump(hours=0.2, seed=3))
    plain = folder.with_name("plain.csv")
    lines = plain.read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("label")
    rows = [",".join(c for i, c in enumerate(line.split(",")) if i != column) for line in lines]
    plain.write_text("\n".join(rows) + "\n", encoding="utf-8")
    done = run_export(folder, "--labelled", str(plain))
    assert re.match(r"--labelled: stream .* has no labels$", str(done.exception))


@pytest.mark.parametrize("task", ["forecast", "classify"])
@pytest.mark.usefixtures("short_proof")
def test_models_without_alarms_are_chosen_by_their_difference(task: str, tmp_path: Path) -> None:
    config = Config(
        recording=(RecordingConfig(path="pump.csv"),),
        task=task,
        network=NetworkConfig(hidden=12),
        training=TrainingConfig(epochs=1, streams=8, chunk=64, device="cpu"),
    )
    faults = [parse_fault(f"leak@{minutes}m+15m") for minutes in (10, 40, 70, 100, 130, 160)]
    recording = simulate_pump(hours=3, seed=1, faults=faults if task == "classify" else [])
    run, losses = train(config, recording, name=task)
    save_run(tmp_path / "run", run, losses)
    done = run_export(tmp_path / "run", "--quantize", "auto", "--budget", "difference=0.05")
    assert done.exit_code == 0, done.exception
    rows = rows_of(tmp_path / "run")
    assert tuple(rows) == QUANTIZATIONS
    assert {line["alarms_gained"] for line in rows.values()} == {""}
    inside = [line for line in rows.values() if not line["misses"]]
    assert all(float(line["difference"]) <= 0.05 for line in inside)
    size = (tmp_path / "pump.onnx").stat().st_size
    assert size == min(int(line["bytes"]) for line in inside)


def test_a_goal_is_for_auto_alone(folder: Path) -> None:
    done = run_export(folder, "--optimise", "size")
    assert "--optimise is for --quantize auto, here --quantize int8" in done.output


def test_training_on_is_for_integers_alone(folder: Path) -> None:
    done = run_export(folder, "--quantize", "float16", "--qat")
    assert "--qat is for weights of integers, here --quantize float16" in done.output
