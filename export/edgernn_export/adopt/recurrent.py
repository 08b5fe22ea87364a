"""LSTM, GRU and RNN nodes: initial and final states become inputs and outputs of the graph."""

from edgernn_export.adopt.rules import Step, take_last
from edgernn_export.adopt.values import (
    Axis,
    Fill,
    Given,
    Known,
    LastCell,
    OtherOrderError,
    Signal,
    Value,
    called,
    plain,
    uniform,
)

RECURRENT = ("LSTM", "GRU", "RNN")
LENGTHS, FIRST_STATE = 4, 5
"""Places among the inputs: of the sequences' lengths, of the initial h. LSTM: c behind it."""


def recurrent(step: Step, number: int) -> list[Value]:
    """The node, made anew over (T, N, I), between states `state.layer.{number}.h` (and c)."""
    node, writer = step.node, step.writer
    direction = step.attributes.get("direction", b"forward")
    if direction != b"forward":
        assert isinstance(direction, bytes)
        raise step.refuse(
            f"its direction is {direction.decode()!r}: it reads the sequence from its end, which "
            "has not come yet; train a forward one"
        )
    layout = step.number("layout", 0)
    signal = step.signal()
    runs = [axis.runs for axis in signal.axes]
    if runs != (["N", "T", ""] if layout else ["T", "N", ""]):
        raise OtherOrderError(
            node,
            "what it runs over is not the samples in their order: expected "
            f"({'N, T' if layout else 'T, N'}, features)",
        )
    _check_lengths(step)
    hidden = step.array(2)
    assert hidden is not None
    width = hidden.shape[2]
    x = writer.transpose(signal.name, [1, 0, 2]) if layout else signal.name
    inputs = step.inputs + [None] * (8 - len(step.inputs))
    names = [x, *_stored(step), "", *("" for _ in inputs[FIRST_STATE:])]
    letters = "hc" if node.op_type == "LSTM" else "h"
    states = []
    for i, letter in enumerate(letters):
        initial = _initial(step, inputs[FIRST_STATE + i], letter)
        state = writer.add_state(f"layer.{number}.{letter}", width, initial)
        states.append(state)
        names[FIRST_STATE + i] = writer.add("Unsqueeze", [state, writer.integers(0)])[0]
    if node.op_type == "LSTM" and isinstance(inputs[7], Known):
        names[7] = writer.constant(inputs[7].array)  # its peepholes
    while not names[-1]:
        names.pop()
    kept = {
        name: value
        for name, value in step.attributes.items()
        if name not in ("layout", "direction", "hidden_size")
    }
    y, *last = writer.add(node.op_type, names, outputs=1 + len(letters), hidden_size=width, **kept)
    for state, value in zip(states, last, strict=True):
        writer.give(writer.add("Squeeze", [value, writer.integers(0)])[0], f"{state}.next")
    time, streams = (Axis(letter, step.sizes[letter]) for letter in "TN")
    if layout:
        y = writer.transpose(y, [2, 0, 1, 3])
        whole = Signal(y, (streams, time, plain(1), plain(width)))
    else:
        whole = Signal(y, (time, plain(1), streams, plain(width)))
    (ended,) = take_last(step, whole, 1 if layout else 0)
    results: list[Value] = [whole, Signal(ended.name, ended.axes, is_state=True)]
    if node.op_type == "LSTM":
        results.append(LastCell(called(node)))
    return results


def _stored(step: Step) -> list[str]:
    """The names of W, R and B; "" where there is no B."""
    names = []
    for i in (1, 2, 3):
        array = step.array(i)
        names.append("" if array is None else step.writer.constant(array))
    return names


def _check_lengths(step: Step) -> None:
    """Lengths of sequences, if any, must be those of whole ones."""
    match step.inputs[LENGTHS] if len(step.inputs) > LENGTHS else None:
        case None | Given():
            return
        case Known(array=array) if uniform(array) == step.sizes["T"]:
            return
        case Fill(number=number) if number == step.sizes["T"]:
            return
    raise step.refuse("lengths of sequences that are not those of whole ones")


def _initial(step: Step, value: Value | None, letter: str) -> float:
    """What a fresh state holds."""
    match value:
        case None | Given():
            return 0.0
        case Fill(number=number):
            return number
        case Known(array=array) if (same := uniform(array)) is not None:
            return same
        case Known():
            raise step.refuse(
                f"starts from an initial {letter} of different values; a fresh state holds one "
                "number: start from zeros and train again"
            )
    raise step.refuse(
        f"its initial {letter} is computed from the samples, as a decoder's is from its encoder"
    )
