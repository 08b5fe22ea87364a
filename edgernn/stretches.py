"""Recordings → the stretches that fitting, early stopping and calibration see, cut along time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track, read_recording, segments


@dataclass(frozen=True, slots=True)
class Stretches:
    """A recording cut in three along time, each part a list of contiguous pieces."""

    fit: list[Track]
    validation: list[Track]
    calibration: list[Track]


def read_recordings(config: Config, base: Path) -> Recording:
    """Every file of the configuration as one recording; all must have the same channels."""
    files = config.files(base)
    if not files:
        raise EdgernnError(
            f"recording: no file matches {', '.join(r.path for r in config.recording)}"
        )
    tracks: list[Track] = []
    notes: list[str] = []
    periods: dict[Path, float] = {}
    first: Recording | None = None
    for path, item in files:
        part = read_recording(path, columns=item.columns, period_s=config.period_s)
        first = first or part
        periods[path] = part.period_s
        if part.channels != first.channels:
            raise EdgernnError(
                f"{path}: channels {', '.join(part.channels)}; "
                f"{files[0][0]} has {', '.join(first.channels)}"
            )
        notes += [f"{path.name}: {note}" for note in part.notes]
        for track in part.tracks:
            healthy, labelled = _leave_out_faults(_head(track, item.first_rows))
            tracks.append(healthy)
            if labelled:
                notes.append(f"{path.name}: {labelled} rows labelled as faults are left out")
    assert first is not None
    return Recording(
        first.channels, first.units, tuple(tracks), _common_period(periods), tuple(notes)
    )


def split(recording: Recording, config: Config) -> Stretches:
    """Cut every track along time: the first part to fit, then validation, the end calibration."""
    period_s = recording.period_s
    max_gap_s = config.max_gap_s or 60 * period_s
    parts: tuple[list[Track], list[Track], list[Track]] = ([], [], [])
    for track in recording.tracks:
        pieces = segments(track, period_s=period_s, max_gap_s=max_gap_s)
        total = sum(len(piece.time_s) for piece in pieces)
        calibration_from = total - round(total * config.training.calibration)
        validation_from = calibration_from - round(total * config.training.validation)
        start = 0
        for piece in pieces:
            cuts = [c - start for c in (validation_from, calibration_from)]
            for part, cut in zip(parts, _cut(piece, cuts), strict=True):
                if len(cut.time_s) > 1:
                    part.append(cut)
            start += len(piece.time_s)
    for part, what in zip(parts, ("to fit", "for validation", "for calibration"), strict=True):
        if not part:
            raise EdgernnError(f"the recording is too short: nothing is left {what}")
    return Stretches(*parts)


def side_by_side(pieces: Sequence[Track], streams: int, *, at_least: int) -> Tensor:
    """Contiguous pieces → (T, N, C): about `streams` parallel ones of equal length, NaN at the
    ends of shorter ones."""
    total = sum(len(piece.x) for piece in pieces)
    length = max(at_least, math.ceil(total / streams))
    parts = [piece.x[i : i + length] for piece in pieces for i in range(0, len(piece.x), length)]
    parts = [part for part in parts if len(part) > 1]
    together = np.full((max(map(len, parts)), len(parts), parts[0].shape[1]), np.nan, np.float32)
    for n, part in enumerate(parts):
        together[: len(part), n] = part
    return torch.from_numpy(together)


def _head(track: Track, rows: int | None) -> Track:
    label = None if track.label is None else track.label[:rows]
    return Track(track.stream, track.time_s[:rows], track.x[:rows], label)


def _cut(piece: Track, cuts: Sequence[int]) -> list[Track]:
    """A piece cut at row numbers that may lie outside it: always len(cuts) + 1 parts."""
    edges = [0, *(min(max(cut, 0), len(piece.time_s)) for cut in cuts), len(piece.time_s)]
    return [Track(piece.stream, piece.time_s[a:b], piece.x[a:b], None) for a, b in pairwise(edges)]


def _leave_out_faults(track: Track) -> tuple[Track, int]:
    """Rows labelled as faults become missing: a healthy detector must not learn them."""
    if track.label is None or not (is_fault := track.label != "").any():
        return track, 0
    x = np.where(is_fault[:, None], np.float32(np.nan), track.x)
    return Track(track.stream, track.time_s, x, None), int(is_fault.sum())


def _common_period(periods: dict[Path, float]) -> float:
    """The period of all files; refuses files that differ by more than a tenth."""
    slowest, fastest = (pick(periods, key=lambda p: periods[p]) for pick in (max, min))
    if periods[slowest] > 1.1 * periods[fastest]:
        raise EdgernnError(
            f"the recordings differ in period: {fastest} has {periods[fastest]:g} s, "
            f"{slowest} {periods[slowest]:g} s; set period_s"
        )
    return float(np.median(list(periods.values())))
