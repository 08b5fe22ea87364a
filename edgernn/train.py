"""Training, as the detector will run: the recording cut into parallel streams, state carried on."""

import hashlib
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgernn import __version__
from edgernn.card import CARD_VERSION, AlarmRule, Card, Channel, Provenance, Tail
from edgernn.config import Config, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.nets.detector import Detector
from edgernn.nets.heads import HeadConfig
from edgernn.recording import Recording, Track
from edgernn.run import EpochLoss, Run, build_detector, pick_device
from edgernn.stretches import Stretches, max_gap_s, side_by_side, split
from edgernn.tails import FEWEST_SAMPLES, fit_tail

Floats = NDArray[np.float32]

SHRINKAGE = 0.01
"""Added to the variances, so that two channels that say the same do not cancel to nothing."""
LONGEST_BLOCK = 8192
"""Samples that run through the detector at a time while calibrating."""
USUAL_QUANTILE = 0.99
"""Of each channel's window surprise on healthy data: what is usual for it."""


def train(
    config: Config,
    recording: Recording,
    *,
    name: str,
    on_epoch: Callable[[EpochLoss], None] = lambda _: None,
) -> tuple[Run, list[EpochLoss]]:
    """Train and calibrate a detector on a healthy recording.

    `name` is used where the configuration gives none. Returns the run and the loss of every epoch.
    Raises EdgernnError for a recording that is too short.
    """
    period_s = recording.period_s
    stretches = split(recording, config)
    channels = _channels(recording, stretches.fit)
    detector = build_detector(config, recording.channels)
    warm_up = config.score.window + detector.delay
    _check_held_out(recording, stretches, warm_up=warm_up)
    fit_scaling(detector, stretches.fit)
    losses = fit(detector, stretches, config.training, on_epoch)
    tails = calibrate(
        detector, stretches.calibration, warm_up=warm_up, relation=config.score.relation
    )
    card = Card(
        version=CARD_VERSION,
        name=config.name or name,
        network=_describe(config, len(recording.channels)),
        channels=channels,
        period_s=period_s,
        max_gap_s=max_gap_s(recording, config),
        warm_up=warm_up,
        delay=detector.delay,
        states=detector.states,
        tails=tails,
        alarm=config.alarm or AlarmRule.for_period(period_s),
        quantization="none",
        tolerance=0.0,
        provenance=_provenance(config, stretches.fit),
    )
    healthy = Recording(
        channels=recording.channels,
        units=recording.units,
        tracks=tuple(
            Track(f"healthy-{i}", piece.time_s, piece.x, None)
            for i, piece in enumerate(stretches.calibration)
        ),
        period_s=period_s,
        notes=(),
    )
    return Run(config, card, detector.eval(), healthy), losses


def fit_scaling(detector: Detector, pieces: Sequence[Track]) -> None:
    """Set the detector's centre and scale to each channel's mean and standard deviation."""
    x = np.concatenate([piece.x for piece in pieces]).astype(np.float64)
    present = np.isfinite(x)
    count = np.maximum(present.sum(0), 1)
    centre = np.where(present, x, 0.0).sum(0) / count
    spread = np.sqrt((np.where(present, x - centre, 0.0) ** 2).sum(0) / count)
    floor = 1e-6 * np.maximum(np.abs(centre), 1.0)  # a channel that never moved
    detector.centre.copy_(torch.from_numpy(centre))
    detector.scale.copy_(torch.from_numpy(np.maximum(spread, floor)))


def fit(
    detector: Detector,
    stretches: Stretches,
    config: TrainingConfig,
    on_epoch: Callable[[EpochLoss], None],
) -> list[EpochLoss]:
    """Stateful truncated back-propagation through time (Williams and Peng 1990), Adam, early
    stopping; the detector ends with the weights of its best epoch, on the CPU."""
    device = pick_device(config.device)
    generator = torch.Generator(device).manual_seed(config.seed)
    detector.to(device)
    x = side_by_side(stretches.fit, config.streams, at_least=config.chunk).to(device)  # (T, N, C)
    held_out = side_by_side(stretches.validation, config.streams, at_least=config.chunk).to(device)
    optimizer = torch.optim.Adam(detector.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=max(1, config.patience // 2 - 1)
    )
    losses: list[EpochLoss] = []
    best, best_epoch, best_weights = math.inf, 0, _weights(detector)
    for epoch in range(1, config.epochs + 1):
        training = _train_epoch(detector, x, config, optimizer, generator)
        validation = mean_loss(detector, held_out)
        losses.append(EpochLoss(epoch, training, validation, optimizer.param_groups[0]["lr"]))
        on_epoch(losses[-1])
        if not math.isfinite(training + validation):
            raise EdgernnError(
                f"training diverged in epoch {epoch}; lower training.learning_rate "
                f"(now {config.learning_rate:g})"
            )
        schedule.step(validation)
        if validation < best:
            best, best_epoch, best_weights = validation, epoch, _weights(detector)
        if epoch - best_epoch >= config.patience:
            break
    detector.load_state_dict(best_weights)
    detector.cpu()
    return losses


def _train_epoch(
    detector: Detector,
    x: Tensor,
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    """One pass over x (T, N, C), a step of the optimiser per chunk; the mean loss of a value."""
    detector.train()
    state = detector.fresh_state(x.shape[1])
    total, count = 0.0, 0.0
    for chunk in torch.split(x, config.chunk):  # views, (chunk, N, C)
        hidden = _hide(chunk, config.hide, generator)
        loss, values, state = detector.loss(chunk, hidden, *state)
        state = tuple(s.detach() for s in state)
        optimizer.zero_grad()
        (loss / values.clamp(min=1)).backward()  # type: ignore[no-untyped-call]  # torch's stubs
        torch.nn.utils.clip_grad_norm_(detector.parameters(), config.clip_norm)
        optimizer.step()
        total, count = total + loss.item(), count + values.item()
    return total / max(count, 1.0)


def _hide(chunk: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """1 where the network must do without a value of a chunk (T, N, C): a third of them single
    values, a third whole samples, a third channels that are away for the whole chunk."""
    t, n, c = chunk.shape
    hidden = torch.zeros_like(chunk)
    for shape in ((t, n, c), (t, n, 1), (1, n, c)):
        chance = torch.rand(shape, generator=generator, device=chunk.device)
        hidden = torch.maximum(hidden, (chance < share / 3).to(chunk.dtype))
    return hidden


@torch.no_grad()
def mean_loss(detector: Detector, x: Tensor) -> float:
    """Mean negative log-likelihood of a value of x (T, N, C), from fresh states."""
    detector.eval()
    loss, values, _ = detector.loss(x, torch.zeros_like(x), *detector.fresh_state(x.shape[1]))
    return float(loss / values.clamp(min=1))


@torch.no_grad()
def calibrate(
    detector: Detector, pieces: Sequence[Track], *, warm_up: int, relation: str = "conditional"
) -> tuple[Tail, ...]:
    """Make residuals honest on samples that training never saw, then fit each view's tail.

    Three steps, head by head: widen what it says to the spread that is really seen, relate the
    channels' residuals to each other, and turn each view's surprise into a probability. `relation`
    is one of `edgernn.nets.views.RELATIONS`; the first `warm_up` samples of a piece do not count.
    """
    r = _residuals(detector, pieces, warm_up)
    for i, head in enumerate(detector.heads):
        spread = np.clip(np.sqrt(_mean_product(r[:, i])), 0.1, 10)
        head.read_out.widen(torch.from_numpy(spread).float())
    r = _residuals(detector, pieces, warm_up)
    channels = r.shape[-1]
    for i, judge in enumerate(detector.judges):
        rows = [_mean_product(r[:, i], r[:, i, [c]]) for c in range(channels)]
        covariance = np.array(rows) + SHRINKAGE * np.eye(channels)
        judge.relate(torch.from_numpy(covariance), relation)

    surprise = np.concatenate([_run(detector.surprise, detector, p.x)[warm_up:] for p in pieces])
    totals = [_run(detector.totals, detector, piece.x)[warm_up:] for piece in pieces]  # (T, K)
    seen = np.isfinite(np.concatenate(totals)[:, 0])
    first = 0
    for judge in detector.judges:
        window = surprise[seen, first + judge.views.index(judge.window)]  # (·, C)
        usual = np.maximum(np.quantile(window, USUAL_QUANTILE, axis=0), 1.0)
        judge.window.usual = torch.from_numpy(usual / usual.mean()).float()
        first += len(judge.views)

    totals = [_run(detector.totals, detector, piece.x)[warm_up:] for piece in pieces]
    tails = tuple(
        fit_tail(name, [one[:, k] for one in totals]) for k, name in enumerate(detector.view_names)
    )
    detector.calibration.load(tails)
    return tails


def _residuals(detector: Detector, pieces: Sequence[Track], warm_up: int) -> NDArray[np.float64]:
    """(·, heads, C) in standard deviations, NaN where missing; clipped, so that a few wild samples
    do not speak for all others."""
    parts = [_run(detector.residuals, detector, piece.x)[warm_up:] for piece in pieces]
    return np.clip(np.concatenate(parts), -5.0, 5.0)


def _mean_product(
    a: NDArray[np.float64], b: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Mean over rows of a·b (a² without b), column by column, where both are present."""
    product = a * (a if b is None else b)
    present = np.isfinite(product)
    mean: NDArray[np.float64] = np.where(present, product, 0.0).sum(0) / np.maximum(
        present.sum(0), 1
    )
    return mean


def _run(
    method: Callable[..., tuple[Tensor, tuple[Tensor, ...]]], detector: Detector, x: Floats
) -> NDArray[np.float64]:
    """One stream (T, C) through a method of the detector, from a fresh state, in blocks that fit
    into memory: (T, …)."""
    state = detector.fresh_state(1)
    parts = []
    for block in torch.split(torch.from_numpy(x).unsqueeze(1), LONGEST_BLOCK):
        out, state = method(block, *state)
        parts.append(out[:, 0].numpy().astype(np.float64))
    return np.concatenate(parts)


def _weights(detector: Detector) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in detector.state_dict().items()}


def _check_held_out(recording: Recording, stretches: Stretches, *, warm_up: int) -> None:
    """Said before an hour of training, not after it."""
    calibration = np.concatenate([piece.x[warm_up:] for piece in stretches.calibration])
    validation = np.concatenate([piece.x for piece in stretches.validation])
    left = int(np.isfinite(calibration).any(axis=1).sum())
    if left < FEWEST_SAMPLES:
        raise EdgernnError(
            f"the recording is too short: {left} samples are left to calibrate with, at least "
            f"{FEWEST_SAMPLES} are needed; record longer"
        )
    for x, what in ((validation, "decides when to stop"), (calibration, "is calibrated with")):
        if empty := [n for n, c in zip(recording.channels, x.T, strict=True) if np.isnan(c).all()]:
            raise EdgernnError(f"channel {', '.join(empty)}: no value in the part that {what}")


def _channels(recording: Recording, pieces: Sequence[Track]) -> tuple[Channel, ...]:
    x = np.concatenate([piece.x for piece in pieces])
    if empty := [n for n, c in zip(recording.channels, x.T, strict=True) if np.isnan(c).all()]:
        raise EdgernnError(f"channel {', '.join(empty)}: no value in the part that is learnt from")
    low, high = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    return tuple(
        Channel(name, unit, float(low[c]), float(high[c]))
        for c, (name, unit) in enumerate(zip(recording.channels, recording.units, strict=True))
    )


def _describe(config: Config, channels: int) -> str:
    heads = "" if config.head == HeadConfig() else f" → {' + '.join(config.head.kinds)}"
    return f"{channels} → {config.network}{heads}"


def _provenance(config: Config, pieces: Sequence[Track]) -> Provenance:
    data = hashlib.sha256()
    for piece in pieces:
        data.update(piece.x.tobytes())
    return Provenance(
        edgernn=__version__,
        torch=str(torch.__version__),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=config.training.seed,
        data_hash=data.hexdigest(),
        config_hash=hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest(),
    )
