"""Pictures of a study: how it went, which keys mattered, what quality costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from edgernn.report import BLUE, GREY, ORANGE, RED, STYLE

LABELS = {
    "loss": "validation loss\n(negative log-likelihood of a value)",
    "auc_pr": "area under the precision-recall curve",
    "f1": "F1 over rows",
    "bytes": "artefact, bytes",
    "step_us": "one step on the device's engine, µs",
}


def plot_history(
    path: Path, trials: Sequence[FrozenTrial], objective: str, *, direction: str
) -> None:
    """The first objective of every trial in turn, and the best so far."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    value = np.array([trial.values[0] for trial in complete])
    best = (np.maximum if direction == "maximize" else np.minimum).accumulate(value)
    number = [trial.number for trial in complete]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(number, value, "o", color=BLUE, ms=4, label="trial")
        axes.plot(number, best, color=ORANGE, lw=1.5, drawstyle="steps-post", label="best so far")
        for state, colour, label in (
            (TrialState.PRUNED, GREY, "pruned"),
            (TrialState.FAIL, RED, "failed"),
        ):
            others = [trial.number for trial in trials if trial.state == state]
            if others:  # they have no value: marks along the lower edge
                axes.plot(
                    others,
                    np.full(len(others), 0.02),
                    "|",
                    color=colour,
                    ms=8,
                    mew=1.5,
                    transform=axes.get_xaxis_transform(),
                    label=label,
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(value) > 3:  # one bad trial must not squeeze all others flat
            q1, q3 = np.quantile(value, (0.25, 0.75))
            reach = 3 * (q3 - q1) or 1.0
            low, high = max(value.min(), q1 - reach), min(value.max(), q3 + reach)
            margin = 0.08 * ((high - low) or 1.0)
            axes.set_ylim(low - 1.5 * margin, high + margin)
        axes.set_xlabel("trial")
        axes.set_ylabel(LABELS[objective])
        axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
        figure.savefig(path, dpi=130)


def plot_importance(path: Path, shares: Mapping[str, Mapping[str, float]]) -> None:
    """Objective → key → share, as bars."""
    first = next(iter(shares.values()))
    keys = sorted(first, key=lambda key: first[key])
    height = 0.8 / len(shares)
    with mpl.rc_context(STYLE):
        size = (7, 0.9 + 0.45 * len(keys) * (1 + 0.4 * (len(shares) - 1)))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        for i, (name, by_key) in enumerate(shares.items()):
            at = np.arange(len(keys)) + 0.4 - height * (i + 0.5)
            colour = (BLUE, ORANGE)[i]
            bars = axes.barh(at, [by_key[key] for key in keys], height, color=colour, label=name)
            axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_yticks(np.arange(len(keys)), keys)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.1 * max(max(by_key.values()) for by_key in shares.values()) or 1.0)
        axes.set_xlabel("share of what made trials good (PED-ANOVA)")
        if len(shares) > 1:
            axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        figure.savefig(path, dpi=130)


def plot_front(
    path: Path,
    complete: Sequence[FrozenTrial],
    front: Sequence[FrozenTrial],
    best: FrozenTrial,
    objectives: Sequence[str],
) -> None:
    """Two objectives against each other; the front, and the balanced point."""
    quality, cost = objectives
    points = np.array([trial.values for trial in complete])
    edge = np.array([trial.values for trial in front])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(points[:, 1], points[:, 0], "o", color=GREY, ms=4, label="trial")
        axes.plot(edge[:, 1], edge[:, 0], "o-", color=BLUE, ms=5, lw=1, label="front")
        axes.plot(
            best.values[1], best.values[0], "o", ms=11, mfc="none", mec=ORANGE, mew=1.5,
            label="balanced",
        )  # fmt: skip
        for trial in front:
            axes.annotate(
                f"{trial.number}", (trial.values[1], trial.values[0]),
                textcoords="offset points", xytext=(5, 5), fontsize=8,
            )  # fmt: skip
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel(LABELS[cost])
        axes.set_ylabel(LABELS[quality])
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        figure.savefig(path, dpi=130)
