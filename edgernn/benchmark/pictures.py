"""A file of a benchmark as one picture: sensors, score, labels, and when each method alarmed."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgernn.benchmark.figures import Judged
from edgernn.benchmark.series import Bools
from edgernn.envelope import envelope, pooled
from edgernn.evaluation.figures import to_svg
from edgernn.report import BLUE, FAULT_COLOUR, GREY, ORANGE, RED, STYLE
from edgernn.spans import runs

LOOK: Any = STYLE | {"svg.fonttype": "none"}
MOST_LINES = 12
"""Channels that are drawn as lines; more become a heat map."""
POINTS = 2400
"""Columns of the lines of one picture, shared by its channels."""
HEAT_COLUMNS = 300
THINNEST = 1000
"""Of a picture's width: a lone row still shows."""
LABELLED = "labelled"
GROUND: Any = {"color": FAULT_COLOUR, "lw": 0, "zorder": 0}

Floats = NDArray[np.floating]


def draw_file(one: Judged, others: Mapping[str, Bools]) -> str:
    """SVG; the score is of `one`, `others` are the alarms (T,) of all methods, by name."""
    x, rows = one.series.x, np.arange(len(one.score), dtype=np.float64)
    channels = x.shape[1]
    as_lines = channels <= MOST_LINES
    heights = [0.9 if channels == 1 else 0.45] * channels if as_lines else [0.075 * channels]
    heights += [1.0, 0.16 * (len(others) + 1) + 0.1]
    with mpl.rc_context(LOOK | {"svg.hashsalt": one.series.name}):
        figure = Figure(figsize=(10.5, sum(heights) + 0.75), layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        if as_lines:
            for channel, part in enumerate(axes[:-2]):
                _line(part, rows, x[:, channel], columns=max(POINTS // channels, 200))
                part.set_ylabel(one.series.channels[channel], rotation=0, ha="right", va="center")
                part.tick_params(axis="y", labelsize=7)
        else:
            _heat(axes[0], x)
        _line(axes[-2], rows, one.score, columns=800)
        axes[-2].axhline(0.5, color=RED, lw=1, ls="--")
        axes[-2].set(ylim=(0, 1.02))
        axes[-2].set_ylabel("anomaly_score", rotation=0, ha="right", va="center")
        _alarms(axes[-1], {LABELLED: one.truth.is_anomalous, **others})
        for part in axes if as_lines else axes[1:]:
            for start, end in one.truth.windows:
                part.axvspan(start, max(end, start + len(x) / THINNEST), **GROUND)
            part.axvline(_judged_from(one), color=GREY, lw=1, ls=":")
        axes[-1].set_xlabel("row")
        axes[-1].set_xlim(0, len(rows))
        return to_svg(figure)


def _judged_from(one: Judged) -> int:
    learnt = 0 if len(one.series.before) else one.series.first_rows
    return max(one.truth.scored_from, one.said.silent_rows, learnt)


def _line(axes: Axes, rows: NDArray[np.float64], y: Floats, *, columns: int) -> None:
    axes.plot(*envelope(rows, y, columns=columns), color=BLUE, lw=0.7)


def _heat(axes: Axes, x: Floats) -> None:
    """Channels below each other, each dark where it is high in its own range in this file."""
    edges, means = pooled(x, columns=HEAT_COLUMNS)
    low, high = np.nanmin(means, axis=0), np.nanmax(means, axis=0)
    shade = (means - low) / np.where(high > low, high - low, 1.0)
    axes.pcolormesh(
        edges, np.arange(x.shape[1] + 1), shade.T, cmap="Blues", vmin=0, vmax=1.2, rasterized=True
    )
    axes.invert_yaxis()
    axes.grid(False)
    axes.set_ylabel(f"{x.shape[1]} channels", rotation=0, ha="right", va="center")


def _alarms(axes: Axes, alarms: Mapping[str, Bools]) -> None:
    for place, (name, is_on) in enumerate(alarms.items()):
        starts, ends = runs(is_on)
        spans = np.stack([starts, np.maximum(ends - starts, len(is_on) / THINNEST)], axis=1)
        colour = ORANGE if name == LABELLED else RED
        axes.broken_barh(spans.tolist(), (place + 0.15, 0.7), color=colour, lw=0)
    axes.set_yticks(np.arange(len(alarms)) + 0.5, list(alarms), fontsize=7)
    axes.set_ylim(len(alarms), 0)
    axes.grid(False)
