"""`Engine.run` beside a bare run of its graph, and beside the recurrent op alone.

Alone: `python -m benchmarks.engine`
"""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measure import brief_run, interleaved, pump, table
from edgernn.nets import NETWORKS, Detector, NetworkConfig
from edgernn.recording import Recording, Track
from edgernn.run import Run
from edgernn_device.engine import Engine, _open
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph, build_layer_graph
from edgernn_export.quantize import quantize

Floats = NDArray[np.float32]

CHANNELS = 8
SIZES = [(n, t) for t in (1, 64) for n in (1, 64, 1024)]
HIDDEN = 32
"""The default of `[network] hidden`."""
OPSET = 21
ROUNDS = 15


def main() -> None:
    """Print the tables."""
    recording = _widened(pump(), CHANNELS)
    run = brief_run(recording)
    print("## Engine: one step of N streams by T samples\n")
    _sizes_table(run, recording.tracks[0].x)
    print("## Engine: one step by kind of network\n")
    _kinds_table(run, recording.tracks[0].x)


def _widened(recording: Recording, channels: int) -> Recording:
    """The recording with its first channels once more behind the others, up to so many."""
    places = np.resize(np.arange(len(recording.channels)), channels)
    names = tuple(f"{recording.channels[c]}.{i}" for i, c in enumerate(places))
    units = tuple(recording.units[c] for c in places)
    generator = np.random.default_rng(0)
    tracks = [
        Track(
            t.stream,
            t.time_s,
            t.x[:, places] + generator.normal(0, 0.01, (len(t.x), channels)).astype(np.float32),
            t.label,
        )
        for t in recording.tracks
    ]
    return Recording(names, units, tuple(tracks), recording.period_s, recording.notes)


def _sizes_table(run: Run, readings: Floats) -> None:
    model = _artefact(run.detector, run)
    bare = gru_model(2 * CHANNELS, HIDDEN)
    rows = []
    for n, t in SIZES:
        x = np.resize(readings, (t, n, CHANNELS))  # (T, N, C)
        times_s = interleaved(
            {
                "step": _step(Engine(model), x),
                "run": _bare_run(model, x),
                "gru": _bare_run(bare, np.resize(x, (t, n, 2 * CHANNELS))),
            },
            rounds=ROUNDS,
        )
        step_s, run_s, gru_s = (times_s[name] for name in ("step", "run", "gru"))
        rows.append(
            [
                f"N={n}, T={t}",
                *(f"{1e6 * value:,.1f}" for value in (step_s, run_s, gru_s)),
                f"{1e9 * step_s / (n * t):,.0f}",
                f"{step_s / run_s:.2f}",
                f"{run_s / gru_s:.2f}",
                f"{step_s / gru_s:.2f}",
            ]
        )
    print(
        f"C = {CHANNELS} channels, H = {HIDDEN}, {_nodes(model)} nodes, one thread. "
        f"Graph: a bare `session.run` with prepared feeds. GRU: a graph of one fused GRU, "
        f"{2 * CHANNELS} → {HIDDEN}. Median of {ROUNDS} interleaved rounds.\n"
    )
    titles = ["size", "step, µs", "graph, µs", "GRU, µs", "step, ns per sample"]
    print(table([*titles, "step / graph", "graph / GRU", "step / GRU"], rows))
    print(WHAT_DID_NOT_HELP)


def _kinds_table(run: Run, readings: Floats) -> None:
    rows = []
    for kind in NETWORKS:
        config = NetworkConfig(kind=kind, hidden=HIDDEN)
        detector = Detector(run.card.channel_names, config, span=60, seed=0).eval()
        model = _artefact(detector, run)
        layer = quantize(build_layer_graph(detector.network, 2 * CHANNELS), "int8")
        cells = []
        for n, t in ((1, 1), (1024, 1), (1, 64)):
            x = np.resize(readings, (t, n, CHANNELS))
            times_s = interleaved(
                {
                    "run": _bare_run(model, x),
                    "layer": _bare_run(
                        layer.SerializeToString(), np.resize(x, (t, n, 2 * CHANNELS))
                    ),
                },
                rounds=ROUNDS,
            )
            whole_s, layer_s = times_s["run"], times_s["layer"]
            cells += [f"{1e6 * whole_s:,.1f}", f"{1e6 * layer_s:,.1f}", f"{whole_s / layer_s:.2f}"]
        rows.append([kind, *cells])
    print(
        f"C = {CHANNELS}, H = {HIDDEN}, not trained, int8. Graph: the whole detector; layer: its "
        f"network alone, exported in the same way. µs of a bare `session.run`. Median of {ROUNDS} "
        f"interleaved rounds.\n"
    )
    titles = ["kind"]
    for size in ("N=1", "N=1024", "N=1, T=64"):
        titles += [f"graph, {size}", f"layer, {size}", "ratio"]
    print(table(titles, rows))


WHAT_DID_NOT_HELP = """\
What bounds the ratio: at N = 1 a node costs 0.8 µs whatever it does, and each value to hand in or
out 1 µs more; views, calibration and shares are some sixty elementary operations for which ONNX
has no larger ones. At N = 1024 an operation over (N, C) takes 4 µs, one with a vector along C 17
µs, and the GRU 500 µs.

What did not help: ONNX Runtime's arena, its memory pattern and a fixed N (each within the noise).
`run_with_ort_values` is slower than `run`. `run_with_iobinding` over values that were bound before
takes a quarter less at N = 1, but binding a step's own values and fetching its outputs takes that
back. The exponential mean as an RNN of 3C units with a diagonal matrix in place of an RNN of one
unit over 3C·N rows: half as long at N = 1024, T = 1, still ten times as long as the three
operations it now is, and longer at N = 64, T = 64. An `If` that asks for T at every call takes
four times what its branch for one sample takes.
"""


def _artefact(detector: Detector, run: Run) -> bytes:
    """As `edgernn export` writes it by default, but without proof."""
    card = msgspec.structs.replace(run.card, states=detector.states, warm_up=60, delay=0)
    return with_card(quantize(build_graph(detector), "int8"), card)


def _nodes(model: bytes) -> int:
    return len(onnx.load_from_string(model).graph.node)


def gru_model(inputs: int, hidden: int) -> bytes:
    """One fused GRU: x (T, N, inputs), h (1, N, hidden) → y (T, 1, N, hidden), next h."""
    generator = np.random.default_rng(0)
    shapes = {"w": (1, 3 * hidden, inputs), "r": (1, 3 * hidden, hidden), "b": (1, 6 * hidden)}
    weights = [
        numpy_helper.from_array(generator.uniform(-0.2, 0.2, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    node = helper.make_node(
        "GRU",
        ["x", "w", "r", "b", "", "h"],
        ["y", "h.next"],
        hidden_size=hidden,
        linear_before_reset=1,
    )
    graph = helper.make_graph(
        [node],
        "gru",
        [_value("x", "T", "N", inputs), _value("h", 1, "N", hidden)],
        [_value("y", "T", 1, "N", hidden), _value("h.next", 1, "N", hidden)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _step(engine: Engine, x: Floats) -> Callable[[], object]:
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    return lambda: engine.run(rows, x)


def _bare_run(model: bytes, x: Floats) -> Callable[[], object]:
    """All outputs, from zero states, as a device without edgernn would call it; with the session
    options of the engine."""
    session: ort.InferenceSession = _open(model, "graph", samples=1 if len(x) == 1 else None)
    outputs = [output.name for output in session.get_outputs()]
    feeds: Mapping[str, Floats] = {"x": x} | {
        item.name: np.zeros([x.shape[1] if s == "N" else s for s in item.shape], np.float32)
        for item in session.get_inputs()
        if item.name != "x"
    }
    return lambda: session.run(outputs, feeds)


if __name__ == "__main__":
    main()
