"""A foreign graph → the same with named states and free lengths, or the node that forbids it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

from edgernn.card import State
from edgernn.errors import EdgernnError
from edgernn_export.adopt.recurrent import RECURRENT, recurrent
from edgernn_export.adopt.rules import RULES, WHAT, Step, apply
from edgernn_export.adopt.values import (
    FREE,
    Axis,
    Given,
    Known,
    LastCell,
    OtherOrderError,
    RefusedError,
    Signal,
    Value,
    plain,
)
from edgernn_export.adopt.writer import FLOAT, Writer, is_own
from edgernn_export.graph import OPSET

LARGEST_FOLDED = 50_000_000
"""Elements of a value that is computed beforehand."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the new graph."""

    name: str
    shape: tuple[int, ...]
    """Behind (T, N)."""
    runs: tuple[str, ...]
    """What runs along each axis of the original's, as in `values.Axis`."""


@dataclass(frozen=True, slots=True)
class Stateful:
    """What became of a foreign graph."""

    model: onnx.ModelProto
    """Inputs `x` (T, N, C) and `state.*` (N, H); outputs (T, N, …) and `state.*.next` (N, H)."""
    source: str
    """The original's input of samples."""
    order: str
    """Of its first axes: "TN" or "NT"."""
    frozen: dict[str, int]
    """"T" and "N" → the size that the original is frozen to, where it is."""
    channels: int
    states: tuple[State, ...]
    outputs: tuple[Output, ...]
    dropped: tuple[str, ...]
    """Outputs of the original that were its final states."""


def make_stateful(model: onnx.ModelProto, *, where: str) -> Stateful:
    """Rewire a graph. Raises EdgernnError naming the node that cannot be streamed, and why."""
    model = _modern(model, where)
    source = _samples(model, where)
    refused: list[RefusedError] = []
    for order in ("TN", "NT"):
        try:
            return _walk(model, source, order, where)
        except RefusedError as exc:
            refused.append(exc)
    furthest = max(refused, key=_telling)
    raise EdgernnError(f"{where}: cannot be streamed: {furthest}") from furthest


def _telling(refused: RefusedError) -> tuple[int, bool, bool]:
    """Of two orders of time and streams the wrong one is refused earlier, or for its order. Where
    neither is told from the other yet, what cannot be streamed is cut along time."""
    is_order = isinstance(refused, OtherOrderError)
    return refused.position, not is_order, WHAT["T"] in str(refused)


def _modern(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The graph without functions, in the operators of `OPSET`."""
    try:
        model = inliner.inline_local_functions(model)
        version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        return version_converter.convert_version(model, OPSET) if version < OPSET else model
    except (RuntimeError, StopIteration, version_converter.ConvertError) as exc:
        detail = " ".join(str(exc).split())[:200]
        raise EdgernnError(f"{where}: cannot be brought to opset {OPSET}: {detail}") from exc


def _samples(model: onnx.ModelProto, where: str) -> onnx.ValueInfoProto:
    """The input that the recurrent nodes run over."""
    nodes = model.graph.node
    recurrent_nodes = [node for node in nodes if node.op_type in RECURRENT]
    if not recurrent_nodes:
        kinds = ", ".join(sorted({node.op_type for node in nodes}))
        raise EdgernnError(
            f"{where}: no LSTM, GRU or RNN node, only {kinds}. PyTorch's new exporter writes "
            "nn.RNN, and any recurrent layer of free length, as single steps, tf2onnx the GRU of "
            "Keras 3 and SimpleRNN as a Loop: export with torch.onnx.export(…, dynamo=False), or "
            "with TF_USE_LEGACY_KERAS=1"
        )
    for given in model.graph.input:
        if not given.type.HasField("tensor_type"):
            kind = given.type.WhichOneof("value").removesuffix("_type")
            raise EdgernnError(f"{where}: input {given.name!r}: expected a tensor, got a {kind}")
    for sparse in model.graph.sparse_initializer:
        raise EdgernnError(f"{where}: {sparse.values.name!r}: sparse weights; store them densely")
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in stored}
    found: set[str] = set()
    made_by = {name: node for node in nodes for name in node.output if name}
    reached: set[str] = set()
    open_ = [node.input[0] for node in recurrent_nodes]
    while open_:
        name = open_.pop()
        if name in reached:
            continue
        reached.add(name)
        if name in inputs:
            found.add(name)
        elif (node := made_by.get(name)) is not None:
            open_ += node.input[:1] if node.op_type in RECURRENT else node.input
    if len(found) != 1:
        listed = ", ".join(sorted(found)) or "none"
        raise EdgernnError(f"{where}: expected one input of samples, got {len(found)}: {listed}")
    value: onnx.ValueInfoProto = inputs[found.pop()]
    kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
    if kind != FLOAT or len(dims) != 3 or not dims[2].dim_value:
        sizes = [dim.dim_value or dim.dim_param or "?" for dim in dims]
        raise EdgernnError(
            f"{where}: input {value.name!r}: expected float32 of three axes, time, streams and a "
            f"fixed number of channels, got {helper.tensor_dtype_to_string(kind)} {sizes}"
        )
    return value


def _walk(model: onnx.ModelProto, source: onnx.ValueInfoProto, order: str, where: str) -> Stateful:
    writer = Writer()
    dims = source.type.tensor_type.shape.dim
    frozen = {
        letter: dim.dim_value for letter, dim in zip(order, dims, strict=False) if dim.dim_value
    }
    sizes = FREE | frozen
    sizes["B"] = sizes["N"]
    channels = dims[2].dim_value
    values = _leaves(model)
    x = writer.transpose("x", [0, 1, 2] if order == "TN" else [1, 0, 2])
    axes = (*(Axis(letter, sizes[letter]) for letter in order), plain(channels))
    values[source.name] = Signal(x, axes)
    layers = 0
    for position, node in enumerate(model.graph.node):
        step = Step(node, [values[name] if name else None for name in node.input], writer, sizes)
        try:
            results = _results(step, layers)
        except RefusedError as exc:
            exc.position = position
            raise
        layers += node.op_type in RECURRENT
        values |= {name: value for name, value in zip(node.output, results, strict=False) if name}
    outputs, dropped = _outputs(model, values, writer, sizes, where)
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.output}
    gives = [(output.name, kinds[output.name], output.shape) for output in outputs]
    version = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    made = writer.graph(channels, gives, opset=version)
    onnx.checker.check_model(made)
    return Stateful(
        made, source.name, order, frozen, channels, tuple(writer.states), outputs, dropped
    )


def _leaves(model: onnx.ModelProto) -> dict[str, Value]:
    values: dict[str, Value] = {value.name: Given(value.name) for value in model.graph.input}
    for tensor in model.graph.initializer:
        values[tensor.name] = Known(numpy_helper.to_array(tensor))
    return values


def _results(step: Step, layers: int) -> list[Value]:
    node, inputs = step.node, [value for value in step.inputs if value is not None]
    if node.op_type == "Shape" and isinstance(inputs[0], Signal):
        sizes = [axis.size for axis in inputs[0].axes]
        sizes = sizes[step.number("start", 0) : step.number("end", len(sizes))]
        return [Known(np.array(sizes, np.int64), is_length=True)]
    if node.op_type in RECURRENT and node.domain in ("", "ai.onnx"):
        return recurrent(step, layers)
    if all(isinstance(value, Known) for value in inputs) and node.op_type not in (
        "Expand",
        "Tile",
        "ConstantOfShape",
    ):
        return _folded(step, inputs)
    return apply(step)


def _folded(step: Step, inputs: Sequence[Value]) -> list[Value]:
    """What a node gives that reads constants only."""
    known = [value for value in inputs if isinstance(value, Known)]
    is_length = any(value.is_length for value in known)
    node = step.node
    if node.op_type not in {
        *RULES,
        "Constant",
        "DequantizeLinear",
        "Range",
        "Shape",
        "Size",
        "CumSum",
        "ScatterND",
    }:
        raise step.refuse("a calculation with constants that is not known here")
    names = [name for name in node.input if name]
    feeds = {name: value.array for name, value in zip(names, known, strict=True)}
    if sum(array.size for array in feeds.values()) > LARGEST_FOLDED:
        raise step.refuse("a calculation with constants that are too large")
    try:
        results = ReferenceEvaluator(node).run(None, feeds)
    except Exception as exc:  # whatever numpy raises of what does not fit
        detail = " ".join(str(exc).split())[:200]
        raise step.refuse(f"cannot be calculated beforehand: {detail}") from exc
    return [Known(np.asarray(array), is_length) for array in results]


def _outputs(
    model: onnx.ModelProto,
    values: dict[str, Value],
    writer: Writer,
    sizes: dict[str, int],
    where: str,
) -> tuple[tuple[Output, ...], tuple[str, ...]]:
    """Every output that is more than a final state, as (T, N, …); the others are dropped."""
    signals: dict[str, Signal] = {}
    states: dict[str, Signal] = {}
    dropped: list[str] = []
    for value in model.graph.output:
        match values[value.name]:
            case Signal(is_state=False) as signal:
                signals[value.name] = signal
            case Signal() as signal:
                states[value.name] = signal
            case LastCell():
                dropped.append(value.name)
            case _:
                raise EdgernnError(f"{where}: output {value.name!r} does not hang on the samples")
    if not signals:  # it ends with its last state: that is what it says
        signals, states = states, {}
    if not signals:
        raise EdgernnError(f"{where}: no output but {', '.join(dropped)}: final cell states")
    made = []
    for name, signal in signals.items():
        if name == "x" or name.startswith("state.") or is_own(name):
            raise EdgernnError(f"{where}: output {name!r}: a name that is needed; rename it")
        ready = _time_first(signal, writer, sizes)
        if ready is None:
            raise EdgernnError(
                f"{where}: output {name!r} has no value for every sample and stream: its axes are "
                f"{[axis.runs or axis.size for axis in signal.axes]}"
            )
        writer.give(ready.name, name)
        shape = tuple(axis.size for axis in ready.axes[2:])
        made.append(Output(name, shape, tuple(axis.runs for axis in signal.axes)))
    return tuple(made), (*dropped, *states)


def _time_first(signal: Signal, writer: Writer, sizes: dict[str, int]) -> Signal | None:
    """The signal as (T, N, …); None if it lacks time or streams."""
    parted: list[Axis] = []
    for axis in signal.axes:
        letters = "TN" if axis.runs == "B" else axis.runs
        parted += [Axis(letter, sizes[letter]) for letter in letters] if letters else [axis]
    runs = [axis.runs for axis in parted]
    if sorted(word for word in runs if word) != ["N", "T"]:
        return None
    name = signal.name
    if len(parted) > len(signal.axes):
        name = writer.reshape(name, signal.axes, parted)
    order = [runs.index("T"), runs.index("N"), *(i for i, word in enumerate(runs) if not word)]
    return Signal(writer.transpose(name, order), tuple(parted[i] for i in order))
