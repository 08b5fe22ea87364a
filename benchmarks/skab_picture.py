"""One picture of all that SKAB says: whose alarm was on when, and what it comes to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.skab_figures import HEALTHY_ROWS, Figures, Spans
from edgernn.recording import Track
from edgernn.report import BLUE, FAULT_COLOUR, GREY, ORANGE, RED

DRAWN = {
    "edgernn week": BLUE,
    "edgernn hour": "#63b3ed",
    "z-score, plain": ORANGE,
    "Mahalanobis, plain": "#805ad5",
}
"""Methods in the left half, with their colours."""


def draw(
    path: Path,
    tracks: Mapping[str, Track],
    alarms: Mapping[str, Mapping[str, Spans]],
    figures: Sequence[Figures],
) -> None:
    """Left: faults and alarms over time, file by file. Right: F1 and false-alarm rate."""
    figure = Figure(figsize=(12, 6.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
    _draw_alarms(left, tracks, alarms)
    _draw_figures(right, figures)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=7, frameon=False)
    figure.savefig(path, dpi=90)


def _draw_alarms(
    axes: Axes, tracks: Mapping[str, Track], alarms: Mapping[str, Mapping[str, Spans]]
) -> None:
    for row, (stream, track) in enumerate(tracks.items()):
        assert track.label is not None
        begin_s, end_s = float(track.time_s[0]), float(track.time_s[-1])
        faulty = track.time_s[track.label != ""] - begin_s
        fault = axes.barh(row, faulty[-1] - faulty[0], 0.92, faulty[0], color=FAULT_COLOUR)
        fault.set_label("labelled fault" if row == 0 else "_")
        for k, (method, colour) in enumerate(DRAWN.items()):
            for on, off in alarms[method].get(stream, ()):
                length = (end_s if off is None else off) - on
                axes.barh(row - 0.3 + 0.2 * k, length, 0.16, on - begin_s, color=colour)
    for method, colour in DRAWN.items():
        axes.barh(0, 0, 0, color=colour, label=method)
    scored_from_s = max(t.time_s[HEALTHY_ROWS] - t.time_s[0] for t in tracks.values())
    axes.axvline(float(scored_from_s), color="black", lw=0.8, ls="--")
    axes.set(xlim=(0, 1225), xlabel="seconds; what is left of the line was learnt from")
    axes.set(yticks=range(len(tracks)), yticklabels=list(tracks), ylabel="file")
    axes.set_ylim(len(tracks) - 0.4, -0.6)
    axes.set_title("when the alarm was on", loc="left")


def _draw_figures(axes: Axes, figures: Sequence[Figures]) -> None:
    rows = range(len(figures))
    axes.barh([r - 0.2 for r in rows], [f.f1 for f in figures], 0.36, color=GREY, label="F1")
    rates = [f.false_alarm_rate for f in figures]
    axes.barh([r + 0.2 for r in rows], rates, 0.36, color=RED, label="false-alarm rate")
    for row, one in zip(rows, figures, strict=True):
        axes.text(one.f1 + 0.01, row - 0.2, f"{one.f1:.2f}", va="center", fontsize=8)
        rate = one.false_alarm_rate
        axes.text(rate + 0.01, row + 0.2, f"{rate:.3f}", va="center", fontsize=8, color=RED)
    axes.set(yticks=list(rows), yticklabels=[f.method for f in figures], xlim=(0, 1.15))
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.set_title("what it comes to, rows ≥ 400", loc="left")
