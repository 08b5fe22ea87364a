"""General → plain nodes for one sample, a Scan over them for several. Any number of channels."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from onnxscript import ir
from torch import Tensor, nn

from edgernn.card import ANY
from edgernn.nets.general import (
    ACCEPTED,
    LARGEST_SURPRISE,
    TINY,
    General,
    GeneralConfig,
    follow,
    state_shapes,
)
from edgernn.nets.ranking import BINS
from edgernn_export.ops import days, levels, ranking
from edgernn_export.ops.loop import sample_by_sample
from edgernn_export.ops.order import op
from edgernn_export.ops.parts import number


@torch.library.custom_op("edgernn::general", mutates_args=())
def general(x: Tensor, state: Sequence[Tensor], config: str) -> list[Tensor]:
    """As `General.forward` takes and gives them; `config` as JSON."""
    said = follow(x.numpy(), [one.numpy() for one in state], _config(config))
    return [torch.from_numpy(one).clone() for one in said]


@general.register_fake
def _(x: Tensor, state: Sequence[Tensor], config: str) -> list[Tensor]:
    said = [x.new_empty(x.shape[:2]), torch.empty_like(x), torch.empty_like(x)]
    return [*said, *(torch.empty_like(one) for one in state)]


def _onnx_general(x, state, config):  # type: ignore[no-untyped-def]  # traced by onnxscript
    asked = _config(config)

    def body(states: Sequence[Any], sample: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        return step(states, sample, asked)

    channels = x.shape[2]
    shapes = state_shapes(ANY, asked).values()
    rows = [[size or channels for size in shape] for shape in shapes]
    rows.append([channels])
    score, *more = sample_by_sample(body, [x], state, rows=rows)
    return op.Squeeze(score, [2]), *more


def step(
    states: Sequence[Any], sample: Sequence[Any], config: GeneralConfig
) -> tuple[list[Any], list[Any]]:
    """The update of one sample, as `edgernn.nets.general` writes it; the score as (N, 1)."""
    x = sample[0]  # (N, C)
    moments, clock, period, of_day, table, counts = states
    length = op.ReduceMax(op.Slice(counts, [BINS], [BINS + 1], [2]), [1])  # (N, 1, 1)
    guarded = op.Sub(number(2.0), op.Mul(length, number(1 / ACCEPTED)))
    guarded = op.Clip(guarded, number(0.0), number(1.0))
    spans = list(map(float, config.spans))
    seen, u, known, level, moments = levels.step(
        x, moments, spans, guarded=guarded, memory=config.spread_memory
    )
    of_the_day, of_day, table = days.step(
        seen, clock, of_day, table, spans, memory=config.day_memory, clip=config.day_clip
    )
    surprise, blame = _pooled(op.Concat(u, of_the_day, axis=1), known, x, config)
    y, counts = ranking.step(surprise, op.ReduceMax(known, [1]), counts)
    y = op.Mul(y, y)
    score = op.Sqrt(op.Sqrt(op.ReduceMean(op.Mul(y, y), [1])))
    is_there = op.ReduceMax(op.Squeeze(seen.is_there, [1]), [1])
    score = op.Where(op.Cast(is_there, to=ir.DataType.BOOL), score, number(np.nan))
    clock = days.later(clock, period)
    following = [moments, clock, op.Identity(period), of_day, table, counts]
    return following, [score, blame, level]


def _pooled(u: Any, known: Any, x: Any, config: GeneralConfig) -> tuple[Any, Any]:
    """u (N, V, C), known (N, C) → surprise (N, V), blame (N, C), as `pooled` has it."""
    one = number(1.0)
    excess = op.Relu(op.Sub(op.Min(u, number(LARGEST_SURPRISE)), number(config.dead_zone)))
    excess = op.Mul(excess, excess)
    there = op.Max(op.ReduceSum(known, [1]), one)  # (N, 1)
    square = op.Div(op.ReduceSum(excess, [2], keepdims=0), there)  # (N, V)
    distance = op.Add(op.Sqrt(_joined(square, config.power)), one)
    is_alone = op.Equal(op.Shape(op.Gather(x, 0, axis=0)), op.Constant(value_ints=[1]))
    surprise = op.Where(is_alone, op.Gather(u, 0, axis=2), distance)
    blame = op.Squeeze(op.MatMul(op.Unsqueeze(square, [1]), excess), [1])
    blame = op.Add(blame, number(TINY))
    return surprise, op.Div(blame, op.ReduceSum(blame, [1]))


def _joined(square: Any, power: int) -> Any:
    """square (N, V) → (N, 1), as `joined` has it."""
    most = op.ReduceMax(square, [1])
    if not power:
        return most
    share = op.Div(square, op.Max(most, number(TINY)))
    mean = op.ReduceMean(op.Pow(share, number(power / 2)), [1])
    return op.Mul(most, op.Pow(mean, number(2 / power)))


def _config(text: str) -> GeneralConfig:
    return msgspec.json.decode(text, type=GeneralConfig)


class ExportedGeneral(nn.Module):
    """General as one opaque op."""

    def __init__(self, model: General) -> None:
        super().__init__()
        self.model = model
        self.config = msgspec.json.encode(model.config).decode()

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return tuple(general(x, list(self.model.begun(state)), self.config))


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.general.default: _onnx_general}
