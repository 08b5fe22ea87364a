"""What an artefact must be before ONNX Runtime sees one byte of it: of bearable size, signed where
that is asked for, whole, without files or operators from elsewhere, with a card that is understood.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgernn.card import CARD_KEY, Card, decode_card
from edgernn.errors import EdgernnError, MissingExtraError
from edgernn_device.shipped import GENERAL
from edgernn_device.signature import PublicKey, read_public_keys, split
from edgernn_device.wire import (
    DATA_LOCATION,
    ENTRY_KEY,
    ENTRY_VALUE,
    EXTERNAL_DATA,
    MODEL_GRAPH,
    NODE_DOMAIN,
    NODE_NAME,
    NODE_OPERATOR,
    TENSOR_NAME,
    Message,
    WireError,
    walk,
)

LARGEST_BYTES = 2_000_000_000
"""What a protobuf message may have. The agent's file sets a limit that fits its device."""

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Of operators that ONNX Runtime brings along; any other comes from a library beside the file."""

ORT_FORMAT = b"ORTM"
"""At byte 4, by which ONNX Runtime knows its other format, which this reader does not."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Which artefacts this device loads."""

    keys: tuple[PublicKey, ...] = ()
    """One of them must have signed; none = signatures are not looked at."""
    max_bytes: int = LARGEST_BYTES

    @classmethod
    def parse(
        cls, keys: Sequence[str], *, max_bytes: int = LARGEST_BYTES, base: Path, where: str
    ) -> "Trust":
        """Keys as text, each `ed25519:…` or a file relative to `base`; `where` opens sentences."""
        read = [key for text in keys for key in read_public_keys(text, base=base, where=where)]
        return cls(tuple(dict.fromkeys(read)), max_bytes)


ANY = Trust()
"""Unsigned artefacts too."""


def read_artefact(path: Path, *, max_bytes: int = LARGEST_BYTES) -> bytes:
    """A file's bytes, no more than `max_bytes`. Raises EdgernnError for what cannot be read."""
    try:
        if path.is_dir():
            raise EdgernnError(f"{path}: is a folder, expected an .onnx file of `edgernn export`")
        if path.exists() and not path.is_file():  # a pipe may never open, a device never end
            raise EdgernnError(f"{path}: is no regular file, expected an .onnx of `edgernn export`")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, max_bytes) + 1)  # not all of what is too much
    except FileNotFoundError as exc:
        hint = "" if path.suffix else f"; the one that comes with edgernn is called {GENERAL}"
        raise EdgernnError(f"{path}: no such file{hint}") from exc
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be read: {exc.strerror}") from exc
    _check_size(content, max_bytes, str(path))
    return content


def admit(model: bytes, *, trust: Trust = ANY, where: str) -> Card:
    """The card of an artefact that may be loaded. Raises EdgernnError for any other.

    Looks at bytes alone; a signature is checked before anything is parsed.
    """
    _check_size(model, trust.max_bytes, where)
    if trust.keys:
        _check_signature(model, trust.keys, where)
    if model[4:8] == ORT_FORMAT:
        raise EdgernnError(f"{where}: an ORT-format file, expected an .onnx of `edgernn export`")
    try:
        messages = list(walk(model))
    except WireError as exc:
        raise EdgernnError(f"{where}: not a readable ONNX file: {exc}") from exc
    if not messages[-1].has(MODEL_GRAPH):
        raise EdgernnError(f"{where}: not a readable ONNX file: no graph in it")
    for message in messages:
        _check_message(message, where)
    cards = [m.content(ENTRY_VALUE) for m in messages if _is_card(m)]
    if len(cards) != 1:
        found = f"with {len(cards)} edgernn cards" if cards else "without an edgernn card"
        raise EdgernnError(f"{where}: an ONNX file {found}; it was not written by `edgernn export`")
    return decode_card(cards[0], where=where)


def _is_card(message: Message) -> bool:
    return message.kind == "entry" and message.text(ENTRY_KEY) == CARD_KEY


def _check_size(content: bytes, max_bytes: int, where: str) -> None:
    if len(content) > max_bytes:
        raise EdgernnError(f"{where}: larger than {max_bytes:,} bytes, which is the limit")


def _check_signature(model: bytes, keys: tuple[PublicKey, ...], where: str) -> None:
    try:
        from edgernn_device.keys import is_valid  # noqa: PLC0415 -- the extra `sign`
    except ImportError as exc:
        raise MissingExtraError(
            f"{where}: not loaded: trusted keys need the package cryptography, which this "
            "installation has not: pip install 'edgernn[sign]'"
        ) from exc
    content, signature = split(model)
    if signature is None:
        raise EdgernnError(
            f"{where}: not signed as trusted keys ask for, or cut off; see `edgernn sign`"
        )
    named = [key for key in keys if key.id == signature.key_id]
    if not named:
        known = ", ".join(key.id for key in keys)
        raise EdgernnError(
            f"{where}: signed by key {signature.key_id}, which is not trusted; trusted: {known}"
        )
    if not any(is_valid(content, signature, key) for key in named):
        raise EdgernnError(
            f"{where}: changed since it was signed: the signature of key {signature.key_id} does "
            "not fit"
        )


def _check_message(message: Message, where: str) -> None:
    """No operator and no data from outside the file."""
    if message.kind == "node" and (domain := message.text(NODE_DOMAIN)) not in DOMAINS:
        raise EdgernnError(
            f"{where}: node {message.text(NODE_NAME)!r}: operator {message.text(NODE_OPERATOR)} of "
            f"domain {domain!r}; expected only operators that ONNX Runtime brings along"
        )
    if message.kind == "tensor" and any(map(message.has, (EXTERNAL_DATA, DATA_LOCATION))):
        raise EdgernnError(
            f"{where}: tensor {message.text(TENSOR_NAME)!r} lies in another file; expected all "
            "weights inside the artefact"
        )
