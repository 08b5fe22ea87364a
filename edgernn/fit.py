"""The training loop, as the model will run: parallel streams, state carried on."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from edgernn.config import TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.nets.model import Model
from edgernn.recording import Track
from edgernn.run import EpochLoss, pick_device
from edgernn.stretches import Stretches, side_by_side


def fit_scaling(model: Model, pieces: Sequence[Track]) -> None:
    """Set the model's centre and scale to each channel's mean and standard deviation."""
    x = np.concatenate([piece.x for piece in pieces]).astype(np.float64)
    present = np.isfinite(x)
    count = np.maximum(present.sum(0), 1)
    centre = np.where(present, x, 0.0).sum(0) / count
    spread = np.sqrt((np.where(present, x - centre, 0.0) ** 2).sum(0) / count)
    floor = 1e-6 * np.maximum(np.abs(centre), 1.0)  # a channel that never moved
    model.centre.copy_(torch.from_numpy(centre))
    model.scale.copy_(torch.from_numpy(np.maximum(spread, floor)))


def fit(
    model: Model,
    stretches: Stretches,
    config: TrainingConfig,
    on_epoch: Callable[[EpochLoss], None],
) -> list[EpochLoss]:
    """Stateful truncated back-propagation through time (Williams and Peng 1990), Adam, early
    stopping; the model ends with the weights of its best epoch, on the CPU."""
    device = pick_device(config.device)
    generator = torch.Generator(device).manual_seed(config.seed)
    model.to(device)
    x = side_by_side(stretches.fit, config.streams, at_least=config.chunk).to(device)  # (T, N, C)
    held_out = side_by_side(stretches.validation, config.streams, at_least=config.chunk).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=max(1, config.patience // 2 - 1)
    )
    losses: list[EpochLoss] = []
    best, best_epoch, best_weights = math.inf, 0, _weights(model)
    for epoch in range(1, config.epochs + 1):
        training = _train_epoch(model, x, config, optimizer, generator)
        validation = mean_loss(model, held_out)
        losses.append(EpochLoss(epoch, training, validation, optimizer.param_groups[0]["lr"]))
        on_epoch(losses[-1])
        if not math.isfinite(training + validation):
            raise EdgernnError(
                f"training diverged in epoch {epoch}; lower training.learning_rate "
                f"(now {config.learning_rate:g})"
            )
        schedule.step(validation)
        if validation < best:
            best, best_epoch, best_weights = validation, epoch, _weights(model)
        if epoch - best_epoch >= config.patience:
            break
    model.load_state_dict(best_weights)
    model.cpu()
    return losses


def _train_epoch(
    model: Model,
    x: Tensor,
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    """One pass over x (T, N, C), a step of the optimiser per chunk; the mean loss of a value."""
    model.train()
    state = model.fresh_state(x.shape[1])
    total, count = 0.0, 0.0
    for chunk in torch.split(x, config.chunk):  # views, (chunk, N, C)
        hidden = _hide(chunk, config.hide, generator)
        loss, values, state = model.loss(chunk, hidden, *state)
        state = tuple(s.detach() for s in state)
        optimizer.zero_grad()
        (loss / values.clamp(min=1)).backward()  # type: ignore[no-untyped-call]  # torch's stubs
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
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
def mean_loss(model: Model, x: Tensor) -> float:
    """Mean negative log-likelihood of a value of x (T, N, C), from fresh states."""
    model.eval()
    loss, values, _ = model.loss(x, torch.zeros_like(x), *model.fresh_state(x.shape[1]))
    return float(loss / values.clamp(min=1))


def _weights(model: Model) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
