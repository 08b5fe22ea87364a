"""Which field of a message is which channel: nested fields, other names, words for numbers."""

import math
import re
from collections.abc import Mapping as Table
from collections.abc import Sequence
from types import MappingProxyType

import msgspec

from edgernn.errors import EdgernnError
from edgernn_device.payload import RESERVED, SEQ_KEY, TIME_KEYS

TIME, SEQ = TIME_KEYS[0], SEQ_KEY
WORDS: Table[str, float] = MappingProxyType({"on": 1.0, "off": 0.0, "true": 1.0, "false": 0.0})
"""What text in place of a number is worth, unless the file says otherwise. Lower case."""
LONGEST_TEXT = 64
"""Characters of a number or a word that came as text."""
DEEPEST = 16
"""Steps of a path."""
LONGEST_STEP = 256
"""Characters."""
MOST_NAMES = 10_000
VALUE = "value"
"""The key of an object that was sent in place of a number."""

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

Path = tuple[str, ...]
Said = str | list[str]
"""A path as it stands in the file: "data.temp_c", or ["data", "temp.c"] where a key has a dot."""


class Mapping(msgspec.Struct, frozen=True):
    """How messages are read, where they are not plain objects of numbers by channel."""

    paths: tuple[tuple[str, Path], ...] = ()
    """Name → where its value stands; the names time and seq are allowed too."""
    samples: Path = ()
    """Where the sample, or the list of samples, stands in a message."""
    words: Table[str, float] = WORDS
    taken: frozenset[str] = frozenset()
    """First steps of paths: these keys are not channels by their own names any more."""

    @classmethod
    def parse(
        cls,
        names: Table[str, Said],
        *,
        samples: Said = "",
        words: Table[str, float] = WORDS,
        where: str,
    ) -> "Mapping":
        """Raises EdgernnError for a path or a name that cannot be; `where` opens the sentence,
        such as "input"."""
        if len(names) > MOST_NAMES:
            raise EdgernnError(f"{where}.map: expected at most {MOST_NAMES}, got {len(names)}")
        for name in names:
            if not name or name in TIME_KEYS[1:]:
                raise EdgernnError(f"{where}.map: expected a channel, time or seq, got {name!r}")
        paths = tuple((name, _path(said, f"{where}.map.{name}")) for name, said in names.items())
        lower = {word.strip().lower(): value for word, value in words.items()}
        if len(lower) < len(words):
            raise EdgernnError(f"{where}.words: the same word twice; upper case does not matter")
        return cls(
            paths=paths,
            samples=_path(samples, f"{where}.samples") if samples else (),
            words=lower,
            taken=frozenset(path[0] for _, path in paths)
            | {key for name, _ in paths if name == TIME for key in TIME_KEYS}
            | {name for name, _ in paths},
        )

    @property
    def is_plain(self) -> bool:
        """Nothing to do: messages are objects of numbers by channel."""
        return not (self.paths or self.samples)

    def check_names(self, channels: Sequence[str], *, where: str) -> None:
        """Raises EdgernnError for a name that is no channel."""
        for name, _ in self.paths:
            if name not in channels and name not in (TIME, SEQ):
                raise EdgernnError(
                    f"{where}.map.{name}: no such channel; expected {', '.join(channels)}, "
                    f"{TIME} or {SEQ}"
                )

    def unfold(self, content: object, channel: str = "") -> object:
        """What one message says, parsed, as a flat object by channel or a list of them; what cannot
        be one is left as it is.

        `channel`: the one its topic names; then a bare value is that channel's.
        Raises LookupError if there is nothing where the samples should stand.
        """
        if self.samples:
            content = _find(content, self.samples)
        if isinstance(content, list):
            return [self._flat(item, channel) for item in content]
        return self._flat(content, channel)

    def _flat(self, item: object, channel: str) -> object:
        if channel:
            return self._of_channel(item, channel)
        if not isinstance(item, dict):
            return item
        flat = {key: value for key, value in item.items() if key not in self.taken}
        self._pick(flat, item, self.paths)
        return flat

    def _of_channel(self, item: object, channel: str) -> dict[str, object]:
        """Paths begin with the channel's level, as if messages of all its topics were one object;
        those of time and seq begin inside the message."""
        own = [(name, path) for name, path in self.paths if name in (TIME, SEQ)]
        paths = [
            (name, path[1:])
            for name, path in self.paths
            if path[0] == channel and name not in (TIME, SEQ)
        ]
        inside = [(name, path) for name, path in paths if path]
        names = [name for name, path in paths if not path]
        if not paths and channel not in RESERVED:
            names = [channel]
        if not isinstance(item, dict):
            return dict.fromkeys(names, self._number(item))
        flat: dict[str, object] = {key: item[key] for key in RESERVED if key in item}
        if inside:
            self._pick(flat, item, inside)
        elif VALUE in item:
            flat |= dict.fromkeys(names, self._number(item[VALUE]))
        else:
            flat |= {key: self._number(value) for key, value in item.items() if key not in flat}
        if any(name == TIME for name, _ in own):
            flat = {key: value for key, value in flat.items() if key not in TIME_KEYS}
        self._pick(flat, item, own)
        return flat

    def _pick(
        self, flat: dict[str, object], item: object, paths: Sequence[tuple[str, Path]]
    ) -> None:
        for name, path in paths:
            try:
                value = _find(item, path)
            except LookupError:
                continue
            flat[name] = value if name in (TIME, SEQ) else self._number(value)

    def _number(self, value: object) -> object:
        """Text and true or false as numbers, where they are worth one."""
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str) or len(value) > LONGEST_TEXT:
            return value
        text = value.strip()
        if NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
            return number
        return self.words.get(text.lower(), value)


def _find(content: object, path: Path) -> object:
    """What stands there: a step is a key of an object, or a place in a list, from 0."""
    for n, step in enumerate(path):
        if isinstance(content, dict) and step in content:
            content = content[step]
        elif isinstance(content, list) and _is_place(step) and int(step) < len(content):
            content = content[int(step)]
        else:
            raise LookupError(f"nothing at {'.'.join(path[: n + 1])}")
    return content


def _is_place(step: str) -> bool:
    return step.isascii() and step.isdecimal()


def _path(said: Said, where: str) -> Path:
    path = tuple(said.split(".")) if isinstance(said, str) else tuple(said)
    if not 0 < len(path) <= DEEPEST or not all(0 < len(step) <= LONGEST_STEP for step in path):
        raise EdgernnError(
            f"{where}: expected keys between dots, such as data.temp_c, at most {DEEPEST} of 1 to "
            f"{LONGEST_STEP} characters, got {str(said)[:60]!r}"
        )
    return path
