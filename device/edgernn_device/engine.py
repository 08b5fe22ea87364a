"""One artefact and the recurrent states of all streams. The only place that imports onnxruntime."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgernn.card import Binding, Card
from edgernn.errors import EdgernnError
from edgernn.times import seconds_of_week
from edgernn_device.signature import split
from edgernn_device.trust import ANY, Trust, admit, read_artefact

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

NUMBERS = "tensor(float)"
"""What everything is, going in and coming out."""
FIRST_CAPACITY = 16
"""Rows in a new arena; it doubles when full."""


class Engine:
    """Runs an artefact over many streams: a row of the arena is a stream's memory."""

    def __init__(
        self,
        model: bytes,
        *,
        where: str = "artefact",
        trust: Trust = ANY,
        binding: Binding | None = None,
    ) -> None:
        """`where` names the file in the sentence of an EdgernnError if it is no artefact, or none
        that `trust` lets in: then ONNX Runtime has not seen it. `binding`: the channels and period
        of an open artefact; None for any other."""
        self.card_of_file = admit(model, trust=trust, where=where)
        self.card = _bound(self.card_of_file, binding, where)
        channels = None if binding is None else len(binding.channels)
        self._session = _open(model, where, channels=channels)
        self._one_sample = _open(model, where, samples=1, channels=channels)
        _, signature = split(model)
        self.signed_by = signature.key_id if signature else ""
        """Id of the key; checked only if `trust` has keys."""
        self.hash = hashlib.sha256(model).hexdigest()
        self.memory_hash = self.hash
        """Of what a stream's memory fits: the file, and behind a / the channels and the period,
        where it takes any."""
        if binding is not None:
            told = hashlib.sha256(msgspec.json.encode(binding)).hexdigest()
            self.memory_hash = f"{self.hash}/{told}"
        self.size_bytes = len(model)
        try:
            self._outputs = [output.name for output in self._session.get_outputs()]
            _check_graph(self._session, self.card, where)
        except UnicodeDecodeError as exc:
            raise EdgernnError(f"{where}: damaged graph: a name in it is no text") from exc
        self._names = [state.name for state in self.card.states]
        self._clock = next((i for i, s in enumerate(self.card.states) if s.is_clock), None)
        self._said = len(self.card.outputs)
        self._arena: list[Floats] = [np.empty((0, *s.shape), np.float32) for s in self.card.states]
        self._free: list[int] = []

    @classmethod
    def load(cls, path: Path, *, trust: Trust = ANY) -> "Engine":
        """Read an artefact. Raises EdgernnError for anything that is not one, or not trusted."""
        model = read_artefact(path, max_bytes=trust.max_bytes)
        return cls(model, where=str(path), trust=trust)

    def note(self, key: str) -> str | None:
        """What the artefact's metadata say under a key."""
        found: str | None = self._session.get_modelmeta().custom_metadata_map.get(key)
        return found

    @property
    def has_clock(self) -> bool:
        """Whether it matters when a sample was."""
        return self._clock is not None

    def add_stream(self) -> int:
        """A fresh row for a new stream."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.reset(row)
        return row

    def remove_stream(self, row: int) -> None:
        """Give a row back."""
        self._free.append(row)

    def reset(self, row: int) -> None:
        """Forget everything this stream has seen."""
        for array, state in zip(self._arena, self.card.states, strict=True):
            array[row] = state.initial

    def run(self, rows: Rows, x: Floats, times_s: Sequence[float] = ()) -> Sequence[Floats]:
        """Advance N different streams by T samples each.

        rows (N,) as `add_stream` gave them; x (T, N, C) in sensor units, NaN = missing; times_s
        (N,) of the first sample of each, seconds since 1970, which matter to an artefact with a
        clock: () = one period after the last before. Returns each of the card's `outputs` in turn,
        (T, N, …).
        """
        if self._clock is not None and len(times_s):
            self._arena[self._clock][rows, 0] = [*map(seconds_of_week, times_s)]
        feeds: dict[str, Any] = {"x": x}
        row = slice(int(rows[0]), int(rows[0]) + 1) if len(rows) == 1 else None  # no copy of one
        for name, array in zip(self._names, self._arena, strict=True):
            # (N, …); take is three times as fast as array[rows]
            feeds[name] = array[row] if row else array.take(rows, axis=0)
        session = self._one_sample if len(x) == 1 else self._session
        results: list[Floats] = session.run(self._outputs, feeds)
        said, following = results[: self._said], results[self._said :]
        for array, state in zip(self._arena, following, strict=True):
            array[row or rows] = state
        return said

    def is_finite(self, row: int) -> bool:
        """Whether a stream's memory holds numbers only."""
        return all(bool(np.isfinite(array[row]).all()) for array in self._arena)

    def state_of(self, row: int) -> dict[str, Floats]:
        """A copy of one stream's memory, name → row."""
        return {
            name: array[row].copy() for name, array in zip(self._names, self._arena, strict=True)
        }

    def set_state(self, row: int, state: Mapping[str, Floats]) -> None:
        """Put a memory back that `state_of` gave; every name must be there."""
        for name, array in zip(self._names, self._arena, strict=True):
            array[row] = state[name]

    def _grow(self) -> None:
        old = len(self._arena[0])
        more = max(FIRST_CAPACITY, old)
        self._arena = [
            np.concatenate([array, np.zeros((more, *array.shape[1:]), np.float32)])
            for array in self._arena
        ]
        self._free = list(range(old + more - 1, old - 1, -1))


def _bound(card: Card, binding: Binding | None, where: str) -> Card:
    """The card with channels in it."""
    if binding is None:
        if card.any_channels:
            raise EdgernnError(f"{where}: takes any channels, and was not told which")
        return card
    if not card.any_channels:
        raise EdgernnError(f"{where}: names its own channels, {', '.join(card.channel_names)}")
    return card.bound(binding, where=where)


def _open(
    model: bytes, where: str, *, samples: int | None = None, channels: int | None = None
) -> ort.InferenceSession:
    """`samples`: T of every call. With T = 1 what only several samples need is left out.
    `channels`: C, where the graph leaves it free."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # a refused file gets one sentence from us, not a page from ORT
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # new shapes grow it for ever (onnxruntime#11118)
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what `trust` has read
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # fold int8 weights once
    if samples is not None:
        options.add_free_dimension_override_by_name("T", samples)
    if channels is not None:
        options.add_free_dimension_override_by_name("C", channels)
    try:
        return ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as exc:  # ORT raises a dozen unrelated types for a bad file
        detail = " ".join(str(exc).split())[:200]
        raise EdgernnError(f"{where}: not a readable ONNX file: {detail}") from exc


def _check_graph(session: ort.InferenceSession, card: Card, where: str) -> None:
    """The graph must have just the inputs and outputs that the card promises."""
    inputs = {"x": [len(card.channels)]} | {s.name: list(s.shape) for s in card.states}
    outputs = [*card.outputs, *(f"{s.name}.next" for s in card.states)]
    found = {i.name: i.shape[2 if i.name == "x" else 1 :] for i in session.get_inputs()}
    if found != inputs:
        raise EdgernnError(f"{where}: the graph takes {found}, its card says {inputs}")
    if (names := [o.name for o in session.get_outputs()]) != outputs:
        raise EdgernnError(f"{where}: the graph gives {names}, its card says {outputs}")
    shapes = {**card.outputs} | {f"{s.name}.next": s.shape for s in card.states}
    for output in session.get_outputs():
        found_shape = tuple(output.shape[2 if output.name in card.outputs else 1 :])
        if found_shape != shapes[output.name]:
            raise EdgernnError(
                f"{where}: the graph gives {output.name} as {list(found_shape)} a sample, its "
                f"card says {list(shapes[output.name])}"
            )
    for value in (*session.get_inputs(), *session.get_outputs()):
        if value.type != NUMBERS:
            raise EdgernnError(
                f"{where}: the graph has {value.name} as {value.type}, not {NUMBERS}"
            )
    for value in session.get_inputs():
        free = value.shape[: 2 if value.name == "x" else 1]
        if any(isinstance(size, int) for size in free):
            raise EdgernnError(
                f"{where}: the graph takes {value.name} as {value.shape} only; expected any number "
                "of samples and streams"
            )
