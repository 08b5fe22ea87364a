"""Ed25519 keys: making, reading, signing, checking. The only import of cryptography."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgernn.errors import EdgernnError
from edgernn.settings import read_text
from edgernn_device.signature import DOMAIN, PublicKey, Signature, split


def generate(name: Path) -> tuple[Path, Path, PublicKey]:
    """A new key pair in `name`.pem, which none but its owner may read, and `name`.pub.

    Raises EdgernnError rather than overwrite a file.
    """
    if name.name in ("", ".."):
        raise EdgernnError(f"{name}: expected a name for the keys, such as keys/plant")
    private, public = (name.with_name(f"{name.name}.{suffix}") for suffix in ("pem", "pub"))
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise EdgernnError(f"{path}: is there already; keys are never overwritten")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    made = public_key(key)
    _write_new(private, pem, mode=0o600)
    _write_new(public, f"{made} {name.name}\n".encode(), mode=0o644)
    return private, public, made


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Of a PEM file. Raises EdgernnError for anything else."""
    text = read_text(path)
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError as exc:
        raise EdgernnError(f"{path}: encrypted; expected a private key without a password") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise EdgernnError(
            f"{path}: not a private key; expected a .pem of `edgernn keygen`"
        ) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise EdgernnError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return key


def public_key(key: Ed25519PrivateKey) -> PublicKey:
    """The half that may be known."""
    return PublicKey(key.public_key().public_bytes_raw())


def sign(model: bytes, key: Ed25519PrivateKey) -> bytes:
    """The artefact with this key's signature, in place of one that it has."""
    content, _ = split(model)
    signature = Signature(public_key(key).id, key.sign(DOMAIN + content))
    return content + signature.entry()


def is_valid(content: bytes, signature: Signature, key: PublicKey) -> bool:
    """Whether `key` made `signature` for just these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(key.content).verify(signature.content, DOMAIN + content)
    except InvalidSignature:
        return False
    return True


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    """A file that was not there; nobody else reads a private key even while it is written."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123 -- Path.open takes no mode
            file.write(content)
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be written: {exc.strerror}") from exc
