"""Parts of reports: signals, scores, shades, and how a page's template is read. No detector."""

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from numpy.typing import NDArray

from edgernn.envelope import COLUMNS, envelope
from edgernn.spans import runs

BLUE, ORANGE, RED, GREY = "#2b6cb0", "#c05621", "#c53030", "#a0aec0"
FAULT_COLOUR = "#feebc8"
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "date.converter": "concise",
    "font.size": 9,
    "grid.alpha": 0.3,
}


def make_environment(folder: Path) -> Environment:
    """For the templates in a folder: text is escaped, and an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def plot_score(
    axes: Axes,
    time_s: NDArray[np.float64],
    score: NDArray[np.float32],
    threshold: NDArray[np.float64],
) -> None:
    """Scores and thresholds (T,); scores far above these are drawn at their triple."""
    top = 3 * float(threshold.max())
    plot_line(axes, time_s, np.minimum(score, top), color=BLUE, lw=0.7)
    plot_threshold(axes, time_s, threshold)
    axes.set_ylabel(f"score\n−log₁₀ p\n(cut at {top:.0f})", rotation=0, ha="right", va="center")
    axes.set_ylim(0, top * 1.05)


def plot_threshold(axes: Axes, time_s: NDArray[np.float64], threshold: NDArray[np.float64]) -> None:
    """Thresholds (T,), which are one unless they steer themselves."""
    low, high = (f"{value:.1f}" for value in (threshold.min(), threshold.max()))
    label = f"threshold {low}" if low == high else f"threshold {low} to {high}"
    plot_line(axes, time_s, threshold, color=RED, lw=1, ls="--", label=label)


def shade(
    axes: Axes,
    time_s: NDArray[np.float64],
    where: NDArray[np.bool_],
    *,
    colour: str,
    label: str,
    alpha: float = 1.0,
    columns: int = COLUMNS,
) -> None:
    """Shade every run of True in `where` (T,), as one collection; runs that would stand less than
    one of so many `columns` apart are drawn as one."""
    starts, ends = runs(where)
    if not len(starts):
        return
    days: NDArray[np.float64] = date2num(dates_of(time_s))  # type: ignore[no-untyped-call]  # matplotlib's stubs
    first, last = days[starts], days[np.minimum(ends, len(days) - 1)]
    is_apart = first[1:] - last[:-1] > (days[-1] - days[0]) / columns
    first, last = first[np.append(True, is_apart)], last[np.append(is_apart, True)]
    axes.broken_barh(
        np.stack([first, last - first], axis=1).tolist(),
        (0, 1),
        transform=axes.get_xaxis_transform(),
        facecolor=colour,
        alpha=alpha,
        lw=0,
        zorder=0,
        label=label,
    )


def plot_line(
    axes: Axes,
    time_s: NDArray[np.float64],
    y: NDArray[np.floating],
    *,
    columns: int = COLUMNS,
    **look: Any,
) -> None:
    """One line (T,) over time, as an envelope where it is long."""
    short_s, short_y = envelope(time_s, y, columns=columns)
    axes.plot(dates_of(short_s), short_y, **look)


def dates_of(time_s: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """Seconds since 1970 → what matplotlib draws as dates."""
    return (np.asarray(time_s) * 1e3).astype("datetime64[ms]")
