"""Proof: streamed with states, the new graph says what the original says of whole sequences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgernn.errors import EdgernnError
from edgernn_export.adopt.recurrent import RECURRENT
from edgernn_export.adopt.walk import Output, Stateful

Floats = NDArray[np.float32]
Said = Mapping[str, Floats]

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest value of the output. The same float32 sums in
another order; measured 4e-7 at worst over the layers and exporters of the tests."""
SEQUENCES = 8
"""Streams that are proven side by side."""
LENGTH = 200
"""Samples of a sequence where the original takes any length."""
PREFIXES = 24
"""Samples of a sequence where the original says something of its last sample only."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared, and what came out."""

    samples: int
    """Of each sequence."""
    sequences: int
    largest: float
    """Difference, as a share of the largest value of its output."""


class Original:
    """The foreign file, run as it came: whole sequences, from its own initial states."""

    def __init__(self, model: onnx.ModelProto, stateful: Stateful, *, where: str) -> None:
        self._stateful = stateful
        self._where = where
        inner = model.graph.node
        self._beside = [
            value
            for value in model.graph.input
            if value.name not in {tensor.name for tensor in model.graph.initializer}
            and value.name != stateful.source
        ]
        # ONNX Runtime has no layout 1: there ONNX's own reference says what the graph means
        has_layout = any(
            a.name == "layout" and a.i for n in inner if n.op_type in RECURRENT for a in n.attribute
        )
        content = model.SerializeToString()
        self._run: ReferenceEvaluator | ort.InferenceSession
        self._run = _reference(model, where) if has_layout else open_session(content, where)

    @property
    def speaks_at_the_end(self) -> bool:
        """Whether an output is of the last sample only."""
        return any("B" in output.runs for output in self._stateful.outputs)

    def of_sequences(self, x: Floats) -> Said:
        """x (T, N, C) → what is said of every sample (T, N, …), NaN where it says nothing.

        As many streams at a time as it is frozen to. What speaks of the last sample only is asked
        of every prefix, or, frozen, of the whole.
        """
        streams = x.shape[1]
        batch = self._stateful.frozen.get("N") or self._batch(x)
        parts = []
        for start in range(0, streams, batch):
            rows = np.arange(start, start + batch) % streams  # the last batch is filled up
            parts.append(self._of_batch(x[:, rows]))
        return {
            output.name: np.concatenate([part[output.name] for part in parts], axis=1)[:, :streams]
            for output in self._stateful.outputs
        }

    def _batch(self, x: Floats) -> int:
        """Streams at a time: all, or as many as the input of an initial state is frozen to."""
        sizes = {
            dim.dim_value
            for value in self._beside
            for dim in value.type.tensor_type.shape.dim
            if 0 < dim.dim_value <= x.shape[1]
        }
        tried: list[EdgernnError] = []
        every: int = x.shape[1]
        for batch in (every, *sorted(sizes - {every})):
            try:
                self._once(x[:, :batch])
            except EdgernnError as exc:
                tried.append(exc)
            else:
                return int(batch)
        raise tried[0]

    def _of_batch(self, x: Floats) -> Said:
        whole = self._once(x)
        said: dict[str, Floats] = {}
        for output in self._stateful.outputs:
            if "B" not in output.runs:
                said[output.name] = whole[output.name]
                continue
            said[output.name] = np.full((*x.shape[:2], *output.shape), np.nan, np.float32)
            said[output.name][-1] = whole[output.name][0]
        if self.speaks_at_the_end and "T" not in self._stateful.frozen:
            for t in range(1, len(x)):
                earlier = self._once(x[:t])
                for output in self._stateful.outputs:
                    if "B" in output.runs:
                        said[output.name][t - 1] = earlier[output.name][0]
        return said

    def _once(self, x: Floats) -> Said:
        """One run → (T, N, …), or (1, N, …) of what speaks of the last sample only."""
        time, streams = x.shape[:2]
        turned = x if self._stateful.order == "TN" else x.transpose(1, 0, 2)
        feeds: dict[str, NDArray[Any]] = {self._stateful.source: np.ascontiguousarray(turned)}
        for value in self._beside:
            feeds[value.name] = _beside(value, time, streams)
        names = [output.name for output in self._stateful.outputs]
        try:
            results = self._run.run(names, feeds)
        except Exception as exc:  # ONNX Runtime raises a dozen unrelated types
            detail = " ".join(str(exc).split())[:200]
            raise EdgernnError(
                f"{self._where}: the original does not run on {time} samples of {streams} "
                f"stream(s), so nothing could be proven: {detail}"
            ) from exc
        return {
            output.name: _time_first(output, np.asarray(result), time, streams, self._where)
            for output, result in zip(self._stateful.outputs, results, strict=True)
        }


def open_session(content: bytes, where: str) -> ort.InferenceSession:
    """ONNX Runtime that computes what the file says: not told otherwise, it makes a product that
    rounds activations too of a MatMul by stored integers."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # as above
        detail = " ".join(str(exc).split())[:200]
        raise EdgernnError(f"{where}: ONNX Runtime does not run it: {detail}") from exc


def _reference(model: onnx.ModelProto, where: str) -> ReferenceEvaluator:
    try:
        return ReferenceEvaluator(model)
    except Exception as exc:  # as above
        detail = " ".join(str(exc).split())[:200]
        raise EdgernnError(
            f"{where}: layout 1, which ONNX Runtime does not run, nor ONNX's reference: {detail}"
        ) from exc


def _beside(value: onnx.ValueInfoProto, time: int, streams: int) -> NDArray[np.generic]:
    """Zeros for an initial state, whole lengths for integers: free axes are of the streams."""
    tensor = value.type.tensor_type
    shape = [dim.dim_value or streams for dim in tensor.shape.dim]
    kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return np.full(shape, time if kind.kind in "iu" else 0, kind)


def _time_first(output: Output, result: Floats, time: int, streams: int, where: str) -> Floats:
    """An output of the original, its axes known, as (T, N, …)."""
    sizes = {"T": time, "N": streams}
    inner = iter(output.shape)
    shape: list[int] = []
    runs = ""
    for axis in output.runs:
        letters = "TN" if axis == "B" else axis
        shape += [1 if axis == "B" and letter == "T" else sizes[letter] for letter in letters]
        if not axis:
            shape.append(next(inner))
        runs += letters or "-"
    if result.size != int(np.prod(shape)):
        raise EdgernnError(
            f"{where}: output {output.name!r} has the shape {result.shape}, expected {shape}: what "
            "was understood of the graph is wrong"
        )
    order = [runs.index("T"), runs.index("N"), *(i for i, c in enumerate(runs) if c == "-")]
    return result.reshape(shape).transpose(order)


class Streamed:
    """The new graph on bare ONNX Runtime, its states handed on from call to call."""

    def __init__(self, session: ort.InferenceSession, stateful: Stateful) -> None:
        self._session = session
        self._states = stateful.states
        self._said = [output.name for output in stateful.outputs]

    def run(self, x: Floats, chunks: Sequence[int]) -> Said:
        """x (T, N, C) from fresh states, so many samples a call → (T, N, …)."""
        state = {
            s.name: np.full((x.shape[1], *s.shape), s.initial, np.float32) for s in self._states
        }
        names = [*self._said, *(f"{name}.next" for name in state)]
        parts = []
        start = 0
        for length in chunks:
            chunk = np.ascontiguousarray(x[start : start + length])
            results = self._session.run(names, {"x": chunk, **state})
            parts.append(results[: len(self._said)])
            state = dict(zip(state, results[len(self._said) :], strict=True))
            start += length
        return {name: np.concatenate([p[i] for p in parts]) for i, name in enumerate(self._said)}


def prove_streaming(model: onnx.ModelProto, stateful: Stateful, x: Floats, *, where: str) -> Proof:
    """Compare the original on whole sequences with the new graph sample by sample and in ragged
    chunks, one stream and several. x (T, N, C) as `sequences` or `noise` give them.

    Raises EdgernnError with every deviation.
    """
    truth = Original(model, stateful, where=where).of_sequences(x)
    streamed = Streamed(open_session(stateful.model.SerializeToString(), where), stateful)
    deviations: list[str] = []
    largest = 0.0
    for name, streams, chunks in runs(x):
        got = streamed.run(x[:, :streams], chunks)
        for output, true in truth.items():
            difference = relative(true[:, :streams], got[output])
            largest = max(largest, difference)
            if not difference <= TOLERANCE:
                deviations.append(f"{name}: {output} differs by {difference:.3g} of its range")
    if "T" in stateful.frozen:  # and beyond the length that the original takes, in one piece
        beyond = np.concatenate([x] * 3)
        single = streamed.run(beyond, [1] * len(beyond))
        for output, whole in streamed.run(beyond, [len(beyond)]).items():
            difference = relative(single[output], whole)
            largest = max(largest, difference)
            if not difference <= TOLERANCE:
                deviations.append(
                    f"T={len(beyond)}: {output} differs by {difference:.3g} of its range from T=1"
                )
    if deviations:
        lines = "\n  ".join(deviations)
        raise EdgernnError(
            f"{where}: refused: streamed, it does not say what the original says of whole "
            f"sequences (allowed {TOLERANCE:g}); no file written\n  {lines}"
        )
    return Proof(len(x), x.shape[1], largest)


def runs(x: Floats) -> Iterator[tuple[str, int, list[int]]]:
    """Name, streams and chunks of each way to stream x (T, N, C)."""
    whole = len(x)
    yield "N=1, T=1", 1, [1] * whole
    yield f"N={x.shape[1]}, T=1", x.shape[1], [1] * whole
    generator = np.random.default_rng(1)
    chunks: list[int] = []
    while (left := whole - sum(chunks)) > 0:
        chunks.append(min(left, int(generator.choice([1, 2, 3, 7, 16]))))
    yield f"N={x.shape[1]}, ragged chunks", x.shape[1], chunks


def relative(true: Floats, got: Floats) -> float:
    """Largest difference as a share of the largest true value; where the truth is NaN, nothing was
    said. Infinite if there is nothing to compare or a value is not finite."""
    known = ~np.isnan(true)
    if true.shape != got.shape or not known.any() or not np.isfinite(got[known]).all():
        return float("inf")
    scale = max(float(np.abs(true[known]).max()), 1e-6)
    return float(np.abs(true[known].astype(np.float64) - got[known]).max() / scale)


def length_of(stateful: Stateful, *, where: str) -> int:
    """Samples of a proof's sequences. Raises EdgernnError if a frozen length proves nothing."""
    frozen = stateful.frozen.get("T")
    if frozen == 1:
        raise EdgernnError(
            f"{where}: it is frozen to sequences of one sample, so nothing could prove that its "
            "states are handed on; export with an example of three samples or more"
        )
    at_the_end = any("B" in output.runs for output in stateful.outputs)
    return frozen or (PREFIXES if at_the_end else LENGTH)


def noise(stateful: Stateful, *, where: str) -> Floats:
    """(T, N, C) samples to prove with where there are no real ones."""
    shape = (length_of(stateful, where=where), streams_of(stateful), stateful.channels)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def streams_of(stateful: Stateful) -> int:
    """Sequences side by side: a multiple of what the original is frozen to."""
    batch = stateful.frozen.get("N", 1)
    return batch * -(-SEQUENCES // batch)
