"""Parts of pictures: signals, scores, shades. No detector, no page."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from edgernn.card import Card
from edgernn.envelope import COLUMNS, envelope
from edgernn.recording import Track
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


def plot_signals(axes: Axes, card: Card, track: Track) -> None:
    """All channels of a stream in one plot, each scaled to the range it was trained on."""
    for c, channel in enumerate(card.channels):
        span = max(channel.high - channel.low, 1e-9)
        x = (track.x[:, c] - channel.low) / span
        axes.plot(dates_of(track.time_s), x, lw=0.6, alpha=0.9, label=channel.name)
    axes.set_ylim(-0.3, 1.3)
    axes.set_ylabel("channels,\nscaled", rotation=0, ha="right", va="center")


def plot_score(
    axes: Axes, time_s: NDArray[np.float64], score: NDArray[np.float32], enter: float
) -> None:
    """Scores (T,) and the threshold; scores far above it are drawn at its triple."""
    top = 3 * enter
    plot_line(axes, time_s, np.minimum(score, top), color=BLUE, lw=0.7)
    axes.axhline(enter, color=RED, lw=1, ls="--", label=f"threshold {enter:.1f}")
    axes.set_ylabel(f"score\n−log₁₀ p\n(cut at {top:.0f})", rotation=0, ha="right", va="center")
    axes.set_ylim(0, top * 1.05)


def shade(
    axes: Axes,
    time_s: NDArray[np.float64],
    where: NDArray[np.bool_],
    *,
    colour: str,
    label: str,
    alpha: float = 1.0,
) -> None:
    """Shade every run of True in `where` (T,)."""
    dates = dates_of(time_s)
    for i, (start, end) in enumerate(zip(*runs(where), strict=True)):
        axes.axvspan(
            dates[int(start)],
            dates[min(int(end), len(dates) - 1)],
            color=colour,
            alpha=alpha,
            lw=0,
            zorder=0,
            label=label if i == 0 else None,
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
