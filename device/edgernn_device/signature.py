"""Where a signature stands in an artefact, and how keys are written down. No cryptography here.

A signed artefact is the artefact and, as its last bytes, one more entry of the model's
`metadata_props`. Protobuf messages put end to end are one message, so any ONNX Runtime opens it;
and as the entry is of fixed length, it is found without parsing anything.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from edgernn.errors import EdgernnError
from edgernn.settings import read_text

SIGNATURE_KEY = "edgernn.signature"
"""Name of the entry in the model's `metadata_props`."""
DOMAIN = b"edgernn artefact, signature version 1\0"
"""Stands before what is signed: no signature made for another purpose fits an artefact."""
SCHEME = "ed25519"
"""RFC 8032. Another scheme would be another word here, never a choice that a file makes."""
KEY_BYTES, SIGNATURE_BYTES, ID_DIGITS = 32, 64, 16


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who may sign."""

    content: bytes
    """32 bytes, RFC 8032."""

    @classmethod
    def parse(cls, text: str, *, where: str) -> "PublicKey":
        """Of `ed25519:…`. `where` opens the sentence of an EdgernnError."""
        scheme, _, code = text.partition(":")
        try:
            content = base64.b64decode(code, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if scheme != SCHEME or len(content) != KEY_BYTES:
            raise EdgernnError(
                f"{where}: expected a public key, {SCHEME}: and 44 characters, got {text[:60]!r}"
            )
        return cls(content)

    def __str__(self) -> str:
        return f"{SCHEME}:{base64.b64encode(self.content).decode()}"

    @property
    def id(self) -> str:
        """Sixteen digits to speak of it; trust is in the key itself."""
        return hashlib.sha256(self.content).hexdigest()[:ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Signature:
    """What stands at the end of a signed artefact."""

    key_id: str
    content: bytes
    """64 bytes, RFC 8032."""

    def entry(self) -> bytes:
        """The bytes at the end of the file: `ModelProto.metadata_props`, a key and a value."""
        value = f"1 {SCHEME} {self.key_id} {base64.b64encode(self.content).decode()}"
        return _field(14, _field(1, SIGNATURE_KEY.encode()) + _field(2, value.encode()))


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field of fewer than 16,384 bytes: its number and kind, its length, its content."""
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | 2]) + length + content


BLANK = Signature("0" * ID_DIGITS, bytes(SIGNATURE_BYTES)).entry()
ENTRY_BYTES = len(BLANK)
WRITTEN = re.compile(
    re.escape(BLANK.partition(b"0000")[0]) + rb"([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)", re.DOTALL
)


def split(model: bytes) -> tuple[bytes, Signature | None]:
    """What is signed, and the signature; None if the file does not end in one.

    There is one way to write a signature down, so that not one of its bytes can be changed unseen.
    """
    entry = model[-ENTRY_BYTES:]
    match = WRITTEN.fullmatch(entry)
    if match is None:
        return model, None
    found = Signature(match[1].decode(), base64.b64decode(match[2]))
    if found.entry() != entry:  # unused bits of the last character
        return model, None
    return model[:-ENTRY_BYTES], found


def is_inline(text: str) -> bool:
    """Whether this is a public key rather than the name of a file with some."""
    return text.startswith(f"{SCHEME}:")


def read_public_keys(text: str, *, base: Path, where: str) -> tuple[PublicKey, ...]:
    """The key that `text` is, or those of the file that it names, relative to `base`.

    A file has one key a line; what follows a key is a remark, and so is a line with `#`.
    """
    if is_inline(text):
        return (PublicKey.parse(text, where=where),)
    path = base / text
    lines = read_text(path).splitlines()
    words = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not words:
        raise EdgernnError(f"{path}: no public key in it")
    return tuple(PublicKey.parse(word, where=str(path)) for word in words)
