"""From a healthy recording to a run: fitted, calibrated, and described in a card."""

import hashlib
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgernn import __version__
from edgernn.card import CARD_VERSION, AlarmRule, Card, Channel, Provenance, Tail
from edgernn.config import Config, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.nets.classifier import Classifier
from edgernn.nets.detector import Detector
from edgernn.nets.forecaster import Forecaster
from edgernn.nets.general import General, GeneralConfig
from edgernn.nets.heads import HeadConfig
from edgernn.nets.model import Model
from edgernn.recording import Recording, Track, check_dated, check_readable, segments
from edgernn.run import HEALTHY, EpochLoss, Run, build_model
from edgernn.spans import longest_still
from edgernn.spill import IN_MEMORY, Spill
from edgernn.training.begin import ALARM, ITS_OWN_SCORE, begin
from edgernn.training.checkpoint import Checkpoint, Origin
from edgernn.training.fit import ALONE, fit, fit_scaling
from edgernn.training.lessons import (
    calibrate_classifier,
    calibrate_forecaster,
    check_classes,
    check_horizon,
    count_classes,
    find_classes,
    with_answers,
)
from edgernn.training.ranks import Ranks
from edgernn.training.reach import PLACES, Reach, measure_reach
from edgernn.training.settle import Method, run_counted, settle, settle_levels
from edgernn.training.stretches import (
    BRIDGED,
    BRIDGED_IN_USE,
    Stretches,
    kept_piece,
    max_gap_s,
    side_by_side,
    split,
)
from edgernn.training.tails import FEWEST_SAMPLES, Prior, fit_tail

Floats = NDArray[np.float32]

SHRINKAGE = 0.01
"""Added to the variances, so that two channels that say the same do not cancel to nothing."""
USUAL_QUANTILE = 0.99
"""Of each channel's window surprise on healthy data: what is usual for it."""

MOST_PIECES, MOST_PROVEN = 8, 10_000
"""At the end of a recording, and samples at the end of each, that a general detector's artefact is
proven with."""

DISTANCE = Prior(offset=0.23, scale=0.16, samples=500.0)
"""Of the logarithm of 1 + the distance from levels, which is in standard deviations whatever is
measured: about what healthy stretches of SKAB, SMD, GECCO and the simulated pump show."""


def train(
    config: Config,
    recording: Recording,
    *,
    name: str,
    on_epoch: Callable[[EpochLoss], None] = lambda _: None,
    on_reach: Callable[[str, Reach], None] | None = None,
    ranks: Ranks = ALONE,
    folder: Path | None = None,
    resume: bool = False,
    spill: Spill = IN_MEMORY,
    on_block: Callable[[int], None] = lambda _: None,
) -> tuple[Run, list[EpochLoss]]:
    """Train and calibrate a model of the configuration's task on a recording: a healthy one, or,
    to classify, one with labels.

    `name` is used where the configuration gives none. `on_reach` is told how far back the gradient
    reaches, with the word "before" or "after" (training); without it nothing is measured. `ranks`:
    the processes that train together. `folder`: where a checkpoint is kept meanwhile, and with
    `resume` gone on from; it stays there until the caller has saved the run. `spill` keeps the
    samples. Returns the run and the loss of every epoch.

    With `[general]` there is no epoch: the recording is gone through once, and `on_block` is told
    after how many samples that is.
    Raises EdgernnError for a recording that is too short, and for all else before the first epoch.
    """
    if config.general is not None:
        return _begin(config, config.general, recording, name, spill, on_block), []
    period_s = recording.period_s
    if config.network.calendar:
        check_dated(recording, f"network.calendar = {[*config.network.calendar]}")
    stretches = split(recording, config, spill)
    channels = _channels(recording, stretches.fit, spill)
    classes = find_classes(recording) if config.task == "classify" else ()
    model = build_model(config, recording.channels, period_s=period_s, classes=classes)
    warm_up = config.warm_up + model.delay
    share = config.training.calibration
    _check_held_out(recording, stretches, spill, warm_up=warm_up, share=share)
    if isinstance(model, Classifier):
        check_classes(stretches, classes, warm_up=warm_up)
    lessons = make_lessons(model, stretches, classes, spill)
    if isinstance(model, Classifier):
        model.weigh(torch.from_numpy(count_classes(lessons.fit, classes)))
    if isinstance(model, Forecaster):
        check_horizon(stretches.calibration, model.horizon, warm_up=warm_up)
    healthy = _healthy(recording, stretches)
    check_readable(Path(HEALTHY), healthy)
    checkpoint = None if folder is None else Checkpoint(folder, _origin(config, lessons, spill))
    fit_scaling(model, stretches.fit, spill)
    if on_reach is not None:
        on_reach("before", _reach(model, lessons, config.training))
    losses = fit(
        model,
        lessons,
        config.training,
        on_epoch,
        ranks=ranks,
        checkpoint=checkpoint,
        resume=resume,
        spill=spill,
    )
    if on_reach is not None:
        on_reach("after", _reach(model, lessons, config.training))
    tails: tuple[Tail, ...] = ()
    match model:
        case Detector():
            tails = calibrate(
                model, stretches.calibration, warm_up=warm_up, relation=config.score.relation
            )
        case Classifier():
            calibrate_classifier(model, stretches.calibration, classes, warm_up=warm_up)
        case Forecaster():
            calibrate_forecaster(model, stretches.calibration, warm_up=warm_up)
    card = Card(
        version=CARD_VERSION,
        name=config.name or name,
        task=config.task,
        network=_describe(config, len(recording.channels)),
        channels=channels,
        period_s=period_s,
        max_gap_s=max_gap_s(recording, config, periods=_bridged(config)),
        warm_up=warm_up,
        delay=model.delay,
        classes=classes,
        horizon=config.forecast.horizon if config.task == "forecast" else 0,
        states=model.states,
        tails=tails,
        alarm=config.alarm.over(AlarmRule.for_period(period_s)),
        quantization="none",
        tolerance=0.0,
        provenance=_provenance(config, lessons.fit, spill),
    )
    return Run(config, card, model.eval(), healthy), losses


def _begin(
    config: Config,
    general: GeneralConfig,
    recording: Recording,
    name: str,
    spill: Spill,
    on_block: Callable[[int], None],
) -> Run:
    period_s = recording.period_s
    longest_s = max_gap_s(recording, config, periods=_bridged(config))
    pieces = [
        kept_piece(piece, track, spill)
        for track in spill.one_by_one(recording.tracks)
        for piece in segments(track, period_s=period_s, max_gap_s=longest_s)
    ]
    channels = _channels(recording, pieces, spill)
    model = General(len(channels), general, period_s=period_s)
    begin(model, pieces, spill, on_block)
    healthy = [Track(f"healthy-{i}", *_end(piece)) for i, piece in enumerate(pieces[-MOST_PIECES:])]
    card = Card(
        version=CARD_VERSION,
        name=config.name or name,
        task=config.task,
        network=_describe(config, len(channels)),
        channels=channels,
        period_s=period_s,
        max_gap_s=longest_s,
        warm_up=config.warm_up,
        delay=model.delay,
        classes=(),
        horizon=0,
        states=model.states,
        tails=(ITS_OWN_SCORE,),
        alarm=config.alarm.over(ALARM.stretched(period_s)),
        quantization="none",
        tolerance=0.0,
        provenance=_provenance(config, pieces, spill),
    )
    said = Recording(recording.channels, recording.units, tuple(healthy), period_s, ())
    return Run(config, card, model.eval(), said)


def _end(piece: Track) -> tuple[NDArray[np.float64], Floats, None]:
    """Of a piece what an artefact is proven with."""
    return piece.time_s[-MOST_PROVEN:], piece.x[-MOST_PROVEN:], None


def make_lessons(
    model: Model, stretches: Stretches, classes: Sequence[str], spill: Spill = IN_MEMORY
) -> Stretches:
    """What a model is fitted to: the stretches, and to classify also each sample's class."""
    return with_answers(stretches, classes, spill) if isinstance(model, Classifier) else stretches


@torch.no_grad()
def calibrate(
    detector: Detector, pieces: Sequence[Track], *, warm_up: int, relation: str = "conditional"
) -> tuple[Tail, ...]:
    """Make residuals honest on samples that training never saw, then fit each view's tail.

    Head by head: widen what it says to the spread that is really seen, tell what adapts what is
    usual, relate the channels' residuals to each other, and turn each view's surprise into a
    probability, the last two as the adapting detector will have them. `relation` is one of
    `edgernn.nets.views.RELATIONS`; the first `warm_up` samples of a piece do not count.
    """
    r = _residuals(detector.residuals, detector, pieces, warm_up)
    for i, head in enumerate(detector.heads):
        spread = np.clip(np.sqrt(_mean_product(r[:, i])), 0.1, 10)
        head.read_out.widen(torch.from_numpy(spread).float())
    if detector.levels:
        settle_levels(detector, pieces, warm_up=warm_up)
    else:
        _relate_views(detector, pieces, warm_up, relation)
    totals = _totals(detector, pieces, warm_up)
    tails = tuple(
        fit_tail(
            name,
            [one[:, k].astype(np.float64) for one in totals],
            prior=DISTANCE if detector.levels else None,
        )
        for k, name in enumerate(detector.view_names)
    )
    detector.calibration.load(tails)
    return tails


def _relate_views(detector: Detector, pieces: Sequence[Track], warm_up: int, relation: str) -> None:
    """Tell the judge of each head how its residuals hang together and what is usual."""
    settle(detector, pieces, warm_up=warm_up)
    r = _residuals(detector.adapted, detector, pieces, warm_up)
    channels = r.shape[-1]
    for i, judge in enumerate(detector.judges):
        rows = [_mean_product(r[:, i], r[:, i, [c]]) for c in range(channels)]
        covariance = np.array(rows) + SHRINKAGE * np.eye(channels)
        judge.relate(torch.from_numpy(covariance), relation)
        judge.window.usual = torch.ones(channels)  # what was usual before is measured anew

    totals = _totals(detector, pieces, warm_up)
    seen = np.isfinite(np.concatenate(totals)[:, 0])
    first = 0
    for judge in detector.judges:
        k = first + judge.views.index(judge.window)
        parts = _counted(detector.surprise, detector, pieces, warm_up)
        window = np.concatenate([part[:, k] for part in parts])[seen]  # (·, C)
        usual = np.maximum(np.quantile(window, USUAL_QUANTILE, axis=0), 1.0)
        judge.window.usual = torch.from_numpy(usual / usual.mean()).float()
        first += len(judge.views)


def _residuals(method: Method, detector: Detector, pieces: Sequence[Track], warm_up: int) -> Floats:
    """(·, heads, C) in standard deviations, NaN where missing; clipped, so that a few wild samples
    do not speak for all others."""
    r = np.concatenate(_counted(method, detector, pieces, warm_up))
    return np.clip(r, -5.0, 5.0, out=r)


def _totals(detector: Detector, pieces: Sequence[Track], warm_up: int) -> list[Floats]:
    """Of every piece (T, K): each view's surprise in one number, NaN where nothing was seen."""
    return _counted(detector.totals, detector, pieces, warm_up)


def _counted(
    method: Method, detector: Detector, pieces: Sequence[Track], warm_up: int
) -> list[Floats]:
    """What a method says of each piece, once or twice."""
    parts = [run_counted(method, detector, piece, warm_up=warm_up) for piece in pieces]
    return [part for some in parts for part in some]


def _mean_product(a: Floats, b: Floats | None = None) -> NDArray[np.float64]:
    """Mean over rows of a·b (a² without b), column by column, where both are present."""
    product = a * (a if b is None else b)
    present = np.isfinite(product)
    mean: NDArray[np.float64] = product.sum(0, where=present, dtype=np.float64) / np.maximum(
        present.sum(0), 1
    )
    return mean


def _healthy(recording: Recording, stretches: Stretches) -> Recording:
    """The calibration stretch as a recording of its own."""
    tracks = tuple(
        Track(f"healthy-{i}", piece.time_s, piece.x, piece.label)
        for i, piece in enumerate(stretches.calibration)
    )
    return Recording(recording.channels, recording.units, tracks, recording.period_s, ())


def _origin(config: Config, stretches: Stretches, spill: Spill) -> Origin:
    """What the weights follow from."""
    plain = msgspec.json.decode(msgspec.json.encode(config))
    pieces = [*stretches.fit, *stretches.validation, *stretches.calibration]
    del plain["training"]["memory_gb"]  # where samples are kept changes no weight
    tables = ("task", "network", "head", "adapt", "levels", "forecast", "score", "training")
    keys = {key: plain[key] for key in tables}
    return Origin(keys, hash_lessons(config, pieces, spill))


def _reach(model: Model, stretches: Stretches, training: TrainingConfig) -> Reach:
    """How far back the gradient of a loss reaches, on what is learnt from."""
    samples = PLACES * 2 * training.chunk + 1
    pieces = [Track(p.stream, p.time_s[:samples], p.x[:samples], None) for p in stretches.fit]
    longest = sorted(pieces, key=lambda p: -len(p.x))[: training.streams]
    return measure_reach(model, side_by_side(longest, 1, at_least=samples), chunk=training.chunk)


def _check_held_out(
    recording: Recording, stretches: Stretches, spill: Spill, *, warm_up: int, share: float
) -> None:
    """Said before an hour of training, not after it. `share`: of what is calibrated with."""
    calibration = [piece.x[warm_up:] for piece in stretches.calibration]
    left = sum(int(np.isfinite(x).any(axis=1).sum()) for x in spill.one_by_one(calibration))
    if left < FEWEST_SAMPLES:
        enough = math.ceil((FEWEST_SAMPLES + warm_up) / share)
        raise EdgernnError(
            f"the recording is too short: {left} samples are left to calibrate with, at least "
            f"{FEWEST_SAMPLES} are needed; record longer, {enough:,} samples or so"
        )
    validation = [piece.x for piece in stretches.validation]
    _check_values(recording, validation, spill, "decides when to stop")
    _check_values(recording, calibration, spill, "is calibrated with")


def _check_values(recording: Recording, parts: Sequence[Floats], spill: Spill, what: str) -> None:
    """Every channel has a value somewhere in the parts (T, C)."""
    is_there = np.any([np.isfinite(x).any(axis=0) for x in spill.one_by_one(parts)], axis=0)  # (C,)
    if empty := [n for n, there in zip(recording.channels, is_there, strict=True) if not there]:
        raise EdgernnError(f"channel {', '.join(empty)}: no value in the part that {what}")


def _channels(recording: Recording, pieces: Sequence[Track], spill: Spill) -> tuple[Channel, ...]:
    _check_values(recording, [piece.x for piece in pieces], spill, "is learnt from")
    ends = [(np.fmin.reduce(p.x), np.fmax.reduce(p.x)) for p in spill.one_by_one(pieces)]
    low = np.fmin.reduce([one[0] for one in ends])  # (C,), without what is missing
    high = np.fmax.reduce([one[1] for one in ends])
    still = np.max([longest_still(piece.x) for piece in spill.one_by_one(pieces)], axis=0)  # (C,)
    return tuple(
        Channel(name, unit, float(low[c]), float(high[c]), int(still[c]))
        for c, (name, unit) in enumerate(zip(recording.channels, recording.units, strict=True))
    )


def _describe(config: Config, channels: int) -> str:
    if config.general is not None:
        return f"{channels} → {config.general}"
    heads = "" if config.head == HeadConfig() else f" → {' + '.join(config.head.kinds)}"
    learns = ", adapting" if config.adapt.is_on else ", levels" if config.levels.is_on else ""
    return f"{channels} → {config.network}{heads}{learns}"


def _bridged(config: Config) -> int:
    """Periods of missing samples after which a stream still goes on."""
    return BRIDGED_IN_USE if config.levels.is_on or config.general is not None else BRIDGED


def _provenance(config: Config, pieces: Sequence[Track], spill: Spill) -> Provenance:
    return Provenance(
        edgernn=__version__,
        torch=str(torch.__version__),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=config.training.seed,
        data_hash=hash_lessons(config, pieces, spill),
        config_hash=hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest(),
    )


def hash_lessons(config: Config, pieces: Sequence[Track], spill: Spill = IN_MEMORY) -> str:
    """SHA-256 of all samples (T, C), and with a calendar of their times, hex: what
    `Provenance.data_hash` says was learnt from."""
    data = hashlib.sha256()
    for piece in spill.one_by_one(pieces):
        data.update(np.ascontiguousarray(piece.x).data)
        if config.network.calendar or config.general is not None:
            data.update(np.ascontiguousarray(piece.time_s).data)
    return data.hexdigest()
