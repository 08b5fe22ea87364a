"""Optimiser, learning-rate schedule and penalties, as `[training]` asks for them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from edgernn.config import TrainingConfig


class Optimizer:
    """One step along the clipped gradient at a time, and a rate that follows its schedule.

    The rate is a function of the configuration and of the validation losses so far, in their order:
    whoever goes on after an interruption tells it those again.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig) -> None:
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._weights = [p for p in self._parameters if p.ndim > 1]
        self._clip_norm, self._l1 = config.clip_norm, config.l1
        groups: list[dict[str, Any]] = [{"params": self._parameters}]
        if config.l2:
            biases = [p for p in self._parameters if p.ndim <= 1]
            groups = [{"params": biases}, {"params": self._weights, "weight_decay": config.l2}]
        self.torch = _optimizer([group for group in groups if group["params"]], config)
        self._schedule, self._first_rate = config.schedule, config.learning_rate
        self._epoch, self._epochs = 0, config.epochs
        patience = max(1, config.patience // 2 - 1)
        # threshold 0: a relative one calls any negative loss better than itself
        self._plateau = ReduceLROnPlateau(self.torch, factor=0.5, patience=patience, threshold=0.0)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.torch.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        self.torch.zero_grad()

    def step(self) -> None:
        """Follow the gradients that the parameters hold."""
        if self._l1:
            with torch.no_grad():
                for weight in self._weights:
                    if weight.grad is not None:
                        weight.grad.add_(weight.sign(), alpha=self._l1)
        nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self.torch.step()

    def memory(self) -> dict[str, Tensor]:
        """All that it remembers of earlier steps: «parameter.what» → tensor."""
        return {
            f"{parameter}.{what}": value
            for parameter, state in self.torch.state_dict()["state"].items()
            for what, value in state.items()
            if isinstance(value, Tensor)
        }

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Take over what `memory` gave."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in memory.items():
            parameter, _, what = name.partition(".")
            state.setdefault(int(parameter), {})[what] = value.clone()
        groups = self.torch.state_dict()["param_groups"]
        self.torch.load_state_dict({"state": state, "param_groups": groups})

    def end_epoch(self, validation: float) -> None:
        """Tell the schedule what an epoch came to."""
        self._epoch += 1
        if self._schedule == "plateau":
            self._plateau.step(validation)
        elif self._schedule == "cosine":  # Loshchilov and Hutter 2017, without restarts
            share = 0.5 * (1 + math.cos(math.pi * self._epoch / self._epochs))
            for group in self.torch.param_groups:
                group["lr"] = self._first_rate * share


def _optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    """Fused where torch has it: one call for all parameters."""
    lr, momentum = config.learning_rate, config.momentum
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, weight_decay=0.0, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=lr, momentum=momentum)
        case _:
            return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
