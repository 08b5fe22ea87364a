"""What is known of a value while a graph is walked: which of its axes are time and streams.

Sizes are numbers throughout. A frozen axis has its own; a free one a prime that no weight is
likely to have, so that shapes computed inside the graph are numbers that still say whose they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgernn.errors import EdgernnError

Array = NDArray[Any]

FREE = {"T": 1009, "N": 1013}
"""Sizes that stand for free axes."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a signal, as the original has it."""

    runs: str
    """"T" time, "N" streams, "TN" and "NT" both in one, outer one first, "B" streams in the
    original and both in what becomes of it, since its last sample became every one; "" neither."""
    size: int


@dataclass(frozen=True, slots=True)
class Signal:
    """A value that follows from the samples."""

    name: str
    """In the new graph."""
    axes: tuple[Axis, ...]
    is_state: bool = False
    """Nothing but final hidden states, in another arrangement."""


@dataclass(frozen=True, slots=True)
class Known:
    """A value that is the same for any samples."""

    array: Array
    is_length: bool = False
    """It was computed from a shape: right for this length and number of streams only."""


@dataclass(frozen=True, slots=True)
class Fill:
    """One number everywhere, in a shape that does not matter."""

    number: float


@dataclass(frozen=True, slots=True)
class Given:
    """A graph input beside the samples, in any arrangement: an initial state, or lengths."""

    name: str


@dataclass(frozen=True, slots=True)
class LastCell:
    """Final cell states, in any arrangement: ONNX gives them of the last sample only."""

    node: str


Value = Signal | Known | Fill | Given | LastCell


class RefusedError(EdgernnError):
    """A node that keeps the graph from being streamed."""

    def __init__(self, node: onnx.NodeProto, reason: str) -> None:
        super().__init__(f"{called(node)}: {reason}")
        self.position = 0
        """How far the walk had come, in nodes."""


class OtherOrderError(RefusedError):
    """A recurrent node that runs over other axes than it should: perhaps time and streams are the
    other way round in the graph's input."""


def called(node: onnx.NodeProto) -> str:
    """How a person finds the node: by its name, or by what it gives."""
    name = f"node {node.name!r}" if node.name else f"the node that gives {node.output[0]!r}"
    return f"{name} ({node.op_type})"


def plain(size: int) -> Axis:
    """An axis that is neither time nor streams."""
    return Axis("", size)


def arrangements(
    axes: Sequence[Axis], target: Sequence[int], sizes: dict[str, int]
) -> list[tuple[Axis, ...]]:
    """Every way to read a reshape of `axes` to the sizes `target` that keeps time and streams apart
    from features, the simplest alone where one is simpler than all others. Axes of size 1 come and
    go; those of time and streams may be joined and parted."""
    atoms: list[Axis] = []  # neighbouring features are one
    for axis in axes:
        if axis.runs:
            atoms += [Axis(letter, sizes[letter]) for letter in axis.runs]
        elif axis.size != 1 and atoms and not atoms[-1].runs:
            atoms[-1] = plain(atoms[-1].size * axis.size)
        elif axis.size != 1:
            atoms.append(axis)
    found = {tuple(way) for way in _ways(atoms, list(target))}
    fewest = min((_joins(way) for way in found), default=0)
    return [way for way in found if _joins(way) == fewest]


def _joins(way: Sequence[Axis]) -> int:
    return sum(len(axis.runs) > 1 for axis in way)


def _ways(atoms: list[Axis], target: list[int]) -> list[list[Axis]]:
    if not target:
        return [[]] if not atoms else []
    size, rest = target[0], target[1:]
    ways = []
    if size == 1:
        ways += [[plain(1), *way] for way in _ways(atoms, rest)]
    if atoms and not atoms[0].runs and size > 1 and atoms[0].size % size == 0:
        left = atoms[0].size // size
        remaining = [plain(left), *atoms[1:]] if left > 1 else atoms[1:]
        ways += [[plain(size), *way] for way in _ways(remaining, rest)]
    product, runs = 1, ""
    for i, atom in enumerate(atoms):
        if not atom.runs:
            break
        product, runs = product * atom.size, runs + atom.runs
        if product == size:
            ways += [[Axis(runs, size), *way] for way in _ways(atoms[i + 1 :], rest)]
    return ways


def uniform(array: Array) -> float | None:
    """The number that an array holds everywhere, if it does."""
    flat = np.asarray(array).reshape(-1)
    if not len(flat) or flat.dtype.kind not in "fiub" or not (flat == flat[0]).all():
        return None
    return float(flat[0])
