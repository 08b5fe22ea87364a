"""ONNX files as bytes: their protobuf fields one by one, without onnx and without ONNX Runtime.

Strict: what a parser might read in two ways is refused, so that nothing hides from this reader that
ONNX Runtime would see. Format: protobuf.dev/programming-guides/encoding; fields: onnx.proto.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

DEEPEST = 100
"""Messages inside each other, as every protobuf library limits them."""
MOST_FIELDS = 200_000
"""In a file: a field of two bytes takes a hundred times as much memory. An artefact has a few
thousand."""

Value = int | memoryview
"""A number of a varint, else the bytes."""

VARINT, BYTES, FIXED = 0, 2, {1: 8, 5: 4}
"""How a field is written; the fixed ones with their sizes in bytes."""

CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 14: "entry", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
"""Message → its fields that hold further messages: all the ways to a node or a tensor."""


NODE_NAME, NODE_OPERATOR, NODE_DOMAIN = 3, 4, 7
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
EXTERNAL_DATA, DATA_LOCATION = 13, 14
ENTRY_KEY, ENTRY_VALUE = 1, 2
MODEL_GRAPH = 7
"""Numbers of the fields that are read, from onnx.proto."""


class WireError(ValueError):
    """Bytes that are no protobuf message; the message says where."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message inside a model."""

    kind: str
    """Such as "node"."""
    fields: tuple[tuple[int, Value], ...]
    """Number and value, in their order in the file; without those of fixed size."""

    def text(self, number: int) -> str:
        """The field's text. Of several the last counts, as protobuf has it; "" of none."""
        return self.content(number).decode(errors="replace")

    def content(self, number: int) -> bytes:
        """The field's bytes, likewise."""
        found = [v for n, v in self.fields if n == number and isinstance(v, memoryview)]
        return bytes(found[-1]) if found else b""

    def numbers(self, number: int) -> list[int]:
        """The field's numbers, written one by one or packed."""
        found: list[int] = []
        for n, value in self.fields:
            if n == number and isinstance(value, int):
                found.append(value)
            elif n == number and isinstance(value, memoryview):
                position = 0
                while position < len(value):
                    one, position = _varint(value, position, 0, longest=10)
                    found.append(one)
        return found

    def has(self, number: int) -> bool:
        """Whether the field is there and not 0."""
        return any(n == number and v != 0 for n, v in self.fields)


def walk(content: bytes) -> Iterator[Message]:
    """Every message of a model that `CHILDREN` leads to, innermost first.

    Raises WireError for bytes that are no complete protobuf message.
    """
    yield from _message(memoryview(content), "model", at=0, depth=0, count=itertools.count(1))


def _message(
    view: memoryview, kind: str, *, at: int, depth: int, count: Iterator[int]
) -> Iterator[Message]:
    if depth > DEEPEST:
        raise WireError(f"messages nested deeper than {DEEPEST} at byte {at:,}")
    fields: list[tuple[int, Value]] = []
    position, children = 0, CHILDREN.get(kind, {})
    while position < len(view):
        start = at + position
        if next(count) > MOST_FIELDS:
            raise WireError(f"more than {MOST_FIELDS:,} fields before byte {start:,}")
        tag, position = _varint(view, position, at, longest=5)
        number, form = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32 or form not in (VARINT, BYTES, *FIXED):
            raise WireError(f"no protobuf field at byte {start:,}")
        if form == VARINT:
            value, position = _varint(view, position, at, longest=10)
            fields.append((number, value))
            continue
        size = FIXED.get(form, 0)
        if form == BYTES:
            size, position = _varint(view, position, at, longest=5)
        if size > len(view) - position:
            raise WireError(
                f"truncated: {size:,} bytes expected at byte {at + position:,}, "
                f"{len(view) - position:,} are there"
            )
        if form == BYTES:
            content = view[position : position + size]
            fields.append((number, content))
            if number in children:
                child, inside = children[number], at + position
                yield from _message(content, child, at=inside, depth=depth + 1, count=count)
        position += size
    yield Message(kind, tuple(fields))


def _varint(view: memoryview, position: int, at: int, *, longest: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position behind it."""
    value = 0
    for shift, byte in enumerate(view[position : position + longest]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    if len(view) - position < longest:
        raise WireError(f"truncated: a number at byte {at + position:,} has no end")
    raise WireError(f"no protobuf field at byte {at + position:,}")
