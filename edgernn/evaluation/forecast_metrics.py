"""Forecasts against what came, step by step, beside two forecasts that need no model."""

import math
from collections.abc import Iterator

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgernn.card import Card
from edgernn.errors import EdgernnError
from edgernn.evaluation.evaluate import find_columns
from edgernn.nets.model import Model
from edgernn.recording import Recording, Track, segments
from edgernn.times import DAY_S

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]

BLOCK = 512
"""Samples that run through the model at a time: H forecasts of each."""
BAND = 1.645
"""Standard deviations around the mean that hold 90 % of a Gaussian."""


class Errors(msgspec.Struct, frozen=True):
    """Of one way to forecast one channel, in its unit."""

    mae: float
    rmse: float
    mae_by_step: tuple[float, ...]
    rmse_by_step: tuple[float, ...]


class ChannelErrors(msgspec.Struct, frozen=True):
    """All ways, over the same samples."""

    name: str
    unit: str
    forecast: Errors
    persistence: Errors
    """As now."""
    day_before: Errors | None
    """As at that time of the last day known; None where the recording has not two days."""
    within_90: float
    """Share of values within the band that should hold 90 % of them."""


class ForecastMetrics(msgspec.Struct, frozen=True):
    """Over forecasts made after the warm-up."""

    period_s: float
    horizon: int
    values: int
    channels: tuple[ChannelErrors, ...]


def measure_forecasts(model: Model, card: Card, recording: Recording) -> ForecastMetrics:
    """Forecast from every sample of a recording and compare with what came.

    Raises EdgernnError where nothing came, or the channels do not fit.
    """
    columns = find_columns(card, recording)
    pieces = [
        Track(piece.stream, piece.time_s, piece.x[:, columns], None)
        for track in recording.tracks
        for piece in segments(track, period_s=card.period_s, max_gap_s=card.max_gap_s)
    ]
    day = round(DAY_S / card.period_s)
    has_days = day >= 2 and any(len(piece.x) > 2 * day for piece in pieces)
    shape = (card.horizon, len(columns))
    count, inside = np.zeros(shape), np.zeros(shape)
    absolute = {way: np.zeros(shape) for way in ("forecast", "persistence", "day_before")}
    squared = {way: np.zeros(shape) for way in absolute}
    for piece in pieces:
        for target, said, spread in _blocks(model, card, piece, day if has_days else 0):
            errors = {way: np.abs(target - value) for way, value in said.items()}
            there = np.isfinite(sum(errors.values()))  # all ways over the same samples
            count += there.sum(0)
            inside += (there & (errors["forecast"] <= BAND * spread)).sum(0)
            for way, error in errors.items():
                absolute[way] += np.where(there, error, 0.0).sum(0)
                squared[way] += np.where(there, error**2, 0.0).sum(0)
    if not count.all():
        raise EdgernnError(
            f"the recording is too short: {card.warm_up} samples of warm-up and {card.horizon} "
            "ahead leave nothing to compare"
        )
    ways = [way for way in absolute if has_days or way != "day_before"]
    channels = []
    for c, channel in enumerate(card.channels):
        found = {way: _errors(absolute[way][:, c], squared[way][:, c], count[:, c]) for way in ways}
        channels.append(
            ChannelErrors(
                name=channel.name,
                unit=channel.unit,
                forecast=found["forecast"],
                persistence=found["persistence"],
                day_before=found.get("day_before"),
                within_90=float(inside[:, c].sum() / count[:, c].sum()),
            )
        )
    return ForecastMetrics(card.period_s, card.horizon, int(count.sum()), tuple(channels))


def forecast_lines(metrics: ForecastMetrics) -> str:
    """For a person: each channel's errors over all steps, and at some of them."""
    steps = sorted({1, math.ceil(metrics.horizon / 4), math.ceil(metrics.horizon / 2)})
    steps = sorted({*steps, metrics.horizon})
    ahead = "".join(f"{_span(step * metrics.period_s):>10}" for step in steps)
    lines = [f"{metrics.values:,} values forecast; mean absolute error by time ahead"]
    for channel in metrics.channels:
        unit = f" [{channel.unit}]" if channel.unit else ""
        title = f"{channel.name}{unit}"
        lines.append(f"{title:<24}{'MAE':>10}{'RMSE':>10}{ahead}")
        for way in ("forecast", "persistence", "day_before"):
            errors: Errors | None = getattr(channel, way)
            if errors is not None:
                cells = [errors.mae, errors.rmse, *(errors.mae_by_step[s - 1] for s in steps)]
                numbers = "".join(f"{cell:>10.4g}" for cell in cells)
                lines.append(f"  {way.replace('_', ' '):<22}{numbers}")
        lines.append(f"  within the 90 % band  {channel.within_90:>10.1%}")
    return "\n".join(lines)


def _blocks(
    model: Model, card: Card, piece: Track, day: int
) -> Iterator[tuple[Floats, dict[str, Floats], Floats]]:
    """A piece → block by block what came, what each way said of it, and the spread, all (·, H, C);
    NaN where something is missing. `day`: samples of one, 0 = not to be compared."""
    x = piece.x
    ahead = np.arange(1, card.horizon + 1)
    nothing = np.full((card.horizon, x.shape[1]), np.nan, np.float32)
    later = np.concatenate([x, nothing])  # sample t at row t
    state = model.fresh_state(1)
    for start in range(0, len(x), BLOCK):
        block = torch.from_numpy(x[start : start + BLOCK]).unsqueeze(1)
        state = model.set_clock(state, [float(piece.time_s[start])])
        with torch.no_grad():
            forecast, spread, *following = model(block, *state)
        state = tuple(following)
        t = np.arange(max(start, card.warm_up), start + len(block))  # counted samples
        when = t[:, None] + ahead  # (·, H)
        said = {
            "forecast": forecast[t - start, 0].numpy(),
            "persistence": np.repeat(x[t][:, None], card.horizon, axis=1),
        }
        if day:
            known = when - day * -(-ahead // day)
            said["day_before"] = np.where(known[..., None] >= 0, later[known], np.nan)
        yield later[when], said, spread[t - start, 0].numpy()


def _errors(absolute: Sums, squared: Sums, count: Sums) -> Errors:
    """Sums and counts (H,) of one channel."""
    return Errors(
        mae=float(absolute.sum() / count.sum()),
        rmse=math.sqrt(squared.sum() / count.sum()),
        mae_by_step=tuple((absolute / count).tolist()),
        rmse_by_step=tuple(np.sqrt(squared / count).tolist()),
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
