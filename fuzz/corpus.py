"""Inputs that are kept: a file for each target, a line for each input, packed."""

import base64
import zlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def read_corpus(target: str) -> list[bytes]:
    """The inputs that are kept of a target; none of a new one."""
    path = FOLDER / f"{target}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [zlib.decompress(base64.b64decode(line)) for line in lines]


def write_corpus(target: str, inputs: Iterable[bytes]) -> None:
    """Each once, the shortest first, so that a change shows as few lines."""
    FOLDER.mkdir(exist_ok=True)
    ordered = sorted(set(inputs), key=lambda one: (len(one), one))
    lines = [base64.b64encode(zlib.compress(one, 9)).decode() + "\n" for one in ordered]
    (FOLDER / f"{target}.txt").write_text("".join(lines))
