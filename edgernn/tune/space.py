"""The search space: dotted keys of a training file → ranges and lists of values, all checked."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.settings import fields_of, to_settings

Number = int | float
Scalar = str | int | float | bool

MOST_POINTS = 10_000
"""Of a grid."""
MOST_TRIED = 2000
"""Combinations of other keys' ends, fewest keys first, that are looked through for one that a value
is allowed beside."""
SHARED = ("name", "recording", "task")
"""Keys that all trials have in common."""


class Dimension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `[search]` says of one key: `values`, or a range from `low` to `high`, both included."""

    values: tuple[Any, ...] | None = None
    """In no order, so that anything a key can be is allowed."""
    low: Number | None = None
    high: Number | None = None
    log: bool = False
    """Even over the logarithm."""
    step: Number | None = None
    """Only low, low + step, …"""

    def __post_init__(self) -> None:
        if self.values is not None:
            if self.log or (self.low, self.high, self.step) != (None, None, None):
                raise ValueError("expected values, or low and high, got both")
            if not self.values:
                raise ValueError("values: expected at least one, got none")
            if double := [v for i, v in enumerate(self.values) if v in self.values[:i]]:
                raise ValueError(f"values: {double[0]!r} is there twice")
            return
        if self.low is None or self.high is None:
            raise ValueError("expected values, or low and high")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"expected finite numbers, got low {self.low} and high {self.high}")
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low: expected above 0 with log = true, got {self.low:g}")
        if self.step is None:
            return
        if self.log:
            raise ValueError("expected log or step, got both")
        if not 0 < self.step < math.inf:
            raise ValueError(f"step: expected above 0, got {self.step:g}")
        if (_exact(self.high) - _exact(self.low)) % _exact(self.step):
            raise ValueError(
                f"step: {self.step:g} does not lead from {self.low:g} to {self.high:g}"
            )

    @property
    def ends(self) -> tuple[Any, ...]:
        """What must be allowed for everything between to be allowed."""
        return (self.low, self.high) if self.values is None else self.values

    def points(self) -> tuple[Any, ...]:
        """Every value, for a grid. Raises ValueError if there is no end of them."""
        if self.values is not None:
            return self.values
        assert self.low is not None
        assert self.high is not None
        is_whole = isinstance(self.low, int) and not self.log
        if (step := self.step or (1 if is_whole else None)) is None:
            raise ValueError("a grid needs values, or a range with a step")
        count = int((_exact(self.high) - _exact(self.low)) / _exact(step)) + 1
        kind = type(self.low)
        return tuple(kind(_exact(self.low) + i * _exact(step)) for i in range(count))

    def distribution(self) -> BaseDistribution:
        """The same in Optuna's words."""
        if self.values is not None:
            return CategoricalDistribution([to_label(value) for value in self.values])
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int):
            return IntDistribution(self.low, int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True, slots=True)
class Space:
    """All dimensions, and the training file they vary."""

    config: Config
    dimensions: Mapping[str, Dimension]

    @property
    def keys(self) -> tuple[str, ...]:
        """In the order of the study file."""
        return tuple(self.dimensions)

    def check_grid(self) -> None:
        """Raises EdgernnError if the grid has too many points, or no end of them."""
        if (count := math.prod(len(values) for values in self._values())) > MOST_POINTS:
            raise EdgernnError(
                f"search: expected a grid of at most {MOST_POINTS:,} points, got {count:,}"
            )

    def points(self) -> list[dict[str, Scalar]]:
        """Every point of the grid, by label."""
        labels = [[to_label(value) for value in values] for values in self._values()]
        return [dict(zip(self.keys, point, strict=True)) for point in itertools.product(*labels)]

    def distributions(self) -> dict[str, BaseDistribution]:
        """For Optuna."""
        return {key: dimension.distribution() for key, dimension in self.dimensions.items()}

    def config_of(self, point: Mapping[str, Scalar]) -> Config:
        """The training file at this point. Raises EdgernnError if its values exclude each other."""
        values = {key: self._value(key, label) for key, label in point.items()}
        return _with(self.config, values, where="these values exclude each other")

    def _value(self, key: str, label: Scalar) -> Any:
        values = self.dimensions[key].values
        if values is None:
            return label
        return next(value for value in values if to_label(value) == label)

    def _values(self) -> Iterator[tuple[Any, ...]]:
        for key, dimension in self.dimensions.items():
            try:
                yield dimension.points()
            except ValueError as exc:
                raise EdgernnError(f'search."{key}": {exc}') from exc


def read_space(search: Mapping[str, Any], config: Config) -> Space:
    """`[search]` → a space in which every value is one the training file can have.

    Raises EdgernnError that names the key.
    """
    if not search:
        raise EdgernnError("search: expected at least one key to vary, got none")
    space = Space(config, {key: _dimension(key, said, config) for key, said in search.items()})
    for key, dimension in space.dimensions.items():
        for value in dimension.ends:
            _check(space, key, value)
    return space


def to_label(value: Any) -> Scalar:
    """What Optuna stores of a value: itself, or JSON if it is a list or a table."""
    return value if isinstance(value, Scalar) else json.dumps(value)


def _dimension(key: str, said: Any, config: Config) -> Dimension:
    where = f'search."{key}"'
    if isinstance(said, dict) and any(isinstance(value, dict) for value in said.values()):
        raise EdgernnError(f'search.{key}: expected quotes around a dotted key, "{key}.…" = …')
    if not isinstance(said, dict):
        raise EdgernnError(f"{where}: expected {{ low, high }} or {{ values }}, got {said!r}")
    kinds = _kinds(key, where, config)
    dimension = to_settings(said, Dimension, where=where)
    if dimension.values is not None:
        return dimension
    if msgspec.inspect.FloatType in kinds:
        floats = {name: float(said[name]) for name in ("low", "high", "step") if name in said}
        return msgspec.structs.replace(dimension, **floats)
    if msgspec.inspect.IntType not in kinds:
        raise EdgernnError(f"{where}: is not a number: expected {{ values = […] }}")
    for name in ("low", "high", "step"):
        if isinstance(said.get(name), float):
            raise EdgernnError(f"{where}: {name}: expected a whole number, got {said[name]:g}")
    return dimension


def _kinds(key: str, where: str, config: Config) -> set[type]:
    """The types that a key of the training file may have."""
    node: msgspec.inspect.Type = msgspec.inspect.type_info(Config)
    value: Any = config
    path = "the training file"
    for part in key.split("."):
        if value is None:
            raise EdgernnError(f"{where}: expected {path} in the training file, which has none")
        fields = fields_of(node)
        if part not in fields or part in SHARED:
            known = ", ".join(name for name in fields if name not in SHARED)
            what = "all trials share it" if part in fields else "unknown key"
            raise EdgernnError(f"{where}: {what}; {path} has {known or 'no keys of its own'}")
        node, value, path = fields[part], getattr(value, part), f"[{part}]"
    if known := ", ".join(fields_of(node)):
        raise EdgernnError(f"{where}: is a table; expected one of its keys: {known}")
    return {type(member) for member in _members(node)}


def _members(node: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return node.types if isinstance(node, msgspec.inspect.UnionType) else (node,)


def _check(space: Space, key: str, value: Any) -> None:
    """A value must be allowed in the training file as it is, or with other dimensions' values: a
    momentum may need another optimiser."""
    where = f'search."{key}"'
    try:
        _with(space.config, {key: value}, where=where)
    except EdgernnError:
        others = itertools.islice(_combinations(space, without=key), MOST_TRIED)
        if not any(_is_allowed(space.config, {key: value, **other}) for other in others):
            raise


def _combinations(space: Space, *, without: str) -> Iterator[dict[str, Any]]:
    """Ends of the other dimensions: each alone, then two at a time, and so on."""
    others = [key for key in space.keys if key != without]
    for count in range(1, len(others) + 1):
        for keys in itertools.combinations(others, count):
            for values in itertools.product(*(space.dimensions[key].ends for key in keys)):
                yield dict(zip(keys, values, strict=True))


def _is_allowed(config: Config, values: Mapping[str, Any]) -> bool:
    try:
        _with(config, values, where="")
    except EdgernnError:
        return False
    return True


def _with(config: Config, values: Mapping[str, Any], *, where: str) -> Config:
    """The training file with other values at dotted keys."""
    data: dict[str, Any] = msgspec.to_builtins(config)
    for key, value in values.items():
        *tables, last = key.split(".")
        table = data
        for name in tables:
            table = table[name]
        table[last] = value
    return to_settings(data, Config, where=where)


def _exact(number: Number) -> Decimal:
    return Decimal(str(number))
