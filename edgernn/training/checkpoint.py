"""The file by which an interrupted training goes on, bit for bit: safetensors with JSON inside."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgernn.errors import EdgernnError
from edgernn.run import EpochLoss
from edgernn.training.optimizer import Optimizer

NAME = "checkpoint.safetensors"
"""In the run folder, from the first epoch's end until the run is saved."""
WEIGHTS, BEST, OPTIMIZER = "weights.", "best.", "optimizer."


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training starts from; another origin has other weights."""

    config: dict[str, Any]
    """The tables and keys that decide the weights."""
    data: str
    """SHA-256 of all samples."""


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON; the rest are tensors. The generators' states need no place: every epoch has a seed
    of its own. Nor has the schedule, which follows from the losses."""

    origin: Origin
    losses: tuple[EpochLoss, ...]


class Checkpoint:
    """One file, replaced in one step: whatever kills the process leaves the old or the new one."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self.path = folder / NAME
        self._origin = origin

    def save(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        losses: Sequence[EpochLoss],
        best: Mapping[str, Tensor],
    ) -> None:
        """Write the state of training after its last epoch. Raises EdgernnError if it cannot."""
        tensors = {WEIGHTS + name: value for name, value in module.state_dict().items()}
        tensors |= {BEST + name: value for name, value in best.items()}
        tensors |= {OPTIMIZER + name: value for name, value in optimizer.memory().items()}
        header = msgspec.json.encode(_Header(self._origin, tuple(losses))).decode()
        data = save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            metadata={"edgernn": header},
        )
        part = partial_path(self.path)
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as exc:
            raise EdgernnError(f"{self.path}: cannot be written: {exc.strerror}") from exc

    def restore(
        self, module: nn.Module, optimizer: Optimizer
    ) -> tuple[list[EpochLoss], dict[str, Tensor]]:
        """Put module and optimiser where they were; the losses so far and the best weights.

        Raises EdgernnError if there is no checkpoint, or it is of another training.
        """
        if not self.path.is_file():
            raise EdgernnError(
                f"{self.path}: no such file: the run is complete, or was never begun; "
                "there is nothing to resume"
            )
        try:
            with safe_open(self.path, framework="pt") as file:
                header = msgspec.json.decode((file.metadata() or {})["edgernn"], type=_Header)
                self._check_origin(header.origin)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            device = next(module.parameters()).device
            weights, best, memory = (
                {
                    name.removeprefix(prefix): tensor.to(device)
                    for name, tensor in tensors.items()
                    if name.startswith(prefix)
                }
                for prefix in (WEIGHTS, BEST, OPTIMIZER)
            )
            module.load_state_dict(weights)
            optimizer.remember(memory)
        except (SafetensorError, msgspec.DecodeError, KeyError, RuntimeError) as exc:
            detail = " ".join(str(exc).split())[:200]
            raise EdgernnError(f"{self.path}: not a checkpoint, or damaged: {detail}") from exc
        for loss in header.losses:
            optimizer.end_epoch(loss.validation)
        return list(header.losses), best

    def _check_origin(self, origin: Origin) -> None:
        again = "start afresh with --force"
        if changes := list(_changes(origin.config, self._origin.config)):
            raise EdgernnError(f"{self.path}: cannot resume: {'; '.join(changes)}; {again}")
        if origin.data != self._origin.data:
            raise EdgernnError(f"{self.path}: cannot resume: the recordings have changed; {again}")


def partial_path(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(path.name + ".part")


def remove_checkpoint(folder: Path) -> None:
    """Once the run is saved, or another training begins in its place."""
    for path in (folder / NAME, partial_path(folder / NAME)):
        path.unlink(missing_ok=True)


def _changes(before: Any, now: Any, key: str = "") -> "list[str]":
    """«training.seed was 0, is 1», for every key that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change
            for name in sorted({*before, *now})
            for change in _changes(
                before.get(name), now.get(name), f"{key}.{name}" if key else str(name)
            )
        ]
    return [] if before == now else [f"{key} was {before}, is {now}"]
