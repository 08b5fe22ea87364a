"""What an evaluation found, drawn as SVG: streams, alarms, curves."""

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from edgernn.card import Card
from edgernn.envelope import COLUMNS, pooled
from edgernn.evaluation.curves import Ranking
from edgernn.evaluation.evaluate import ScoredTrack
from edgernn.evaluation.metrics import Metrics
from edgernn.report import (
    BLUE,
    FAULT_COLOUR,
    GREY,
    ORANGE,
    RED,
    STYLE,
    dates_of,
    plot_line,
    plot_score,
    plot_threshold,
    shade,
)

SVG: Any = STYLE | {"svg.fonttype": "none"}  # text stays text
EXPECTED = "#f6ad55"
MOST_CHANNELS = 12
"""Of a heat map, by their part of the score; all others share a row."""
MOST_NAMES = 12
"""Labelled faults whose names are written into a picture."""
HEAT_COLUMNS = 300


def draw_stream(card: Card, scored: ScoredTrack, *, columns: int = COLUMNS) -> str:
    """One stream as SVG: every channel with what was expected, score, alarms and labels; long
    lines as envelopes of so many `columns`."""
    track, channels = scored.track, card.channels
    height = 0.95 if len(channels) <= MOST_CHANNELS else 0.55  # inches
    with mpl.rc_context(SVG | {"svg.hashsalt": f"stream {track.stream}"}):
        figure = Figure(figsize=(10.5, height * len(channels) + 2.1), layout="constrained")
        rows = figure.subplots(
            len(channels) + 1, 1, sharex=True, height_ratios=[height] * len(channels) + [1.7]
        )
        for c, (axes, channel) in enumerate(zip(rows[:-1], channels, strict=True)):
            plot_line(
                axes, track.time_s, scored.expected[:, c], columns=columns, color=EXPECTED, lw=1.6
            )
            plot_line(axes, track.time_s, track.x[:, c], columns=columns, color=BLUE, lw=0.6)
            unit = f"\n{channel.unit}" if channel.unit else ""
            axes.set_ylabel(f"{channel.name}{unit}", rotation=0, ha="right", va="center")
        plot_score(rows[-1], track.time_s, scored.score, scored.threshold)
        for axes in rows:
            _shade_faults(axes, scored, columns)
        shade(
            rows[-1],
            track.time_s,
            scored.is_on,
            colour=RED,
            label="alarm on",
            alpha=0.25,
            columns=columns,
        )
        _name_faults(rows[0], scored)
        rows[-1].set_xlabel("time, UTC")
        rows[-1].margins(x=0)
        lines = [Line2D([], [], color=BLUE), Line2D([], [], color=EXPECTED, lw=3)]
        others, names = rows[-1].get_legend_handles_labels()
        figure.legend(
            [*lines, *others],
            ["measured", "expected", *names],
            loc="outside upper left",
            ncols=5,
            frameon=False,
        )
        return to_svg(figure)


def draw_alarm(card: Card, scored: ScoredTrack, rows: slice) -> str:
    """Some rows of a stream as SVG: the score, and how much of it each channel brings."""
    time_s, score = scored.track.time_s[rows], scored.score[rows]
    threshold = scored.threshold[rows]
    names, parts = _parts(card, scored.contribution[rows] * score[:, None])
    with mpl.rc_context(SVG | {"svg.hashsalt": f"{scored.track.stream} {rows}"}):
        figure = Figure(figsize=(10.5, 1.9 + 0.24 * len(names)), layout="constrained")
        above, below = figure.subplots(
            2, 1, sharex=True, height_ratios=[1.3, 0.24 * len(names) + 0.1]
        )
        plot_line(above, time_s, score, color=BLUE, lw=0.9)
        plot_threshold(above, time_s, threshold)
        shade(above, time_s, scored.is_on[rows], colour=RED, label="alarm on", alpha=0.2)
        above.set_ylim(bottom=0)
        above.set_ylabel("score", rotation=0, ha="right", va="center")
        above.legend(loc="upper left", frameon=False, ncols=2)
        edges, heat = pooled(parts, columns=HEAT_COLUMNS)
        period_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 1.0
        ends_s = np.append(time_s, time_s[-1] + period_s)[edges]
        mesh = below.pcolormesh(
            dates_of(ends_s),
            np.arange(len(names) + 1),
            heat.T,
            cmap="OrRd",
            vmin=0.0,
            vmax=max(float(threshold.max()), float(np.nanmax(heat, initial=0.0))),
            rasterized=True,
        )
        below.set_yticks(np.arange(len(names)) + 0.5, names)
        below.invert_yaxis()
        below.grid(False)
        below.set_xlabel("time, UTC")
        figure.colorbar(mesh, ax=below, label="part of\nthe score", aspect=8, pad=0.01)
        return to_svg(figure)


def draw_curves(ranking: Ranking, metrics: Metrics) -> str:
    """Precision over recall, and hits over false alarms, at every threshold, as SVG."""
    share = float(ranking.precision[0])  # at recall 1 everything is an alarm
    with mpl.rc_context(SVG | {"svg.hashsalt": "curves"}):
        figure = Figure(figsize=(10.5, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        x, y = _thinned(ranking.recall[::-1], ranking.precision[::-1])
        left.plot(x, y, color=BLUE, label=f"scores: area {ranking.auc_pr:.3f}")
        left.axhline(share, color=GREY, ls="--", label=f"no knowledge: {share:.3f}")
        left.plot(
            ranking.recall[ranking.best],
            ranking.precision[ranking.best],
            "D",
            color=GREY,
            label="best possible F1, looks at the labels",
        )
        left.set(xlabel="recall", ylabel="precision", title="precision and recall")
        x, y = _thinned(ranking.false_alarm_rate, ranking.hit_rate)
        right.plot(x, y, color=BLUE, label=f"scores: area {ranking.auc_roc:.3f}")
        right.plot([0, 1], [0, 1], color=GREY, ls="--", label="no knowledge: 0.5")
        right.set(xlabel="false-alarm rate", ylabel="recall", title="ROC")
        if metrics.precision is not None:
            left.plot(
                metrics.recall, metrics.precision, "o", color=RED, label="alarms at the budget"
            )
        right.plot(
            metrics.false_alarm_rate, metrics.recall, "o", color=RED, label="alarms at the budget"
        )
        for axes, where in ((left, "lower left"), (right, "lower right")):
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            axes.legend(loc=where, framealpha=0.9, edgecolor="none")
        return to_svg(figure)


def _shade_faults(axes: Axes, scored: ScoredTrack, columns: int) -> None:
    if scored.track.label is not None:
        where = scored.track.label != ""
        shade(
            axes,
            scored.track.time_s,
            where,
            colour=FAULT_COLOUR,
            label="labelled fault",
            columns=columns,
        )


def _name_faults(axes: Axes, scored: ScoredTrack) -> None:
    """The labels above the first plot, unless there are too many to read."""
    label, time_s = scored.track.label, scored.track.time_s
    if label is None:
        return
    starts = np.flatnonzero((label != "") & np.append(True, label[1:] != label[:-1]))
    for start in starts[:MOST_NAMES].tolist():
        axes.annotate(
            str(label[start]),
            (dates_of(time_s[[start]])[0], 1.02),
            xycoords=("data", "axes fraction"),
            color=ORANGE,
        )


def _parts(card: Card, parts: NDArray[np.floating]) -> tuple[list[str], NDArray[np.floating]]:
    """Parts of the score (T, C) → the channels that bring most, largest first, and the rest."""
    names = [channel.name for channel in card.channels]
    order = np.argsort(-np.nansum(parts, axis=0), kind="stable")
    if len(names) > MOST_CHANNELS:
        order, rest = order[: MOST_CHANNELS - 1], order[MOST_CHANNELS - 1 :]
        together = np.concatenate([parts[:, order], parts[:, rest].sum(1, keepdims=True)], axis=1)
        return [*(names[c] for c in order), f"{len(rest)} others"], together
    return [names[c] for c in order], parts[:, order]


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], *, step: float = 1 / 500
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A curve's points (K,), without those that lie less than `step` from the one before."""
    place = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    keep = np.diff(np.floor(place / step), prepend=-1) > 0
    keep[-1] = True
    return x[keep], y[keep]


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element for a page: no ids that two pictures could share, points to a
    tenth of a point."""
    file = io.StringIO()
    figure.savefig(file, format="svg", dpi=110, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    return re.sub(r' d="[^"]*"', _shorter, svg)


def _shorter(path: re.Match[str]) -> str:
    """What follows a point without a letter is a line to the next one."""
    return re.sub(r"\s+L ", " ", re.sub(r"(\.\d)\d+", r"\1", path[0]))
