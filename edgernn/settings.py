"""TOML file → frozen struct: every key checked, unknown keys refused with their path."""

import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgernn.errors import EdgernnError

S = TypeVar("S", bound=msgspec.Struct)


def read_settings(path: Path, kind: type[S]) -> S:
    """Read a TOML file into `kind`, a struct made with `forbid_unknown_fields=True`.

    Raises EdgernnError naming the file, the key's path, what was found and what is allowed.
    """
    return to_settings(read_toml(path), kind, where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises EdgernnError, also for what Python's reader gives up at."""
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise EdgernnError(f"{path}: not valid TOML: {exc}") from exc
    except RecursionError as exc:
        raise EdgernnError(f"{path}: tables or lists are nested too deeply to be read") from exc
    except ValueError as exc:
        raise EdgernnError(f"{path}: a number has too many digits to be read: {exc}") from exc


def to_settings(data: dict[str, Any], kind: type[S], *, where: str) -> S:
    """Convert parsed TOML or JSON into `kind`; `where` opens the sentence if it does not fit."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as exc:
        raise EdgernnError(f"{where}: {_sentence(str(exc))}{_known_keys(str(exc), kind)}") from exc
    except EdgernnError as exc:  # from a check of `kind` itself
        raise EdgernnError(f"{where}: {exc}") from exc


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or an EdgernnError that says why there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise EdgernnError(f"{path}: no such file") from exc
    except IsADirectoryError as exc:
        raise EdgernnError(f"{path}: is a folder, expected a file") from exc
    except UnicodeDecodeError as exc:
        raise EdgernnError(f"{path}: not a text file (byte {exc.start} is not UTF-8)") from exc
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be read: {exc.strerror}") from exc


def make_folder(path: Path) -> Path:
    """The folder, made if it is not there; an EdgernnError if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be made a folder: {exc.strerror}") from exc
    return path


def check_is_writable(folder: Path) -> None:
    """Raises EdgernnError if no file can be written into the folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise EdgernnError(f"{folder}: cannot be written to: {exc.strerror}") from exc


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    if path.is_dir():
        raise EdgernnError(f"{path}: is a folder, expected a file name")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise EdgernnError(f"{path}: cannot be written: {exc.strerror}") from exc


def _known_keys(message: str, kind: type[msgspec.Struct]) -> str:
    """Of an unknown key: which ones there are at its place."""
    found = re.match(r"Object contains unknown field `.*?`(?: - at `\$\.(.*)`)?", message)
    if found is None:
        return ""
    node: msgspec.inspect.Type = msgspec.inspect.type_info(kind)
    for part in re.findall(r"\w+|\[\d+\]", found[1] or ""):
        if part.startswith("["):
            node = getattr(node, "item_type", node)
        else:
            node = fields_of(node).get(part, node)
    return f"; expected {', '.join(fields_of(node))}"


def fields_of(node: msgspec.inspect.Type) -> dict[str, msgspec.inspect.Type]:
    """The keys of a table, and their types; none if it is no table."""
    for member in members_of(node):
        if isinstance(member, msgspec.inspect.StructType):
            return {field.encode_name: field.type for field in member.fields}
    return {}


def members_of(node: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    """The types that a value may have."""
    return node.types if isinstance(node, msgspec.inspect.UnionType) else (node,)


WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
"""msgspec's names of types."""


def _in_words(named: re.Match[str]) -> str:
    """Of types; that a key may be left out, and a number whole, goes without saying."""
    kinds = named[1].split(" | ")
    unsaid = {"null", "int"} if "float" in kinds else {"null"}
    said = [kind for kind in kinds if kind not in unsaid] or kinds
    return " or ".join(WORDS.get(kind, kind) for kind in said)


def _sentence(message: str) -> str:
    """msgspec's «Expected `int`, got `str` - at `$.broker.port`» with the key's path first, and one
    path where a check of ours has begun with the rest of it."""
    message = message.replace("Object contains unknown field", "unknown key")
    text, marker, path = message.partition(" - at `$")
    if text.startswith("Expected "):
        text = re.sub(r"`([a-z |]+)`", _in_words, "e" + text[1:])
    if not marker:
        return text
    begins_with_key = re.match(r"[a-z_0-9]+(\[\d+\])?: ", text)
    return f"{path.rstrip('`').lstrip('.')}{'.' if begins_with_key else ': '}{text}"
