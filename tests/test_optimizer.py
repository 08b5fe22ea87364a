"""Optimisers, penalties and schedules: each does what its key in `[training]` says, and no more."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from edgernn.config import TrainingConfig
from edgernn.training.optimizer import Optimizer

RATE = 0.1
TOLERANCE = 1e-6
"""Relative, of one float32 operation and its fused twin."""


def module() -> nn.Linear:
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[2.0, -4.0]]))
        linear.bias.fill_(3.0)
    return linear


def config(**keys: Any) -> TrainingConfig:
    return TrainingConfig(learning_rate=RATE, clip_norm=1e6, **keys)


def step(linear: nn.Linear, optimizer: Optimizer, gradient: float = 0.0) -> list[float]:
    """Weights and bias after a step along a gradient that is the same everywhere."""
    for p in linear.parameters():
        p.grad = torch.full_like(p, gradient)
    optimizer.step()
    return [*linear.weight.flatten().tolist(), *linear.bias.tolist()]


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimiser_goes_downhill(name: str) -> None:
    linear = module()
    optimizer = Optimizer(linear, config(optimizer=name))
    for _ in range(300):
        optimizer.zero_grad()
        loss = (linear(torch.tensor([1.0, 1.0])) - 7).square().sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_adam_is_torchs_adam() -> None:
    ours, theirs = module(), module()
    optimizer, plain = Optimizer(ours, config()), torch.optim.Adam(theirs.parameters(), lr=RATE)
    for gradient in (1.0, -0.5, 3.0):
        for p in theirs.parameters():
            p.grad = torch.full_like(p, gradient)
        plain.step()
        step(ours, optimizer, gradient)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=TOLERANCE, atol=0)


def test_l2_of_adamw_shrinks_weights_by_its_share_of_the_rate_and_leaves_biases() -> None:
    linear = module()
    found = step(linear, Optimizer(linear, config(optimizer="adamw", l2=0.5)))
    assert found == pytest.approx([2 * (1 - RATE * 0.5), -4 * (1 - RATE * 0.5), 3], rel=TOLERANCE)


def test_l2_of_sgd_is_the_gradient_of_half_the_squares() -> None:
    linear = module()
    found = step(linear, Optimizer(linear, config(optimizer="sgd", l2=0.5)), gradient=1.0)
    expected = [2 - RATE * (1 + 0.5 * 2), -4 - RATE * (1 - 0.5 * 4), 3 - RATE]
    assert found == pytest.approx(expected, rel=TOLERANCE)


def test_l1_pulls_every_weight_towards_0_alike_and_leaves_biases() -> None:
    linear = module()
    found = step(linear, Optimizer(linear, config(optimizer="sgd", l1=0.5)))
    assert found == pytest.approx([2 - RATE * 0.5, -4 + RATE * 0.5, 3], rel=TOLERANCE)


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_goes_on_when_the_gradient_is_gone(name: str) -> None:
    moved = []
    for momentum in (0.0, 0.9):
        linear = module()
        optimizer = Optimizer(linear, config(optimizer=name, momentum=momentum))
        before = step(linear, optimizer, gradient=1.0)
        moved.append(before[0] - step(linear, optimizer)[0])
    assert moved[0] == 0
    assert moved[1] > 0.05


def test_the_gradient_is_clipped_to_its_norm() -> None:
    linear = module()
    clipped = TrainingConfig(optimizer="sgd", learning_rate=1.0, clip_norm=0.3)
    found = step(linear, Optimizer(linear, clipped), gradient=100.0)
    assert math.dist(found, [2, -4, 3]) == pytest.approx(0.3, rel=1e-4)


def rates(schedule: str, losses: list[float]) -> list[float]:
    linear = module()
    optimizer = Optimizer(linear, config(schedule=schedule, epochs=len(losses), patience=6))
    found = [optimizer.rate]
    for loss in losses:
        step(linear, optimizer)
        optimizer.end_epoch(loss)
        found.append(optimizer.rate)
    return found


def test_a_constant_rate_stays() -> None:
    assert rates("constant", [1.0] * 9) == [RATE] * 10


def test_a_cosine_falls_from_the_rate_to_0() -> None:
    expected = [RATE / 2 * (1 + math.cos(math.pi * k / 8)) for k in range(9)]
    assert rates("cosine", [1.0] * 8) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("loss", [1.0, 0.0, -1.0])
def test_on_a_plateau_the_rate_halves_within_the_patience(loss: float) -> None:
    assert rates("plateau", [loss] * 4) == [RATE, RATE, RATE, RATE, RATE / 2]


def test_while_the_loss_falls_the_rate_stays() -> None:
    assert rates("plateau", [2.0, 1.0, 0.0, -1.0, -2.0]) == [RATE] * 6


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_an_optimiser_that_remembers_what_another_did_takes_the_same_step(name: str) -> None:
    momentum = 0.9 if name in ("rmsprop", "sgd") else 0.0
    wanted = config(optimizer=name, momentum=momentum, l2=0.01)
    first = module()
    optimizer = Optimizer(first, wanted)
    step(first, optimizer, gradient=1.0)
    second = module()
    second.load_state_dict(first.state_dict())
    again = Optimizer(second, wanted)
    again.remember(optimizer.memory())
    assert step(second, again, gradient=-0.3) == step(first, optimizer, gradient=-0.3)
