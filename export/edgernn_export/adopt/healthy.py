"""A healthy recording as a foreign model gets it: its channels in order, gaps filled, scaled."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgernn.card import Channel
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track, read_recording, segments
from edgernn.settings import read_text
from edgernn.spans import longest_still

Floats = NDArray[np.float32]

MAX_GAP = 60
"""Periods; a longer gap starts afresh, as after `edgernn train`."""
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a foreign model sees of a value v: (v − mean) / std; so are its outputs."""

    mean: Floats
    """(C,)"""
    std: Floats


@dataclass(frozen=True, slots=True)
class Healthy:
    """What is learnt from, and proven with."""

    recording: Recording
    """The chosen channels, in the foreign model's order."""
    pieces: tuple[Track, ...]
    """Contiguous."""
    channels: tuple[Channel, ...]
    centre: Floats
    """(C,) means: what stands for a value before the first was observed."""
    spread: Floats
    """(C,) standard deviations."""
    max_gap_s: float


def read_healthy(path: Path, names: Sequence[str], *, period_s: float | None) -> Healthy:
    """Read a recording and pick these channels. Raises EdgernnError for one that is not there."""
    whole = read_recording(path, period_s=period_s)
    if missing := [name for name in names if name not in whole.channels]:
        raise EdgernnError(
            f"{path}: channel {', '.join(missing)} is missing: it has {', '.join(whole.channels)}"
        )
    columns = [whole.channels.index(name) for name in names]
    tracks = tuple(_without_faults(track, columns) for track in whole.tracks)
    units = tuple(whole.units[i] for i in columns)
    faults = sum(int((t.label != "").sum()) for t in whole.tracks if t.label is not None)
    notes = [*whole.notes, *([f"{faults} rows labelled as faults are left out"] if faults else [])]
    recording = Recording(tuple(names), units, tracks, whole.period_s, tuple(notes))
    together = np.concatenate([track.x for track in tracks])
    if not (is_there := np.isfinite(together).any(axis=0)).all():
        raise EdgernnError(f"{path}: channel {names[int(np.argmin(is_there))]}: no value")
    max_gap_s = MAX_GAP * whole.period_s
    pieces = [
        piece
        for track in tracks
        for piece in segments(track, period_s=whole.period_s, max_gap_s=max_gap_s)
    ]
    still = np.max([longest_still(piece.x) for piece in pieces], axis=0)  # (C,)
    spread = np.nanstd(together, axis=0, dtype=np.float64)  # (C,)
    centre: Floats = np.asarray(np.nanmean(together, axis=0, dtype=np.float64), np.float32)
    return Healthy(
        recording,
        tuple(pieces),
        tuple(
            Channel(name, unit, float(np.nanmin(column)), float(np.nanmax(column)), int(most))
            for name, unit, column, most in zip(names, units, together.T, still, strict=True)
        ),
        centre,
        np.where(spread > 0, spread, 1.0).astype(np.float32),
        max_gap_s,
    )


def _without_faults(track: Track, columns: Sequence[int]) -> Track:
    """These columns; rows labelled as faults are missing."""
    x = np.ascontiguousarray(track.x[:, columns])
    if track.label is not None:
        x[track.label != ""] = np.nan
    return Track(track.stream, track.time_s, x, None)


def read_scaling(path: Path, names: Sequence[str]) -> Scaling:
    """A CSV file with the columns channel, mean, std and a row for each channel."""
    rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or not {"channel", "mean", "std"} <= set(rows[0]):
        raise EdgernnError(f"{path}: expected a header channel,mean,std and a row for each channel")
    found: dict[str, tuple[float, float]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            mean, std = float(row["mean"]), float(row["std"])
        except (TypeError, ValueError) as exc:
            raise EdgernnError(f"{path}: line {line}: expected numbers for mean and std") from exc
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise EdgernnError(
                f"{path}: line {line}: expected a mean and an std above 0, got {mean:g}, {std:g}"
            )
        if row["channel"] in found:
            raise EdgernnError(f"{path}: line {line}: channel {row['channel']} is there twice")
        found[row["channel"]] = (mean, std)
    if missing := [name for name in names if name not in found]:
        raise EdgernnError(f"{path}: channel {', '.join(missing)} is missing")
    values = np.array([found[name] for name in names], np.float32)  # (C, 2)
    return Scaling(values[:, 0].copy(), values[:, 1].copy())


def fill(x: Floats, centre: Floats) -> Floats:
    """x (T, …, C) with what is missing or infinite replaced by the last value before it, and by
    `centre` (C,) where there is none: what the adopted graph does, sample by sample."""
    filled = np.empty_like(x)
    last = np.broadcast_to(centre, x.shape[1:])
    for t, row in enumerate(x):
        last = np.where(np.abs(row) <= LARGEST, row, last)
        filled[t] = last
    return filled
