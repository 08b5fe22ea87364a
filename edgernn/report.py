"""Pictures: what was learnt, what was scored, where the alarms were."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgernn.alarm import Limits
from edgernn.card import Card
from edgernn.evaluate import ScoredTrack
from edgernn.reach import Reach
from edgernn.recording import Track
from edgernn.run import EpochLoss

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


def plot_losses(path: Path, losses: Sequence[EpochLoss]) -> None:
    """Loss curves of a training as a picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        epochs = [row.epoch for row in losses]
        axes.plot(epochs, [row.training for row in losses], color=GREY, label="training")
        axes.plot(epochs, [row.validation for row in losses], color=BLUE, label="validation")
        best = min(losses, key=lambda row: row.validation)
        axes.axvline(best.epoch, color=ORANGE, lw=1, ls="--", label=f"kept: epoch {best.epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel("negative log-likelihood of a value")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=130)


def plot_reach(path: Path, reaches: Mapping[str, Reach]) -> None:
    """Norm of the gradient against the time lag, before and after training."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for colour, (when, reach) in zip((GREY, BLUE), reaches.items(), strict=False):
            lags = np.arange(1, len(reach.norms) + 1)
            axes.semilogy(lags, reach.norms, color=colour, label=f"{when} training")
        axes.axvline(reach.chunk, color=ORANGE, lw=1, ls="--", label="training.chunk")
        axes.set_xlabel("samples back")
        axes.set_ylabel("norm of the loss's gradient with respect to the sample")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=130)


def plot_track(path: Path, card: Card, scored: ScoredTrack, limits: Limits) -> None:
    """One stream: every channel against its expectation, the score, the threshold, the alarms."""
    track = scored.track
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 1.3 * len(card.channels) + 2.4), layout="constrained")
        rows = figure.subplots(
            len(card.channels) + 1, 1, sharex=True, height_ratios=[1] * len(card.channels) + [1.6]
        )
        for c, channel in enumerate(card.channels):
            plot_channel(rows[c], track.time_s, track.x[:, c], f"{channel.name}\n{channel.unit}")
            rows[c].plot(
                _dates(track.time_s), scored.expected[:, c], color=ORANGE, lw=0.6, alpha=0.8
            )
        plot_score(rows[-1], track.time_s, scored.score, limits.enter)
        for axes in rows:
            shade(
                axes, track.time_s, _is_faulty(scored), colour=FAULT_COLOUR, label="labelled fault"
            )
        shade(rows[-1], track.time_s, scored.is_on, colour=RED, label="alarm on", alpha=0.25)
        rows[0].set_title(f"{track.stream}: measured (blue), expected (orange)", loc="left")
        rows[-1].legend(loc="upper left", frameon=False, ncols=4)
        figure.savefig(path, dpi=110)


def plot_channel(
    axes: Axes, time_s: NDArray[np.float64], x: NDArray[np.float32], title: str
) -> None:
    """One channel (T,) over time."""
    axes.plot(_dates(time_s), x, color=BLUE, lw=0.6)
    axes.set_ylabel(title, rotation=0, ha="right", va="center")


def plot_signals(axes: Axes, card: Card, track: Track) -> None:
    """All channels of a stream in one plot, each scaled to the range it was trained on."""
    for c, channel in enumerate(card.channels):
        span = max(channel.high - channel.low, 1e-9)
        x = (track.x[:, c] - channel.low) / span
        axes.plot(_dates(track.time_s), x, lw=0.6, alpha=0.9, label=channel.name)
    axes.set_ylim(-0.3, 1.3)
    axes.set_ylabel("channels,\nscaled", rotation=0, ha="right", va="center")


def plot_score(
    axes: Axes, time_s: NDArray[np.float64], score: NDArray[np.float32], enter: float
) -> None:
    """Scores (T,) and the threshold; scores far above it are drawn at its triple."""
    top = 3 * enter
    axes.plot(_dates(time_s), np.minimum(score, top), color=BLUE, lw=0.7)
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
    padded = np.concatenate([[False], where, [False]])
    starts, ends = (
        np.flatnonzero(padded[1:] & ~padded[:-1]),
        np.flatnonzero(padded[:-1] & ~padded[1:]),
    )
    dates = _dates(time_s)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axes.axvspan(
            dates[int(start)],
            dates[min(int(end), len(dates) - 1)],
            color=colour,
            alpha=alpha,
            lw=0,
            zorder=0,
            label=label if i == 0 else None,
        )


def _is_faulty(scored: ScoredTrack) -> NDArray[np.bool_]:
    label = scored.track.label
    return np.zeros(len(scored.score), bool) if label is None else label != ""


def _dates(time_s: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """Seconds since 1970 → what matplotlib draws as dates."""
    return (np.asarray(time_s) * 1e3).astype("datetime64[ms]")
