"""Golden vectors: a short stream inside the artefact, and what the engine said of it when exported.

They let the target's own CPU prove itself, without torch or onnx.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.card import Binding, Card
from edgernn.errors import EdgernnError
from edgernn_device.engine import Engine
from edgernn_device.trust import admit

Floats = NDArray[np.float32]

GOLDEN_KEY = "edgernn.golden"
"""Of the model's metadata."""
MOST_NUMBERS = 256
"""Of one output or state: of more, every second, third, … is kept."""
PROBE = Binding(("first", "second", "third"), 1.0)
"""What an artefact that takes any channels is told of those of the stream."""
TOLERANCE = 1e-3
"""Between two CPUs, of numbers up to 1, relative above: float32 sums in another order. Scores are
steep where a window's variance is small: 1e-4 was measured."""


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON in the artefact. Arrays are base64 of little-endian float32."""

    samples: int
    x: bytes
    """(T, C) in sensor units, NaN = missing: one stream from fresh states, sample by sample."""
    outputs: dict[str, bytes]
    """Name → what was said of all samples, thinned out."""
    states: dict[str, bytes]
    """Name → the state after the last sample, thinned out."""


def probe(card: Card) -> Binding | None:
    """What the engine is told to run an artefact's golden vectors."""
    return PROBE if card.any_channels else None


def probed(model: bytes, *, where: str = "artefact") -> Engine:
    """An engine to run an artefact's golden vectors."""
    return Engine(model, where=where, binding=probe(admit(model, where=where)))


def record_golden(engine: Engine, x: Floats) -> Golden:
    """What the engine says of x (T, C)."""
    outputs, states = _run(engine, x)
    return Golden(len(x), _encode(x), _thinned(outputs), _thinned(states))


def read_golden(engine: Engine, *, where: str) -> Golden | None:
    """The golden vectors of an artefact, None if it has none. Raises EdgernnError if they are
    damaged."""
    try:
        text = engine.note(GOLDEN_KEY)
        return None if text is None else msgspec.json.decode(text, type=Golden)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise EdgernnError(f"{where}: damaged golden vectors: {exc}") from exc


def encode_golden(golden: Golden) -> str:
    """The JSON in the artefact."""
    return msgspec.json.encode(golden).decode()


def largest_difference(engine: Engine, golden: Golden, *, where: str) -> float:
    """Of this engine from the golden vectors, over all outputs and states; relative above 1.

    Raises EdgernnError naming every output or state that differs by more than `TOLERANCE`.
    """
    channels = len(engine.card.channels)
    x = _decode(golden.x)
    if not golden.samples or len(x) != golden.samples * channels:
        raise EdgernnError(
            f"{where}: damaged golden vectors: {len(x)} values for {golden.samples} samples of "
            f"{channels} channels"
        )
    outputs, states = _run(engine, x.reshape(-1, channels))
    differences = {
        name: _difference(array, _decode(expected.get(name, b"")))
        for found, expected in ((outputs, golden.outputs), (states, golden.states))
        for name, array in found.items()
    }
    if wrong := {name: d for name, d in differences.items() if not d <= TOLERANCE}:
        listed = ", ".join(f"{name} by {d:.3g}" for name, d in wrong.items())
        raise EdgernnError(
            f"{where}: says something else here than where it was exported: {listed}; allowed "
            f"{TOLERANCE:g}"
        )
    return max(differences.values())


def _run(engine: Engine, x: Floats) -> tuple[Mapping[str, Floats], Mapping[str, Floats]]:
    row = engine.add_stream()
    rows = np.array([row])
    said = [engine.run(rows, np.ascontiguousarray(sample[None, None])) for sample in x]
    outputs = {
        name: np.concatenate([one[i] for one in said]) for i, name in enumerate(engine.card.outputs)
    }
    states = engine.state_of(row)
    engine.remove_stream(row)
    return outputs, states


def _difference(found: Floats, expected: Floats) -> float:
    a = _thin(found)
    if a.shape != expected.shape:
        return np.inf
    is_number = np.isfinite(expected)
    if not np.array_equal(a[~is_number], expected[~is_number], equal_nan=True):
        return np.inf
    a, b = a[is_number], expected[is_number]
    return float((np.abs(a - b) / np.maximum(1.0, np.abs(b))).max(initial=0.0))


def _thinned(arrays: Mapping[str, Floats]) -> dict[str, bytes]:
    return {name: _encode(_thin(array)) for name, array in arrays.items()}


def _thin(array: Floats) -> Floats:
    flat = array.reshape(-1)
    return flat[:: max(1, -(-flat.size // MOST_NUMBERS))]


def _encode(array: Floats) -> bytes:
    return array.astype("<f4").tobytes()


def _decode(content: bytes) -> Floats:
    return np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(np.float32)
