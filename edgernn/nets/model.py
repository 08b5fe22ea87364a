"""Model: what every task shares, sensor units → scaled values → features of a stateful network."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from edgernn.card import State
from edgernn.nets.calendar import Calendar
from edgernn.nets.networks import NetworkConfig, build_network
from edgernn.times import seconds_of_week

LARGEST_INPUT = 10.0
"""Standard deviations; what the network sees is clipped here, so that no reading can blind it."""


CLOCK = "clock"
"""The state (1,) that is the time of the next sample, in seconds since Monday 00:00 UTC."""

M = TypeVar("M", bound=nn.Module)


class Modules(nn.ModuleList, Generic[M]):
    """A ModuleList that knows what it holds."""

    def __iter__(self) -> Iterator[M]:
        return cast("Iterator[M]", super().__iter__())


class Exportable(nn.Module, ABC):
    """Samples and states in, what is said of the samples and next states out: `forward` is what is
    exported, node for node."""

    outputs: ClassVar[tuple[str, ...]]
    """Names of what `forward` returns before the next states."""
    channels: int
    delay: int = 0
    """What is returned with sample t speaks of sample t − delay."""
    scale: Tensor
    """(C,) standard deviation of each channel, in sensor units."""

    @property
    @abstractmethod
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every memory in the order `forward` takes them, those of a network first."""

    @property
    def initials(self) -> Mapping[str, float]:
        """What the memories begin with that do not begin at 0."""
        return {}

    @property
    def states(self) -> tuple[State, ...]:
        """Every memory, as the card lists it."""
        return tuple(
            State(f"state.{name}", shape, self.initials.get(name, 0.0), is_clock=name == CLOCK)
            for name, shape in self.state_shapes.items()
        )

    @property
    def has_clock(self) -> bool:
        """Whether what it says depends on the time."""
        return CLOCK in self.state_shapes

    @property
    def step_s(self) -> float | None:
        """Seconds that its clock goes on by with a sample; None = it has none."""
        return None

    def fresh_state(self, streams: int, times_s: Sequence[float] = ()) -> tuple[Tensor, ...]:
        """The states of `streams` streams that have seen nothing: each (N, …). `times_s`: of each
        one's first sample, seconds since 1970; () = Monday 00:00."""
        fresh = tuple(
            torch.full((streams, *shape), self.initials.get(name, 0.0), device=self.scale.device)
            for name, shape in self.state_shapes.items()
        )
        return self.set_clock(fresh, times_s)

    def set_clock(self, state: tuple[Tensor, ...], times_s: Sequence[float]) -> tuple[Tensor, ...]:
        """The states with the clock, where there is one, at `times_s` (N,): of each stream's next
        sample, seconds since 1970; () = as it goes on by itself. For every call, as the device
        does it: a sensor is off its period."""
        if not times_s or not self.has_clock:
            return state
        i = [*self.state_shapes].index(CLOCK)
        clock = torch.tensor([*map(seconds_of_week, times_s)], device=self.scale.device)
        return (*state[:i], clock.unsqueeze(1), *state[i + 1 :])

    @abstractmethod
    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """x (T, N, C) in sensor units, NaN = missing; states as `states` lists them → `outputs`,
        then the next states."""


class Model(Exportable):
    """A stateful network over scaled samples; a task adds what is said of them."""

    centre: Tensor

    def __init__(
        self, channels: Sequence[str], network: NetworkConfig, *, seed: int, period_s: float = 1.0
    ) -> None:
        """`channels`: their names, in the order of a sample. `period_s`: between samples, for a
        network with a calendar."""
        super().__init__()
        self.channels = len(channels)
        self.network = build_network(channels, network, seed=seed)
        self.calendar: Calendar | None = None
        if network.calendar:
            self.calendar = Calendar(network.calendar, period_s=period_s)
        self.register_buffer("centre", torch.zeros(self.channels))
        self.register_buffer("scale", torch.ones(self.channels))

    @property
    def seeing(self) -> Mapping[str, tuple[int, ...]]:
        """The memories of `features`: the network's, and the clock of a calendar. They come before
        those of the task."""
        clock = {} if self.calendar is None else {CLOCK: (1,)}
        return dict(self.network.state_shapes) | clock

    @property
    def step_s(self) -> float | None:
        return None if self.calendar is None else self.calendar.step_s

    @abstractmethod
    def loss(
        self, x: Tensor, hidden: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """What training minimises.

        x (T, N, C or more): samples in sensor units, behind them what the task asks for; hidden,
        of the same shape: 1 where the network must do without a value that is still asked for.
        Returns a sum, the number (or weight) of what was summed, and the next states: those of
        `states`, and behind them what only training carries on. Without the latter it begins anew.
        """

    def scaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sensor units → scaled values, 0 where missing; 1 where observed. Both (T, N, C)."""
        missing = torch.isnan(x)
        z = (x - self.centre) / self.scale
        return torch.where(missing, 0.0, z), torch.where(missing, 0.0, 1.0)

    def features(
        self, z: Tensor, observed: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """z, 0 where missing, and observed, both (T, N, C) → what the network sees of them
        (T, N, 2·C), its features (T, N, width), next states of `seeing`; `state`: all of the
        model's. Behind the values it sees the calendar's columns, if there is one."""
        values = [z.clamp(-LARGEST_INPUT, LARGEST_INPUT), observed]
        seen = torch.cat(values, dim=-1)
        count = len(self.network.state_shapes)
        if self.calendar is None:
            features, following = self.network(seen, *islice(state, count))
            return seen, features, following
        columns, clock = self.calendar(z, state[count])
        given = torch.cat([*values, columns], dim=-1)
        features, following = self.network(given, *islice(state, count))
        return seen, features, (*following, clock)
