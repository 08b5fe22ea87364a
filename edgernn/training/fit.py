"""The training loop, as the model will run: parallel streams, state carried on."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgernn.config import TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.nets.model import Model
from edgernn.recording import Track
from edgernn.run import EpochLoss, pick_device
from edgernn.spill import IN_MEMORY, Spill
from edgernn.training.checkpoint import Checkpoint
from edgernn.training.hiding import hide
from edgernn.training.optimizer import Optimizer
from edgernn.training.ranks import Ranks
from edgernn.training.stretches import Lanes, Stretches, side_by_side

Doubles = NDArray[np.float64]

ALONE = Ranks()
SCALING_BLOCK = 65_536
"""Samples of a piece that are added up at a time."""
RELEASE_EVERY = 64
"""Chunks between two times that the pages of a mapped recording are let go."""
VALIDATION_BLOCK = 8192
"""Samples, of all streams, that are validated at a time: bounds the memory."""


def fit_scaling(model: Model, pieces: Sequence[Track], spill: Spill = IN_MEMORY) -> None:
    """Set the model's centre and scale to each channel's mean and standard deviation."""
    count = np.maximum(_sum_over(pieces, lambda x: np.ones_like(x), spill), 1)
    centre = _sum_over(pieces, lambda x: x, spill) / count
    spread = np.sqrt(_sum_over(pieces, lambda x: (x - centre) ** 2, spill) / count)
    floor = 1e-6 * np.maximum(np.abs(centre), 1.0)  # a channel that never moved
    model.centre.copy_(torch.from_numpy(centre))
    model.scale.copy_(torch.from_numpy(np.maximum(spread, floor)))


def _sum_over(
    pieces: Sequence[Track], function: Callable[[Doubles], Doubles], spill: Spill
) -> Doubles:
    """Sum of a function of the present values of every channel (C,), block by block."""
    total = np.zeros(pieces[0].x.shape[1])
    for piece in spill.one_by_one(pieces):
        for start in range(0, len(piece.x), SCALING_BLOCK):
            x = piece.x[start : start + SCALING_BLOCK].astype(np.float64)
            total += np.where(np.isfinite(x), function(x), 0.0).sum(0)
    return total


def fit(
    model: Model,
    stretches: Stretches,
    config: TrainingConfig,
    on_epoch: Callable[[EpochLoss], None] = lambda _: None,
    *,
    ranks: Ranks = ALONE,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    spill: Spill = IN_MEMORY,
) -> list[EpochLoss]:
    """Stateful truncated back-propagation through time (Williams and Peng 1990), early stopping;
    the model ends with the weights of its best epoch, on the CPU.

    `ranks`: the processes that share the streams; all end with the same weights. `checkpoint` is
    written after every epoch; with `resume`, training goes on from it.
    """
    device = pick_device(config.device)
    is_bf16 = _takes_bf16(config.precision, device)
    lanes, held_out = (
        side_by_side(pieces, config.streams, at_least=config.chunk, spill=spill)
        for pieces in (stretches.fit, stretches.validation)
    )
    streams = lanes.x.shape[1]
    if streams < ranks.count:
        raise EdgernnError(
            f"{ranks.count} processes for {streams} stream(s): at least one for each is needed; "
            f"raise training.streams (now {config.streams})"
        )
    model.to(device)
    ranks.copy_from_first(model.state_dict().values())
    lanes, held_out = (part.some(ranks.share(part.x.shape[1])) for part in (lanes, held_out))
    if not spill.is_used:  # else chunk by chunk
        lanes, held_out = lanes.to(device), held_out.to(device)
    optimizer = Optimizer(model, config)
    losses, best = _begin(model, optimizer, checkpoint if resume else None)
    if not ranks.agree_on(len(losses), device):
        raise EdgernnError(
            "the processes resume from different epochs: the run folder must be one that all share"
        )
    while not _is_over(losses, config):
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            training = _train_epoch(
                model,
                lanes,
                config,
                optimizer,
                streams,
                ranks,
                epoch=len(losses) + 1,
                bf16=is_bf16,
                spill=spill,
            )
        validation = mean_loss(model, held_out, ranks, spill)
        losses.append(EpochLoss(len(losses) + 1, training, validation, optimizer.rate))
        on_epoch(losses[-1])
        if not math.isfinite(training + validation):
            raise EdgernnError(
                f"training diverged in epoch {len(losses)}; lower training.learning_rate "
                f"(now {config.learning_rate:g})"
            )
        optimizer.end_epoch(validation)
        if best_of(losses) is losses[-1]:
            best = _weights(model)
        if checkpoint is not None and ranks.is_first:
            checkpoint.save(model, optimizer, losses, best)
    model.load_state_dict(best)
    model.cpu()
    return losses


def best_of(losses: Sequence[EpochLoss]) -> EpochLoss:
    """The epoch whose weights are kept: the first with the lowest validation loss."""
    return min(losses, key=lambda loss: loss.validation)


def _begin(
    model: Model, optimizer: Optimizer, checkpoint: Checkpoint | None
) -> tuple[list[EpochLoss], dict[str, Tensor]]:
    """Losses so far and best weights: none and the first ones, or the checkpoint's."""
    if checkpoint is None:
        return [], _weights(model)
    return checkpoint.restore(model, optimizer)


def _is_over(losses: Sequence[EpochLoss], config: TrainingConfig) -> bool:
    epoch = len(losses)
    return epoch > 0 and (
        epoch >= config.epochs or epoch - best_of(losses).epoch >= config.patience
    )


def _train_epoch(
    model: Model,
    lanes: Lanes,
    config: TrainingConfig,
    optimizer: Optimizer,
    streams: int,
    ranks: Ranks,
    *,
    epoch: int,
    bf16: bool,
    spill: Spill = IN_MEMORY,
) -> float:
    """One pass over the lanes, this process's of all `streams`, with a step of the optimiser per
    chunk; the mean loss of a value."""
    device, mine = model.centre.device, ranks.share(streams)
    # what is hidden is drawn for all streams, so that it does not depend on who has which
    generator = torch.Generator(device).manual_seed(_seed(config.seed, epoch, 0))
    torch.manual_seed(_seed(config.seed, epoch, 1 + ranks.rank))  # dropout's
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    state = model.fresh_state(lanes.x.shape[1])
    total = torch.zeros(2, dtype=torch.float64, device=device)  # on the device: no waiting for it
    for chunk, times_s in _chunks(lanes, config.chunk, device, spill):  # (chunk, N, C), (N,)
        state = model.set_clock(state, times_s)
        hidden = hide((len(chunk), streams, chunk.shape[2]), config.hide, generator)[:, mine]
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss, values, after = model.loss(chunk, hidden, *state)
        state = tuple(s.detach().float() for s in after)
        optimizer.zero_grad()
        if ranks.count > 1:
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
            loss, values = ranks.add_up_gradients(parameters, loss, values)
        else:
            (loss / values.clamp(min=1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += torch.stack([loss.detach(), values])
    return _mean(total)


@torch.no_grad()
def mean_loss(model: Model, lanes: Lanes, ranks: Ranks = ALONE, spill: Spill = IN_MEMORY) -> float:
    """Mean negative log-likelihood of a value, from fresh states; of all processes' streams."""
    model.eval()
    device = model.centre.device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    streams = lanes.x.shape[1]
    state = model.fresh_state(streams)
    size = max(1, VALIDATION_BLOCK // max(1, streams))
    for block, times_s in _chunks(lanes, size, device, spill) if streams else ():
        state = model.set_clock(state, times_s)
        loss, values, state = model.loss(block, torch.zeros_like(block), *state)
        total += torch.stack([loss, values])
    return _mean(ranks.add_up(total))


def _chunks(
    lanes: Lanes, size: int, device: torch.device, spill: Spill
) -> Iterator[tuple[Tensor, list[float]]]:
    """Samples (T, N, C) in pieces of `size`, views of them where they are on the device, and the
    times (N,) of the first ones of each."""
    for i, chunk in enumerate(torch.split(lanes.x, size)):
        yield chunk.to(device), lanes.times_at(i * size)
        if spill.is_used and i % RELEASE_EVERY == RELEASE_EVERY - 1:
            spill.release()


def _mean(total: Tensor) -> float:
    """(sum, count) → mean."""
    return float(total[0] / total[1].clamp(min=1))


def _takes_bf16(precision: str, device: torch.device) -> bool:
    """Refuses bf16 on the CPU: it was asked for to be fast, and there it is slow."""
    if precision == "bf16" and device.type != "cuda":
        raise EdgernnError('training.precision: "bf16" needs CUDA, and this training runs on "cpu"')
    return precision == "bf16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )


def _seed(seed: int, epoch: int, use: int) -> int:
    """Of one epoch's generator for one use: whoever goes on in a later epoch needs no other."""
    (word,) = np.random.SeedSequence([seed, epoch, use]).generate_state(1, np.uint64)
    return int(word) >> 1  # torch takes 63 bits


def _weights(model: Model) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
