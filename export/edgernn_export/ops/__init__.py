"""Stateful layers as the exporter sees them: one torch custom op each → one fused ONNX node each.

Why: `torch.onnx.export` freezes the time axis of `nn.GRU` to the example's length and unrolls or
splits the rest (pytorch#191855). A custom op is opaque to it, so T and N stay free. The weights are
put into ONNX's order beforehand, in torch, so that no Split or Concat of them is left in the graph.

What is not here (convolutions, windows, delays) is made of plain tensor operations that export as
they are, and of `nn.Linear`.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from edgernn.nets.adapt import Learner
from edgernn.nets.attention import Attention
from edgernn.nets.calendar import Calendar
from edgernn.nets.detector import TailScores
from edgernn.nets.gates import FastGrnnLayer, MinGruLayer
from edgernn.nets.general import General
from edgernn.nets.layers import Ewma, GruLayer, LstmLayer, RnnLayer
from edgernn.nets.levels import Levels
from edgernn.nets.windows import Lag
from edgernn_export.ops import (
    adapt,
    attention,
    calendar,
    elman,
    ewma,
    fastgrnn,
    general,
    gru,
    lag,
    levels,
    linear,
    lstm,
    mingru,
    tails,
)

__all__ = ["EXPORTED", "TRANSLATIONS"]

EXPORTED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    Attention: attention.ExportedAttention,
    Calendar: calendar.ExportedCalendar,
    Ewma: ewma.ExportedEwma,
    FastGrnnLayer: fastgrnn.ExportedFastGrnn,
    General: general.ExportedGeneral,
    GruLayer: gru.ExportedGru,
    Lag: lag.ExportedLag,
    Learner: adapt.ExportedLearner,
    Levels: levels.ExportedLevels,
    LstmLayer: lstm.ExportedLstm,
    MinGruLayer: mingru.ExportedMinGru,
    RnnLayer: elman.ExportedRnn,
    TailScores: tails.ExportedTailScores,
    nn.Linear: linear.ExportedLinear,
}
"""What stands in for each layer while exporting."""

TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    **adapt.TRANSLATION,
    **calendar.TRANSLATION,
    **elman.TRANSLATION,
    **ewma.TRANSLATION,
    **fastgrnn.TRANSLATION,
    **general.TRANSLATION,
    **gru.TRANSLATION,
    **lag.TRANSLATION,
    **levels.TRANSLATION,
    **lstm.TRANSLATION,
    **mingru.TRANSLATION,
}
"""Custom op → the ONNX nodes it becomes."""
