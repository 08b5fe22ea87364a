"""Recordings → the stretches that fitting, early stopping and calibration see, cut along time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Times, Track, read_recording, segments
from edgernn.spill import IN_MEMORY, Spill
from edgernn.times import in_step


@dataclass(frozen=True, slots=True)
class Stretches:
    """A recording cut in three along time, each part a list of contiguous pieces."""

    fit: list[Track]
    validation: list[Track]
    calibration: list[Track]


@dataclass(frozen=True, slots=True)
class Lanes:
    """Contiguous pieces side by side, as training runs them."""

    x: Tensor
    """(T, N, C), NaN at the ends of shorter ones."""
    times: tuple[Times, ...] = ()
    """Of each one's samples, (≤ T,) in seconds since 1970; () = not known."""

    def times_at(self, t: int) -> list[float]:
        """(N,) of every one's sample t, of its last one where it is shorter."""
        return [float(time_s[min(t, len(time_s) - 1)]) for time_s in self.times]

    def some(self, streams: slice) -> "Lanes":
        """These streams alone."""
        return Lanes(self.x[:, streams], self.times[streams])

    def to(self, device: torch.device) -> "Lanes":
        """The same with its samples on a device."""
        return Lanes(self.x.to(device), self.times)


MOST_TO_CALIBRATE = 1_000_000
"""Samples; calibration holds all of its part in memory, and more would not change a threshold."""
BRIDGED = 60
"""Periods of missing samples that are no end of a stretch."""
BRIDGED_IN_USE = 2000
"""The same on the device, of a detector that goes on learning there: a stream that began afresh
would lose what it has learnt. On GECCO, with gaps of 61 and 985 samples, that costs `[levels]` more
than half of VUS-PR and the general artefact a third."""
BLOCK = 4096
"""Samples that are copied at a time."""


def read_recordings(config: Config, base: Path, spill: Spill = IN_MEMORY) -> Recording:
    """Every file of the configuration as one recording; all must have the same channels.

    Files are read one after the other, and their samples kept by `spill`.
    """
    files = config.files(base)
    if not files:
        raise EdgernnError(
            f"recording: no file matches {', '.join(r.path for r in config.recording)}"
        )
    tracks: list[Track] = []
    notes: dict[str, list[str]] = {}  # what had to be put right → in which files
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
        if part.units != first.units:
            raise EdgernnError(
                f"{path}: units {', '.join(part.units)}; {files[0][0]} has {', '.join(first.units)}"
            )
        for note in part.notes:
            notes.setdefault(note, []).append(path.name)
        for track in part.tracks:
            head = _head(track, item.first_rows)
            kept, labelled = (head, 0) if config.task == "classify" else _leave_out_faults(head)
            time_s, x = spill.keep(kept.time_s), spill.keep(kept.x)
            tracks.append(Track(kept.stream, time_s, x, kept.label))
            if labelled:
                note = f"{labelled} rows labelled as faults are left out"
                notes.setdefault(note, []).append(path.name)
    assert first is not None
    return Recording(
        first.channels, first.units, tuple(tracks), _common_period(periods), _sentences(notes)
    )


def split(recording: Recording, config: Config, spill: Spill = IN_MEMORY) -> Stretches:
    """Cut every track along time: the first part to fit, then validation, the end calibration.

    A calibration piece begins one warm-up early, with samples that only warm the detector up:
    a short recording has none to spare. Of a very long one less is kept for calibration.
    """
    lead = config.warm_up
    parts: tuple[list[Track], list[Track], list[Track]] = ([], [], [])
    samples = sum(len(track.time_s) for track in recording.tracks)
    share = min(config.training.calibration, MOST_TO_CALIBRATE / max(samples, 1))
    for track in spill.one_by_one(recording.tracks):
        pieces = segments(
            track, period_s=recording.period_s, max_gap_s=max_gap_s(recording, config)
        )
        total = sum(len(piece.time_s) for piece in pieces)
        to = total - round(total * share)
        fit_to = to - round(total * config.training.validation)
        start = 0
        for filled in pieces:
            piece = kept_piece(filled, track, spill)
            end = start + len(piece.time_s)
            wanted = [(start, fit_to), (max(fit_to, start), to)]
            if end > to:
                wanted.append((to - lead, end))
            for part, (first, last) in zip(parts, wanted, strict=False):
                rows = slice(max(first - start, 0), max(last - start, 0))
                if len(piece.time_s[rows]) > 1:
                    part.append(_rows(piece, rows))
            start = end
    for part, what in zip(parts, ("to fit", "for validation", "for calibration"), strict=True):
        if not part:
            raise EdgernnError(f"the recording is too short: nothing is left {what}; record longer")
    return Stretches(*parts)


def max_gap_s(recording: Recording, config: Config, *, periods: int = BRIDGED) -> float:
    """Up to this, missing samples are bridged; `periods`: where the configuration says nothing."""
    return periods * recording.period_s if config.max_gap_s is None else config.max_gap_s


def side_by_side(
    pieces: Sequence[Track], streams: int, *, at_least: int, spill: Spill = IN_MEMORY
) -> Lanes:
    """Contiguous pieces → about `streams` parallel ones of equal length. No time jumps in any."""
    total = sum(len(piece.x) for piece in pieces)
    length = max(at_least, math.ceil(total / streams))
    cuts = [slice(i, i + length) for i in range(0, max(len(p.x) for p in pieces), length)]
    parts = [_rows(piece, cut) for piece in pieces for cut in cuts]
    parts = [part for part in parts if len(part.x) > 1]
    channels = parts[0].x.shape[1]
    together = spill.empty((max(len(part.x) for part in parts), len(parts), channels))
    for start in range(0, len(together), BLOCK):
        for n, part in enumerate(parts):
            taken = part.x[start : start + BLOCK]
            together[start : start + len(taken), n] = taken
        spill.release()
    return Lanes(torch.from_numpy(together), tuple(part.time_s for part in parts))


def blocks(
    piece: Track, size: int, step_s: float | None = None
) -> Iterator[tuple[Tensor, list[float]]]:
    """A piece as one stream, in blocks that fit into memory: x (≤ size, 1, C), and the time of the
    first sample of each, as `set_clock` takes it. `step_s`: of a model with a clock; a block ends
    where the clock would be wrong."""
    start = 0
    while start < len(piece.x):
        rows = slice(start, start + size)
        if step_s is not None:
            rows = slice(start, start + in_step(piece.time_s[rows], step_s))
        yield torch.from_numpy(piece.x[rows]).unsqueeze(1), [float(piece.time_s[start])]
        start += len(piece.x[rows])


def kept_piece(piece: Track, track: Track, spill: Spill) -> Track:
    """A piece whose samples are the track's own, or where a gap was filled, kept by `spill`."""
    if np.may_share_memory(piece.x, track.x):
        return piece
    return Track(piece.stream, spill.keep(piece.time_s), spill.keep(piece.x), piece.label)


def _head(track: Track, rows: int | None) -> Track:
    return _rows(track, slice(rows))


def _rows(track: Track, rows: slice) -> Track:
    label = None if track.label is None else track.label[rows]
    return Track(track.stream, track.time_s[rows], track.x[rows], label)


def _leave_out_faults(track: Track) -> tuple[Track, int]:
    """Rows labelled as faults become missing: a healthy detector must not learn them. The labels
    have done their work then and go."""
    if track.label is None:
        return track, 0
    is_fault = track.label != ""
    x = np.where(is_fault[:, None], np.float32(np.nan), track.x) if is_fault.any() else track.x
    return Track(track.stream, track.time_s, x, None), int(is_fault.sum())


def _sentences(notes: dict[str, list[str]]) -> tuple[str, ...]:
    """Each note once, with the file or the number of files it holds for."""
    return tuple(
        f"{files[0] if len(files) == 1 else f'{len(files)} files'}: {note}"
        for note, files in notes.items()
    )


def _common_period(periods: dict[Path, float]) -> float:
    """The period of all files; refuses files that differ by more than a tenth."""
    slowest, fastest = (pick(periods, key=lambda p: periods[p]) for pick in (max, min))
    if periods[slowest] > 1.1 * periods[fastest]:
        raise EdgernnError(
            f"the recordings differ in period: {fastest} has {periods[fastest]:g} s, "
            f"{slowest} {periods[slowest]:g} s; set period_s"
        )
    return float(np.median(list(periods.values())))
