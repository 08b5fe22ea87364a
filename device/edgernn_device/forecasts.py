"""Task "forecast": the samples to come, said now and then. No clock, no socket."""

import math
from collections.abc import Sequence

import msgspec

from edgernn.times import format_time
from edgernn_device.alert import Model
from edgernn_device.engine import Engine, Floats
from edgernn_device.monitor import Notice, Outcome
from edgernn_device.running import Running, RunningMemory
from edgernn_device.stream import Step, Stream


class ChannelForecast(msgspec.Struct, frozen=True):
    """What is to be expected of one channel, step by step, in its unit."""

    name: str
    unit: str
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    """Standard deviations."""


class Forecast(msgspec.Struct, frozen=True):
    """The JSON on the forecast topic."""

    node: str
    stream: str
    time: str
    """Of the sample it was made with, ISO 8601, UTC: step k is about `period_s` · k later."""
    period_s: float
    horizon: int
    """Number of steps."""
    channels: tuple[ChannelForecast, ...]
    model: Model


class _Memory(RunningMemory):
    """When one stream's warm-up ended, and when its last forecast was made; sample times."""

    made_s: float = math.nan


class Forecasts(Running[_Memory]):
    """A forecast for every stream, at most one in `every_s` seconds of sample time."""

    def __init__(self, engine: Engine, *, every_s: float, node: str) -> None:
        super().__init__(_Memory)
        self._card = engine.card
        self._every_s = every_s
        self._node = node
        self._model = Model(name=engine.card.name, hash=engine.hash)

    def __str__(self) -> str:
        ahead_s = self._card.horizon * self._card.period_s
        return f"forecasts {ahead_s:g} s ahead, at most one in {self._every_s:g} s"

    def hear(
        self, stream: Stream, steps: Sequence[Step], said: Sequence[Floats], outcome: Outcome
    ) -> bool:
        """`said`: forecast and spread (T, H, C). A bridged sample leads to none."""
        forecast, spread = said
        memory = self._of[stream.name]
        for t, step in enumerate(steps):
            if not stream.is_next_counted():
                continue
            if math.isnan(memory.running_s):
                memory.running_s = step.time_s
            if any(value == value for value in step.x) and self._is_due(memory, step.time_s):
                memory.made_s = step.time_s
                content = self._forecast(stream, step.time_s, forecast[t], spread[t])
                outcome.notices.append(Notice("forecast", stream.name, content))
        stream.spoken_s = steps[-1].time_s
        return True

    def start_afresh(self, stream: Stream, outcome: Outcome) -> None:
        """The last forecast stands until the stream has warmed up: it carries its time."""
        self._of[stream.name] = _Memory()

    def shift(self, stream: Stream, by_s: float) -> None:
        memory = self._of[stream.name]
        memory.running_s += by_s
        memory.made_s += by_s

    def _is_due(self, memory: _Memory, time_s: float) -> bool:
        """The first one is, and one that is a hair early: sample times are not exact."""
        slack_s = self._card.period_s / 10
        return math.isnan(memory.made_s) or time_s - memory.made_s >= self._every_s - slack_s

    def _forecast(self, stream: Stream, time_s: float, mean: Floats, spread: Floats) -> Forecast:
        """mean and spread (H, C)."""
        return Forecast(
            node=self._node,
            stream=stream.name,
            time=format_time(time_s),
            period_s=self._card.period_s,
            horizon=self._card.horizon,
            channels=tuple(
                ChannelForecast(
                    channel.name, channel.unit, _short(mean[:, c]), _short(spread[:, c])
                )
                for c, channel in enumerate(self._card.channels)
            ),
            model=self._model,
        )


def _short(values: Floats) -> tuple[float, ...]:
    """As many digits as float32 can tell."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())
