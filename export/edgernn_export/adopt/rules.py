"""Operator → what becomes of time, streams and features in it, or why it cannot be streamed.

An operator without a rule is refused: nothing is known of what it does to time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import onnx
from onnx import helper

from edgernn_export.adopt.values import (
    Array,
    Axis,
    Fill,
    Given,
    Known,
    LastCell,
    RefusedError,
    Signal,
    Value,
    arrangements,
    plain,
    uniform,
)
from edgernn_export.adopt.writer import Writer

WHAT = {"T": "time", "N": "the streams", "TN": "time", "NT": "time", "B": "the streams"}
"""What runs along an axis, for a sentence."""


@dataclass(slots=True)
class Step:
    """One node of the original on its way into the new graph."""

    node: onnx.NodeProto
    inputs: list[Value | None]
    writer: Writer
    sizes: dict[str, int]
    """Of T, N and B in the original, or the primes that stand for them."""
    attributes: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    def refuse(self, reason: str) -> RefusedError:
        return RefusedError(self.node, reason)

    def number(self, name: str, default: int) -> int:
        value = self.attributes.get(name, default)
        assert isinstance(value, int)
        return value

    def numbers(self, name: str, position: int) -> list[int] | None:
        """Integers that are an attribute in older operators and an input in newer ones."""
        if name in self.attributes:
            return [int(n) for n in np.atleast_1d(np.asarray(self.attributes[name]))]
        if (array := self.array(position)) is None:
            return None
        return [int(n) for n in array.reshape(-1)]

    def array(self, position: int) -> Array | None:
        """A known input; None where there is none."""
        if position >= len(self.inputs) or (value := self.inputs[position]) is None:
            return None
        if not isinstance(value, Known):
            raise self.refuse(f"input {position} is expected to be a constant")
        return value.array

    def signal(self, position: int = 0) -> Signal:
        value = self.inputs[position]
        if not isinstance(value, Signal):
            raise self.refuse(f"input {position} is expected to follow from the samples")
        return value

    def axis(self, axis: int, rank: int) -> int:
        if not -rank <= axis < rank:
            raise self.refuse(f"axis {axis} of a value with {rank} axes")
        return axis % rank

    def only_features(self, axes: Sequence[int], doing: str) -> None:
        """Refuses axes of the first input that time or streams run along."""
        for i in axes:
            if runs := self.signal().axes[i].runs:
                raise self.refuse(f"{doing} {WHAT[runs]} (axis {i})")

    def names(self) -> list[str]:
        """What the inputs are called in the new graph; constants are stored there."""
        found = []
        for value in self.inputs:
            match value:
                case None:
                    found.append("")
                case Signal(name=name):
                    found.append(name)
                case Known(is_length=True):
                    raise self.refuse("calculates with the number of samples or streams")
                case Known(array=array):
                    found.append(self.writer.constant(array))
                case _:
                    raise self.refuse("combines the samples with an initial or a final state")
        return found

    def copied(self, axes: Sequence[Axis], *, is_state: bool = False) -> list[Value]:
        """The node as it is, with this one output."""
        return [Signal(self.writer.copy(self.node, self.names())[0], tuple(axes), is_state)]


Rule = Callable[[Step], list[Value]]


def elementwise(step: Step) -> list[Value]:
    """Each value by itself, shapes broadcast."""
    shapes: list[tuple[Axis, ...]] = []
    for value in step.inputs:
        match value:
            case Signal(axes=axes):
                shapes.append(axes)
            case Known(array=array):
                shapes.append(tuple(plain(size) for size in array.shape))
    if not shapes:  # arithmetic with fills alone
        raise step.refuse("input 0 is expected to follow from the samples")
    rank = max(map(len, shapes))
    together: list[Axis] = []
    for i in range(-rank, 0):
        column = {shape[i] for shape in shapes if len(shape) >= -i}
        wide = {axis for axis in column if axis.runs or axis.size != 1}
        if any(axis.runs for axis in wide) and len(wide) > 1:
            kinds = sorted(WHAT.get(axis.runs, "features") for axis in wide)
            if kinds[0] == kinds[-1]:
                raise step.refuse("combines the last sample with all samples")
            raise step.refuse(
                f"has values of its own for each place along {WHAT['T']}"
                if {axis.runs for axis in wide} == {"T", ""}
                else f"combines {' with '.join(kinds)}"
            )
        together.append(next(iter(wide), plain(1)) if len(wide) < 2 else max(wide, key=_size))
    return step.copied(together)


def _size(axis: Axis) -> int:
    return axis.size


def identity(step: Step) -> list[Value]:
    value = step.inputs[0]
    assert value is not None
    return [value]


def transpose(step: Step) -> list[Value]:
    signal = step.signal()
    rank = len(signal.axes)
    order = step.numbers("perm", 9) or list(range(rank))[::-1]
    name = step.writer.transpose(signal.name, order)
    return [Signal(name, tuple(signal.axes[i] for i in order), signal.is_state)]


def squeeze(step: Step) -> list[Value]:
    signal = step.signal()
    rank = len(signal.axes)
    chosen = step.numbers("axes", 1)
    if chosen is None:
        if any(axis.runs and axis.size == 1 for axis in signal.axes):
            raise step.refuse("which axes it drops hangs on the number of samples or streams")
        chosen = [i for i, axis in enumerate(signal.axes) if axis.size == 1]
    gone = {step.axis(i, rank) for i in chosen}
    step.only_features(sorted(gone), "drops the axis of")
    return _reshaped(step, [axis for i, axis in enumerate(signal.axes) if i not in gone])


def unsqueeze(step: Step) -> list[Value]:
    signal = step.signal()
    new = step.numbers("axes", 1) or []
    rank = len(signal.axes) + len(new)
    places = {step.axis(i, rank) for i in new}
    left = iter(signal.axes)
    return _reshaped(step, [plain(1) if i in places else next(left) for i in range(rank)])


def reshape(step: Step) -> list[Value]:
    signal = step.signal()
    array = step.array(1)
    if array is None or (step.number("allowzero", 0) and 0 in array):
        raise step.refuse("a shape that is not known beforehand")
    return _arranged(step, _sizes(step, signal, [int(n) for n in array]))


def flatten(step: Step) -> list[Value]:
    sizes = [axis.size for axis in step.signal().axes]
    cut = step.number("axis", 1)
    cut = cut + len(sizes) if cut < 0 else cut
    return _arranged(step, [int(np.prod(sizes[:cut])), int(np.prod(sizes[cut:]))])


def _sizes(step: Step, signal: Signal, target: list[int]) -> list[int]:
    """A reshape's target without 0 and −1."""
    before = [axis.size for axis in signal.axes]
    sizes = [before[i] if n == 0 and i < len(before) else n for i, n in enumerate(target)]
    known = int(np.prod([n for n in sizes if n != -1]))
    whole = int(np.prod(before))
    if -1 in sizes and known and whole % known == 0:
        sizes[sizes.index(-1)] = whole // known
    if int(np.prod(sizes)) != whole:
        raise step.refuse(
            f"reshapes to {target}, which holds for one length or number of streams only, and the "
            "graph's input does not say which"
        )
    return sizes


def _arranged(step: Step, sizes: list[int]) -> list[Value]:
    ways = arrangements(step.signal().axes, sizes, step.sizes)
    if not ways:
        raise step.refuse("mixes time or streams with features, so it needs the whole sequence")
    if len(ways) > 1:
        raise step.refuse(
            "which axis is time cannot be told from sizes of 1; export again with an example of "
            "two streams and three samples"
        )
    return _reshaped(step, ways[0])


def _reshaped(step: Step, after: Sequence[Axis]) -> list[Value]:
    signal = step.signal()
    name = step.writer.reshape(signal.name, signal.axes, after)
    return [Signal(name, tuple(after), signal.is_state)]


def gather(step: Step) -> list[Value]:
    signal = step.signal()
    index = step.array(1)
    i = step.axis(step.number("axis", 0), len(signal.axes))
    axis = signal.axes[i]
    if index is None:
        raise step.refuse("which values it takes is not known beforehand")
    if (
        axis.runs == "T"
        and index.shape in ((), (1,))
        and int(index.reshape(()))
        in (
            -1,
            axis.size - 1,
        )
    ):
        (last,) = take_last(step, signal, i)
        if index.shape:
            return _reshaped_from(step, last, [*last.axes[:i], plain(1), *last.axes[i:]])
        return [last]
    step.only_features([i], "takes only some values along")
    put = [plain(size) for size in index.shape]
    return step.copied([*signal.axes[:i], *put, *signal.axes[i + 1 :]], is_state=signal.is_state)


def slice_(step: Step) -> list[Value]:
    signal = step.signal()
    starts, ends = step.numbers("starts", 1), step.numbers("ends", 2)
    if starts is None or ends is None:
        raise step.refuse("which values it takes is not known beforehand")
    chosen = step.numbers("axes", 3) or list(range(len(starts)))
    steps = step.numbers("steps", 4) or [1] * len(starts)
    axes = list(signal.axes)
    kept: list[tuple[int, int, int, int]] = []
    last: int | None = None
    for number, start, end, by in zip(chosen, starts, ends, steps, strict=True):
        i = step.axis(number, len(axes))
        size = axes[i].size
        taken = range(size)[slice(start, None if by < 0 and end < -size else end, by)]
        if taken == range(size):
            continue
        if axes[i].runs == "T" and list(taken) == [size - 1]:
            last = i
            continue
        step.only_features([i], "takes only some values along")
        kept.append((i, start, end, by))
        axes[i] = plain(len(taken))
    name = signal.name
    if kept:
        columns = [step.writer.integers(*column) for column in zip(*kept, strict=True)]
        name = step.writer.add("Slice", [name, columns[1], columns[2], columns[0], columns[3]])[0]
    signal = Signal(name, tuple(axes), signal.is_state)
    if last is None:
        return [signal]
    (row,) = take_last(step, signal, last)
    return _reshaped_from(step, row, [*row.axes[:last], plain(1), *row.axes[last:]])


def take_last(step: Step, signal: Signal, time: int) -> list[Signal]:
    """The last sample of each stream → every sample: time moves into the axis of the streams."""
    axes = signal.axes
    streams = [i for i, axis in enumerate(axes) if axis.runs == "N"]
    if not streams:
        raise step.refuse("takes the last sample of a value that has no axis of streams")
    order = [i for i in range(len(axes)) if i != time]
    place = order.index(streams[0])
    order.insert(place, time)
    name = step.writer.transpose(signal.name, order)
    joined = [axes[i] for i in order if i != time]
    joined[place] = Axis("B", step.sizes["B"])
    name = step.writer.reshape(name, [axes[i] for i in order], joined)
    return [Signal(name, tuple(joined), signal.is_state)]


def _reshaped_from(step: Step, signal: Signal, after: Sequence[Axis]) -> list[Value]:
    name = step.writer.reshape(signal.name, signal.axes, after)
    return [Signal(name, tuple(after), signal.is_state)]


def concat(step: Step) -> list[Value]:
    signals = [step.signal(i) for i in range(len(step.inputs))]
    i = step.axis(step.number("axis", 0), len(signals[0].axes))
    step.only_features([i], "puts values one behind the other along")
    rests = {(*s.axes[:i], *s.axes[i + 1 :]) for s in signals}
    if len(rests) > 1 or any(s.axes[i].runs for s in signals):
        raise step.refuse("joins values whose axes of time and streams differ")
    axes = list(signals[0].axes)
    axes[i] = plain(sum(s.axes[i].size for s in signals))
    return step.copied(axes, is_state=all(s.is_state for s in signals))


def split(step: Step) -> list[Value]:
    signal = step.signal()
    i = step.axis(step.number("axis", 0), len(signal.axes))
    step.only_features([i], "parts")
    size, count = signal.axes[i].size, len(step.node.output)
    share = -(-size // count)
    shares = step.numbers("split", 1) or [share] * (count - 1) + [size - share * (count - 1)]
    ends = list(accumulate(shares))
    parts: list[Value] = []
    for start, end in zip([0, *ends], ends, strict=False):
        bounds = [step.writer.integers(n) for n in (start, end, i)]
        name = step.writer.add("Slice", [signal.name, *bounds])[0]
        axes = [*signal.axes[:i], plain(end - start), *signal.axes[i + 1 :]]
        parts.append(Signal(name, tuple(axes), signal.is_state))
    return parts


def matmul(step: Step) -> list[Value]:
    axes, weight = step.signal().axes, _weight(step)
    step.only_features([len(axes) - 1], "sums over")
    if weight.ndim != 2:
        raise step.refuse("multiplies with a stack of matrices")
    return step.copied([*axes[:-1], plain(weight.shape[1])])


def gemm(step: Step) -> list[Value]:
    axes, weight = step.signal().axes, _weight(step)
    if step.number("transA", 0):
        raise step.refuse("sums over the axis of the streams")
    step.only_features([1], "sums over")
    offset = step.array(2)
    if offset is not None and offset.ndim == 2 and offset.shape[0] != 1:
        raise step.refuse("adds values of its own for each row")
    return step.copied([axes[0], plain(weight.shape[0 if step.number("transB", 0) else 1])])


def _weight(step: Step) -> Array:
    if isinstance(step.inputs[1], Signal):
        raise step.refuse("multiplies values of one sample with those of others, as attention does")
    weight = step.array(1)
    assert weight is not None
    return weight


def along_axis(step: Step) -> list[Value]:
    """One axis is looked at as a whole, and stays."""
    axes = step.signal().axes
    i = step.axis(step.number("axis", -1), len(axes))
    step.only_features([i], "looks at all values along")
    return step.copied(axes)


def layer_normalization(step: Step) -> list[Value]:
    axes = step.signal().axes
    first = step.axis(step.number("axis", -1), len(axes))
    step.only_features(range(first, len(axes)), "looks at all values along")
    return step.copied(axes)


def batch_normalization(step: Step) -> list[Value]:
    axes = step.signal().axes
    step.only_features([1], "has values of its own for each place along")
    if step.number("training_mode", 0):
        raise step.refuse("is in training mode: its mean is that of the whole batch")
    return step.copied(axes)


def reduce_(step: Step) -> list[Value]:
    axes = list(step.signal().axes)
    chosen = step.numbers("axes", 1)
    if chosen is None and not step.number("noop_with_empty_axes", 0):
        chosen = list(range(len(axes)))
    return _reduced(step, {step.axis(i, len(axes)) for i in chosen or []})


def arg_reduce(step: Step) -> list[Value]:
    return _reduced(step, {step.axis(step.number("axis", 0), len(step.signal().axes))})


def _reduced(step: Step, gone: set[int]) -> list[Value]:
    axes = step.signal().axes
    step.only_features(sorted(gone), "looks at all values along")
    if step.number("keepdims", 1):
        return step.copied([plain(1) if i in gone else axis for i, axis in enumerate(axes)])
    return step.copied([axis for i, axis in enumerate(axes) if i not in gone])


def conv(step: Step) -> list[Value]:
    axes = step.signal().axes
    if any(axis.runs for axis in axes[2:]) and set(step.numbers("kernel_shape", 99) or [0]) != {1}:
        raise step.refuse(
            "a convolution along time: its neighbouring samples are not there when a sample comes"
        )
    step.only_features([1], "has weights of its own for each place along")
    if any(step.numbers("pads", 99) or []) or set(step.numbers("strides", 99) or [1]) != {1}:
        raise step.refuse("a convolution that changes the number of samples")
    weight = step.array(1)
    assert weight is not None
    if set(step.numbers("kernel_shape", 99) or [0]) != {1}:
        raise step.refuse("a convolution other than of single values")
    return step.copied([axes[0], plain(weight.shape[0]), *axes[2:]])


REASONS = {
    "Attention": "attention sees the whole sequence at once",
    "MultiHeadAttention": "attention sees the whole sequence at once",
    "Loop": "a loop over the whole sequence; only LSTM, GRU and RNN nodes can be given states",
    "Scan": "a loop over the whole sequence; only LSTM, GRU and RNN nodes can be given states",
    "If": "a branch of the graph; export again with a fixed one",
    "SplitToSequence": "the sequence is taken apart sample by sample",
    "ReverseSequence": "the sequence is run backwards, from an end that has not come yet",
    "CumSum": "a sum over all samples",
    "Expand": "repeats what it knows of one sample, as the decoder of a whole sequence does",
    "Tile": "repeats what it knows of one sample, as the decoder of a whole sequence does",
    "Pad": "adds samples or features",
}
"""Why an operator without a rule has none."""

STRUCTURAL = frozenset(
    (
        "Cast",
        "Concat",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    )
)
"""Operators that only arrange values."""


def _rules() -> Mapping[str, Rule]:
    by_element = (
        "Abs Add And BitShift Cast Ceil Celu Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater "
        "GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean "
        "Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus"
        " Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"
    )
    reduces = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
    return {
        **dict.fromkeys(by_element.split(), elementwise),
        **dict.fromkeys((f"Reduce{word}" for word in reduces.split()), reduce_),
        **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
        **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), along_axis),
        **dict.fromkeys(("Dropout", "Identity"), identity),
        "BatchNormalization": batch_normalization,
        "Concat": concat,
        "Conv": conv,
        "Flatten": flatten,
        "Gather": gather,
        "Gemm": gemm,
        "LayerNormalization": layer_normalization,
        "MatMul": matmul,
        "Reshape": reshape,
        "Slice": slice_,
        "Split": split,
        "Squeeze": squeeze,
        "Transpose": transpose,
        "Unsqueeze": unsqueeze,
    }


RULES = _rules()


def apply(step: Step) -> list[Value]:
    """What a node gives. Raises RefusedError if it cannot be streamed, or nobody knows."""
    op_type, inputs = step.node.op_type, [value for value in step.inputs if value is not None]
    if (arranged := _beside_the_samples(step, inputs)) is not None:
        return arranged
    for value in inputs:
        if isinstance(value, LastCell):
            raise step.refuse(
                f"reads the final cell state of {value.node}, and ONNX gives that of the last "
                "sample only; the hidden state is there for every sample"
            )
        if isinstance(value, Given):
            raise step.refuse(f"reads {value.name!r}, which is no input of samples")
    if op_type not in RULES or step.node.domain not in ("", "ai.onnx"):
        raise step.refuse(REASONS.get(op_type, "what this operator does to time is not known here"))
    return RULES[op_type](step)


def _beside_the_samples(step: Step, inputs: Sequence[Value]) -> list[Value] | None:
    """States and fills, which may be arranged in any way, as nobody reads their shapes."""
    op_type, first = step.node.op_type, inputs[0] if inputs else None
    count = len(step.node.output)
    if op_type == "ConstantOfShape" and isinstance(first, Known):
        value = step.attributes.get("value")
        number = 0.0 if value is None else uniform(onnx.numpy_helper.to_array(value))  # type: ignore[arg-type]
        assert number is not None
        return [Fill(number)]
    if op_type in ("Expand", "Tile") and isinstance(first, Known):
        number = uniform(first.array)
        if number is None:
            raise step.refuse("repeats different values for each sample or stream")
        return [Fill(number)]
    if op_type not in STRUCTURAL:
        return None
    if op_type == "Concat":
        kinds = {type(value) for value in inputs}
        if (
            LastCell in kinds
            and kinds <= {LastCell, Signal}
            and all(not isinstance(value, Signal) or value.is_state for value in inputs)
        ):
            return [next(value for value in inputs if isinstance(value, LastCell))]
        if kinds == {Given} or (kinds == {Fill} and len(set(inputs)) == 1):
            return [inputs[0]]
        return None
    if isinstance(first, Fill | Given | LastCell):
        return [first] * count
    return None
