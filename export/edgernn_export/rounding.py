"""Which way each number of a weight is rounded: so that what comes of it changes least.

Rounded one by one to the nearest integer, the errors of a row add up. Here each number's error is
made good by those that are still to be rounded, as far as their inputs go together on healthy data:
Source: Frantar et al. 2023, "GPTQ",
arXiv:2210.17323, after Hassibi and Stork 1993; order of columns and damping as there.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray

from edgernn.recording import Recording
from edgernn_device.engine import _open
from edgernn_export.storage import Floats, Integers, channel_scale, largest_of, to_integers
from edgernn_export.weights import AXIS, find_weights

Moments = Mapping[str, NDArray[np.float64]]
"""Weight → second moments (I, I) of what it is multiplied by."""

LANES, LONGEST = 8, 1000
"""Streams side by side, and samples of each: beyond that the moments stand still."""
DAMPING = 0.01
"""Of the mean second moment, added to each: inputs that are never seen keep to the nearest."""
SHRINKS = np.linspace(1.0, 0.6, 9)
"""Shares of a channel's largest magnitude that are tried as its range. Of int4 a smaller one, which
cuts off the largest weights, is often the better."""


def healthy_lanes(healthy: Recording) -> Floats:
    """(T, N, C) the healthy samples as `LANES` streams side by side, the end of them left off."""
    together = np.concatenate([track.x for track in healthy.tracks])
    length = min(max(1, len(together) // LANES), LONGEST)
    cut = together[: len(together) // length * length][: length * LANES]
    return np.ascontiguousarray(cut.reshape(-1, length, cut.shape[1]).transpose(1, 0, 2))


def timed_lanes(healthy: Recording) -> tuple[Floats, list[float]]:
    """As many healthy samples (T, N, C), in lanes all over the recording, so that they have been at
    most times of the day, and the times (N,) of their first ones."""
    together = np.concatenate([track.x for track in healthy.tracks])
    time_s = np.concatenate([track.time_s for track in healthy.tracks])
    length = min(max(1, len(together) // LANES), LONGEST)
    firsts = np.linspace(0, len(together) - length, min(LANES, len(together))).astype(int)
    x = np.stack([together[first : first + length] for first in firsts], axis=1)
    return x, time_s[firsts].tolist()


def measure_moments(
    model: onnx.ModelProto, x: Floats, states: Mapping[str, Floats] = MappingProxyType({})
) -> dict[str, NDArray[np.float64]]:
    """Second moments of the input of every weight of a float32 graph, over x (T, N, C) from fresh
    states: 0, or as `states` has them, name → (N, …)."""
    asked = {weight.name for weight in find_weights(model.graph)}
    sources = {name: value for name, value in _inputs(model.graph) if name in asked}
    inner = set(sources.values()) - {"x"}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(inner))
    session = _open(probe.SerializeToString(), "moments")
    feeds = {"x": x} | {
        item.name: np.zeros([x.shape[1], *item.shape[1:]], np.float32)
        for item in session.get_inputs()
        if item.name != "x"
    }
    feeds |= states
    found = session.run(sorted(inner), feeds) if inner else []  # it takes no empty list for none
    values = dict(zip(sorted(inner), found, strict=True)) | {"x": x}
    return {weight: _moment(values[source]) for weight, source in sources.items()}


def round_weight(name: str, weight: Floats, kind: str, moments: Moments) -> tuple[Integers, Floats]:
    """Integers of the weight's shape and a scale for each of its output channels: with feedback
    where there are moments of its inputs, else the nearest."""
    if name not in moments:
        return to_integers(weight, axis=AXIS, kind=kind)
    is_recurrent = weight.ndim == 3  # (1, O, I), one direction; else (I, O)
    rows = weight[0] if is_recurrent else weight.T
    stored, scale = _with_feedback(rows, moments[name], kind)
    return np.ascontiguousarray(stored[None] if is_recurrent else stored.T), scale


def rounded_weight(name: str, weight: Floats, kind: str, moments: Moments) -> Floats:
    """The weight as the device will have it."""
    stored, scale = round_weight(name, weight, kind, moments)
    shape = [-1 if i == AXIS else 1 for i in range(weight.ndim)]
    back: Floats = stored * scale.reshape(shape)
    return back.astype(np.float32)


def _with_feedback(
    weight: Floats, moment: NDArray[np.float64], kind: str
) -> tuple[Integers, Floats]:
    """weight (O, I), moment (I, I) → integers (O, I) and a scale (O,) for each row."""
    damped = moment + DAMPING * moment.diagonal().mean() * np.eye(len(moment)) + 1e-12
    order = np.argsort(-moment.diagonal(), kind="stable")
    factor = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T  # upper: U'U = H⁻¹
    left = weight[:, order].astype(np.float64)
    scale = _best_scale(left, np.diag(factor), kind)
    limit = largest_of(kind)
    stored = np.zeros_like(left)
    for i in range(left.shape[1]):
        stored[:, i] = np.clip(np.rint(left[:, i] / scale), -limit, limit)
        error = (left[:, i] - stored[:, i] * scale) / factor[i, i]
        left[:, i:] -= error[:, None] * factor[i, i:]
    back = np.empty_like(stored)
    back[:, order] = stored
    return back.astype(np.int16 if kind == "int16" else np.int8), scale


def _best_scale(weight: NDArray[np.float64], diagonal: NDArray[np.float64], kind: str) -> Floats:
    """Of each row, the range that loses least, as far as that shows in single numbers."""
    peak = np.abs(weight).max(axis=1).astype(np.float32)
    if kind != "int4":
        return channel_scale(peak, kind)
    scales = np.stack([channel_scale(peak * share, kind) for share in SHRINKS])  # (S, O)
    limit = largest_of(kind)
    losses = []
    for scale in scales:
        stored = np.clip(np.rint(weight / scale[:, None]), -limit, limit)
        losses.append((((weight - stored * scale[:, None]) / diagonal) ** 2).sum(1))
    best: Floats = scales[np.argmin(losses, axis=0), np.arange(len(weight))]
    return best


def _inputs(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Each weight and the value that it is multiplied by, where that is seen from outside."""
    parts = {node.output[0]: list(node.input) for node in graph.node if node.op_type == "Concat"}
    for node in graph.node:
        match node.op_type:
            case "GRU" | "LSTM" | "RNN":
                for name in parts.get(node.input[1], [node.input[1]]):
                    yield name, node.input[0]
                for name in parts.get(node.input[2], [node.input[2]]):
                    yield name, node.output[0]  # the state is the output, a sample later
            case "MatMul":
                yield node.input[1], node.input[0]


def _moment(value: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    return rows.T @ rows / max(len(rows), 1)
