"""What the tasks beside anomaly learn from, and how their words are made honest afterwards."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgernn.errors import EdgernnError
from edgernn.nets.classifier import Classifier
from edgernn.nets.forecaster import Forecaster
from edgernn.recording import Recording, Track
from edgernn.spill import IN_MEMORY, Spill
from edgernn.training.stretches import Stretches, blocks

Floats = NDArray[np.float32]

HEALTHY = "healthy"
"""The class of samples without a label."""
TEMPERATURES = np.geomspace(0.25, 16.0, 97)
"""Tried one by one: the likelihood of the calibration part has one maximum in between."""
LARGEST_ERROR = 5.0
"""Standard deviations: a few wild samples shall not widen every forecast."""
WIDEN_RANGE = (0.1, 10.0)
LONGEST_BLOCK = 1024
"""Samples that run through a model at a time while calibrating: H forecasts of each, or a run of
L samples back."""


def find_classes(recording: Recording) -> tuple[str, ...]:
    """Every label of a recording, "healthy" first. Raises EdgernnError if there are not two."""
    if unlabelled := [track.stream for track in recording.tracks if track.label is None]:
        raise EdgernnError(
            f'task "classify" learns from labels, and {unlabelled[0]} has none; expected a column '
            "label, empty where healthy"
        )
    found = {str(n) for track in recording.tracks for n in np.unique(classes_of(track))}
    classes = tuple(sorted(found, key=lambda name: (name != HEALTHY, name)))
    if len(classes) < 2:
        raise EdgernnError(
            f'task "classify" needs at least two classes, every sample is "{classes[0]}"'
        )
    return classes


def check_classes(stretches: Stretches, classes: Sequence[str], *, warm_up: int) -> None:
    """Every class must be there to be learnt, and there to be judged by."""
    for pieces, lead, what in (
        (stretches.fit, 0, "is learnt from"),
        (stretches.validation, 0, "decides when to stop"),
        (stretches.calibration, warm_up, "is calibrated with"),
    ):
        there = {name for piece in pieces for name in np.unique(classes_of(piece)[lead:])}
        if missing := [name for name in classes if name not in there]:
            raise EdgernnError(
                f"class {', '.join(missing)}: no sample in the part that {what}; every recording "
                "is cut along time, so each class must come early, late and in between, or have "
                "a recording of its own"
            )


def with_answers(
    stretches: Stretches, classes: Sequence[str], spill: Spill = IN_MEMORY
) -> Stretches:
    """The same stretches with one more column of x: the index of the sample's class, NaN where
    nothing was observed."""
    return Stretches(
        *(
            [_kept(_with_answer(piece, classes), spill) for piece in part]
            for part in (stretches.fit, stretches.validation, stretches.calibration)
        )
    )


def check_horizon(pieces: Sequence[Track], horizon: int, *, warm_up: int) -> None:
    """Raises EdgernnError if no piece is long enough to see a forecast come true."""
    if (longest := max((len(piece.x) for piece in pieces), default=0)) <= warm_up + horizon:
        raise EdgernnError(
            f"the recording is too short: its longest part to calibrate with has {longest} "
            f"samples, a warm-up of {warm_up} and a horizon of {horizon} need more; record longer, "
            "or lower forecast.horizon"
        )


def count_classes(pieces: Sequence[Track], classes: Sequence[str]) -> NDArray[np.int64]:
    """(L,) observed samples of each class, in pieces with their answers."""
    answers = np.concatenate([piece.x[:, -1] for piece in pieces])
    return np.bincount(answers[np.isfinite(answers)].astype(np.int64), minlength=len(classes))


@torch.no_grad()
def calibrate_classifier(
    model: Classifier, pieces: Sequence[Track], classes: Sequence[str], *, warm_up: int
) -> None:
    """One temperature for all logits, the likeliest on samples that training never saw (Guo et al.
    2017, "On calibration of modern neural networks"); classes weigh as they did in training."""
    logits, answers = [], []
    for piece in pieces:
        said = _logits(model, piece)
        about = _with_answer(piece, classes).x[: len(piece.x) - model.delay, -1]
        logits.append(said[warm_up:])
        answers.append(torch.from_numpy(about[warm_up - model.delay :]))
    z, answer = torch.cat(logits), torch.cat(answers)  # (·, L), (·,)
    z, answer = z[answer.isfinite()], answer[answer.isfinite()].long()
    weight = model.weights[answer]

    def loss(temperature: float) -> float:
        log_p = torch.log_softmax(z / temperature, dim=-1)
        return -float((weight * log_p[torch.arange(len(answer)), answer]).sum())

    model.temperature.fill_(min(TEMPERATURES.tolist(), key=loss))


def _logits(model: Classifier, piece: Track) -> Tensor:
    """Of a whole piece, in blocks that fit into memory: (T, L)."""
    state, parts = model.fresh_state(1), []
    for block, first_s in blocks(piece, LONGEST_BLOCK, model.step_s):
        said, state = model.logits(block, *model.set_clock(state, first_s))
        parts.append(said[:, 0])
    return torch.cat(parts)


@torch.no_grad()
def calibrate_forecaster(model: Forecaster, pieces: Sequence[Track], *, warm_up: int) -> None:
    """Widen every step's spread to what is really seen on samples that training never saw."""
    shape = (model.horizon, model.channels)
    total, count = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for piece in pieces:
        state = model.fresh_state(1)
        x = torch.from_numpy(piece.x).unsqueeze(1)  # (T, 1, C)
        for start in range(0, len(x) - model.horizon, LONGEST_BLOCK):
            end = start + LONGEST_BLOCK + model.horizon
            state = model.set_clock(state, [float(piece.time_s[start])])
            errors, state = model.errors(x[start:end], *state)
            errors = errors[max(0, warm_up - start) :, 0].clamp(-LARGEST_ERROR, LARGEST_ERROR)
            total += errors.nan_to_num().square().sum(0)
            count += errors.isfinite().sum(0)
    if not count.all():
        raise EdgernnError(
            f"{int((count == 0).sum())} of {count.numel()} steps ahead have no value to calibrate "
            "with; record longer, or lower forecast.horizon"
        )
    factor = (total / count).sqrt().clamp(*WIDEN_RANGE)
    model.read_out.widen(factor.float().reshape(-1))


def classes_of(track: Track) -> NDArray[np.str_]:
    """(T,) the label of every sample, "healthy" where there is none."""
    if track.label is None:
        return np.full(len(track.time_s), HEALTHY)
    return np.where(track.label == "", HEALTHY, track.label)


def _kept(piece: Track, spill: Spill) -> Track:
    return Track(piece.stream, piece.time_s, spill.keep(piece.x), piece.label)


def _with_answer(piece: Track, classes: Sequence[str]) -> Track:
    index = {name: i for i, name in enumerate(classes)}
    answer = np.array([index[name] for name in classes_of(piece).tolist()], np.float32)
    answer[np.isnan(piece.x).all(axis=1)] = np.nan
    x = np.concatenate([piece.x, answer[:, None]], axis=1)
    return Track(piece.stream, piece.time_s, x, piece.label)
