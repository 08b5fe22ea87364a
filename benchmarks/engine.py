"""`Engine.step` beside a bare run of its graph, and beside the one GRU op in it.

Alone: `python -m benchmarks.engine`
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measure import briefly_trained_artefact, interleaved, pump, table
from edgernn_device.engine import Engine, _open

Floats = NDArray[np.float32]

SIZES = [(n, t) for t in (1, 64) for n in (1, 64, 1024)]
HIDDEN = 32
"""The default of `[network] hidden`."""
OPSET = 21
ROUNDS = 15


def main() -> None:
    """Print the tables."""
    recording = pump()
    readings = recording.tracks[0].x  # (T, C)
    channels = len(recording.channels)
    model = briefly_trained_artefact(recording)
    graph = onnx.load_from_string(model).graph
    gru = _open(gru_model(2 * channels, HIDDEN), "gru")  # with the engine's own session options
    rows = []
    for n, t in SIZES:
        x = np.resize(readings, (t, n, channels))  # (T, N, C)
        functions = {
            "step": _step(Engine(model), x),
            "run": _bare_run(Engine(model)._session, x),
            "gru": _bare_run(gru, np.resize(x, (t, n, 2 * channels))),
        }
        times_s = interleaved(functions, rounds=ROUNDS)
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
    print("## Engine: one step of N streams by T samples\n")
    print(
        f"C = {channels} channels, H = {HIDDEN}, {len(graph.node)} nodes in the artefact, one "
        f"thread. Graph: a bare `session.run` with prepared feeds. GRU: a graph of one fused GRU, "
        f"{2 * channels} → {HIDDEN}. Median of {ROUNDS} interleaved rounds.\n"
    )
    titles = ["size", "step, µs", "graph, µs", "GRU, µs", "step, ns per sample"]
    print(table([*titles, "step / graph", "graph / GRU", "step / GRU"], rows))


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


def _bare_run(session: ort.InferenceSession, x: Floats) -> Callable[[], object]:
    """All outputs, from zero states, as a device without edgernn would call it."""
    outputs = [output.name for output in session.get_outputs()]
    feeds = {"x": x} | {
        item.name: np.zeros([x.shape[1] if s == "N" else s for s in item.shape], np.float32)
        for item in session.get_inputs()
        if item.name != "x"
    }
    return lambda: session.run(outputs, feeds)


if __name__ == "__main__":
    main()
