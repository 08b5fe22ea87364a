"""The table of candidates, for a person and as a file, and two pictures of it."""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnx
from matplotlib.figure import Figure

from edgernn.report import BLUE, GREY, ORANGE, STYLE
from edgernn_export.choice import Measured, missed
from edgernn_export.quantize import computes_in_integers, stored_as

TITLES = (
    "candidate",
    "weights",
    "computes in",
    "bytes",
    "µs N=1",
    "µs N=64",
    "µs N=1024",
    "µs/sample T=64",
    "difference",
    "gained",
    "lost",
    "AUC-PR loss",
    "misses",
)
FIELDS = (
    "candidate",
    "weights",
    "computes_in",
    "bytes",
    "us_step_n1",
    "us_step_n64",
    "us_step_n1024",
    "us_sample_t64",
    "difference",
    "alarms_gained",
    "alarms_lost",
    "auc_pr_loss",
    "misses",
    "chosen",
)
CSV, MARKDOWN = "quantization.csv", "quantization.md"
QUALITY, LATENCY = "quantization-quality.png", "quantization-latency.png"
DIFFERENCE = {
    "anomaly": "largest difference of a score",
    "classify": "largest difference of a probability",
    "forecast": "largest difference of a forecast, standard deviations",
}
"""By task."""


def write_findings(folder: Path, rows: Sequence[Measured], chosen: str | None, task: str) -> None:
    """The table as CSV and Markdown and both pictures, into the run folder."""
    with (folder / CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for row in rows:
            writer.writerow([*_plain(row), missed(row), "yes" if row.name == chosen else ""])
    (folder / MARKDOWN).write_text(markdown(rows, chosen), encoding="utf-8")
    plot_quality(folder / QUALITY, rows, chosen, label=DIFFERENCE[task])
    plot_latency(folder / LATENCY, rows, chosen, label=DIFFERENCE[task])


def lines(rows: Sequence[Measured], chosen: str | None) -> list[str]:
    """The table for a terminal."""
    cells = [TITLES, *(_cells(row, chosen, mark="*") for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(TITLES))]
    texts = [i in (0, 1, 2, len(TITLES) - 1) for i in range(len(TITLES))]
    return [
        "  ".join(
            cell.ljust(width) if is_text else cell.rjust(width)
            for cell, width, is_text in zip(line, widths, texts, strict=True)
        ).rstrip()
        for line in cells
    ]


def markdown(rows: Sequence[Measured], chosen: str | None) -> str:
    """The table for a page; the chosen row is bold."""
    marks = ["---"] * 3 + ["---:"] * (len(TITLES) - 4) + ["---"]
    table = [TITLES, marks, *(_cells(row, chosen, mark="**") for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"


def plot_quality(path: Path, rows: Sequence[Measured], chosen: str | None, *, label: str) -> None:
    """Scatter: size against what is lost; to the lower left is better."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for row in rows:
            look = _look(row, chosen)
            size_kb = row.size_bytes / 1e3
            difference = max(row.quality.difference, 1e-6)
            is_again = "+" in row.name  # of the same size as the one that it was made from
            size = 11 if is_again else 8
            axes.plot(
                size_kb,
                difference,
                "o",
                ms=size,
                color=look,
                clip_on=False,
                zorder=1 if is_again else 2,
            )
            axes.annotate(
                row.name,
                (size_kb, difference),
                textcoords="offset points",
                xytext=(8, -12 if is_again else 4),
            )
        axes.set_yscale("log")
        axes.set_xlim(0, 1.15 * max(row.size_bytes for row in rows) / 1e3)
        axes.margins(y=0.12)
        axes.set_xlabel("artefact, kB")
        axes.set_ylabel(label)
        _legend(figure, rows, chosen)
        figure.savefig(path, dpi=130)


def plot_latency(path: Path, rows: Sequence[Measured], chosen: str | None, *, label: str) -> None:
    """Bars: the time of a step beside what is lost."""
    names = [row.name for row in rows]
    colours = [_look(row, chosen) for row in rows]
    at = np.arange(len(rows))[::-1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        bars = left.barh(at, [row.latency.us_1 for row in rows], 0.6, color=colours)
        left.bar_label(bars, fmt="%.0f", padding=3)
        left.set_xlabel("µs a step of one stream")
        left.set_yticks(at, names)
        bars = right.barh(at, [row.quality.difference for row in rows], 0.6, color=colours)
        right.bar_label(bars, fmt="%.3g", padding=3)
        right.set_xlabel(label)
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.15)
        _legend(figure, rows, chosen)
        figure.savefig(path, dpi=130)


def _look(row: Measured, chosen: str | None) -> str:
    if row.name == chosen:
        return ORANGE
    return GREY if row.misses else BLUE


def _legend(figure: Figure, rows: Sequence[Measured], chosen: str | None) -> None:
    words = {ORANGE: "chosen", BLUE: "inside the budget", GREY: "outside"}
    there = {_look(row, chosen) for row in rows}
    handles = [
        mpl.lines.Line2D([], [], marker="o", ls="", color=colour, label=word)
        for colour, word in words.items()
        if colour in there
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False)


def _plain(row: Measured) -> list[str | int | float]:
    model = onnx.load_from_string(row.candidate.artefact)
    counts = stored_as(model)
    total = max(sum(counts.values()), 1)
    stored = ", ".join(
        f"{kind} {count / total:.0%}" if len(counts) > 1 else kind
        for kind, count in sorted(counts.items(), key=lambda item: -item[1])
    )
    integers = "integers" if computes_in_integers(model) else "float32"
    quality, latency = row.quality, row.latency
    return [
        row.name,
        stored,
        integers,
        row.size_bytes,
        round(latency.us_1, 1),
        round(latency.us_64, 1),
        round(latency.us_1024, 1),
        round(latency.us_sample, 2),
        float(f"{quality.difference:.3g}"),
        "" if quality.gained is None else quality.gained,
        "" if quality.lost is None else quality.lost,
        "" if quality.auc_pr_loss is None else round(quality.auc_pr_loss, 5) + 0.0,
    ]


def _cells(row: Measured, chosen: str | None, *, mark: str) -> list[str]:
    name, *figures = _plain(row)
    shown = [f"{one:,}" if isinstance(one, int) else str(one) for one in figures]
    name = f"{mark}{name}{mark}" if row.name == chosen else str(name)
    return [name, *shown, missed(row)]
