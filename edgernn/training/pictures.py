"""Pictures of a training: its losses, and how far back the gradient reached."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edgernn.report import BLUE, GREY, ORANGE, STYLE
from edgernn.run import EpochLoss
from edgernn.training.reach import Reach


def plot_losses(path: Path, losses: Sequence[EpochLoss]) -> None:
    """Loss curves of a training as a picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        epochs = [row.epoch for row in losses]
        mark = "." if len(losses) < 10 else ""  # one epoch is a point, not a line
        training, validation = zip(*((row.training, row.validation) for row in losses), strict=True)
        axes.plot(epochs, training, color=GREY, marker=mark, label="training")
        axes.plot(epochs, validation, color=BLUE, marker=mark, label="validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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
