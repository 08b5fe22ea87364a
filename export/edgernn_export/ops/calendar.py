"""Calendar → plain nodes, of which few are left for one sample: its steps are a constant."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgernn.nets.calendar import Calendar, read
from edgernn.times import WEEK_S
from edgernn_export.ops.branch import samples_of
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import as_number, number


@torch.library.custom_op("edgernn::calendar", mutates_args=())
def calendar(
    x: Tensor, clock: Tensor, step_s: float, rates: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """x (T, N, …), clock (N, 1) → sines and cosines (T, N, 2·rates), the next clock (N, 1)."""
    return read(x, clock, step_s, rates)


@calendar.register_fake
def _(x: Tensor, clock: Tensor, step_s: float, rates: Sequence[float]) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], x.shape[1], 2 * len(rates)), torch.empty_like(clock)


def _onnx_calendar(x, clock, step_s, rates):  # type: ignore[no-untyped-def]  # traced by onnxscript
    samples = as_number(op.Squeeze(samples_of(x), [0]))
    steps = op.Mul(op.Range(number(0.0), samples, number(1.0)), number(step_s))  # (T,)
    angles = op.Mul(op.Add(clock, op.Unsqueeze(steps, [1, 2])), number(rates))  # (T, N, cycles)
    columns = op.Concat(op.Sin(angles), op.Cos(angles), axis=-1)
    after = op.Add(clock, op.Mul(samples, number(step_s)))
    return columns, op.Mod(after, number(WEEK_S), fmod=1)


class ExportedCalendar(nn.Module):
    """A Calendar as one opaque op."""

    def __init__(self, layer: Calendar) -> None:
        super().__init__()
        self.step_s, self.rates = layer.step_s, layer.rates

    def forward(self, x: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
        columns, after = calendar(x, clock, self.step_s, self.rates)
        return columns, after


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.calendar.default: _onnx_calendar}
