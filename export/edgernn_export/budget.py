"""What a quantised artefact may lose and cost: `--budget flips=0,auc-pr=0.005,bytes=20000`."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from edgernn.errors import EdgernnError


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that is allowed of each; infinite = any."""

    flips: float = 0
    """Alarms gained or lost."""
    auc_pr: float = 0.005
    """Loss of area under the precision-recall curve."""
    difference: float = math.inf
    """Largest difference in a score, a probability, or a forecast in standard deviations."""
    bytes: float = math.inf
    """Of the file."""
    us: float = math.inf
    """Microseconds a step of one stream, on this machine."""


KEYS: Mapping[str, str] = MappingProxyType(
    {name.replace("_", "-"): name for name in Budget.__struct_fields__}
)
"""As they are written → as they are called."""
ANY = "any"


def parse_budget(text: str) -> tuple[Budget, frozenset[str]]:
    """The budget and which of its fields were said. Raises EdgernnError for what is no budget."""
    said: dict[str, float] = {}
    for part in text.split(",") if text else ():
        key, equals, number = (piece.strip() for piece in part.partition("="))
        if key not in KEYS or not equals:
            raise EdgernnError(
                f"--budget: expected KEY=NUMBER with a key of {', '.join(KEYS)}, got {part!r}"
            )
        if KEYS[key] in said:
            raise EdgernnError(f"--budget: {key} is said twice")
        said[KEYS[key]] = _number(key, number)
    return Budget(**said), frozenset(said)


def _number(key: str, text: str) -> float:
    if text == ANY:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise EdgernnError(f'--budget: {key}: expected a number from 0, or "{ANY}", got {text!r}')
    return value
