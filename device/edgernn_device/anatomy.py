"""What an artefact is made of, read from its bytes: operators, weights as stored, sizes."""

import math
from collections import Counter

import msgspec

from edgernn.card import CARD_KEY
from edgernn_device.golden import GOLDEN_KEY
from edgernn_device.signature import split
from edgernn_device.wire import Message, walk

TYPES = {1: "float32", 3: "int8", 5: "int16", 7: "int64", 10: "float16", 21: "uint4", 22: "int4"}
"""TensorProto.DataType → its name; others are shown as numbers."""
SMALLEST_WEIGHT = 64
"""Numbers; smaller tensors are constants of the arithmetic."""

DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
OPERATOR = 4
ENTRY_KEY, ENTRY_VALUE = 1, 2
"""Numbers of fields, from onnx.proto."""


class Weight(msgspec.Struct, frozen=True):
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    stored: str
    """Such as "int8"."""
    size_bytes: int


class Anatomy(msgspec.Struct, frozen=True):
    """What is in the file."""

    operators: dict[str, int]
    """Operator → how many nodes, the most frequent first."""
    weights: tuple[Weight, ...]
    """Matrices of at least `SMALLEST_WEIGHT` numbers, the largest first."""
    parts: dict[str, int]
    """Bytes of the weights and other constants, the card, the golden vectors, the signature, and of
    the graph, which is the rest."""


def dissect(model: bytes) -> Anatomy:
    """The anatomy of an artefact that `trust.admit` let in."""
    messages = list(walk(model))
    operators = Counter(m.text(OPERATOR) for m in messages if m.kind == "node")
    tensors = [_weight(m) for m in messages if m.kind == "tensor"]
    notes = {m.text(ENTRY_KEY): len(m.content(ENTRY_VALUE)) for m in messages if m.kind == "entry"}
    content, _ = split(model)
    parts = {
        "weights": sum(one.size_bytes for one in tensors),
        "card": notes.get(CARD_KEY, 0),
        "golden": notes.get(GOLDEN_KEY, 0),
        "signature": len(model) - len(content),
    }
    weights = [
        one
        for one in tensors
        if sum(size > 1 for size in one.shape) > 1 and math.prod(one.shape) >= SMALLEST_WEIGHT
    ]
    return Anatomy(
        operators=dict(operators.most_common()),
        weights=tuple(sorted(weights, key=lambda one: -one.size_bytes)),
        parts=parts | {"graph": len(model) - sum(parts.values())},
    )


def _weight(message: Message) -> Weight:
    kind = _numbers(message, DATA_TYPE)[-1:] or [0]
    return Weight(
        message.text(NAME),
        tuple(_numbers(message, DIMS)),
        TYPES.get(kind[0], f"type {kind[0]}"),
        len(message.content(RAW_DATA)),
    )


def _numbers(message: Message, number: int) -> list[int]:
    """A field of numbers, one by one or packed."""
    found: list[int] = []
    for n, value in message.fields:
        if n != number:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        size = shift = 0
        for byte in value:
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                found.append(size)
                size = shift = 0
    return found
