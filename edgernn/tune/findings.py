"""What came of a study: the table of trials, and training files of the best."""

import csv
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import msgspec
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.run import config_toml
from edgernn.settings import make_folder
from edgernn.tune.conduct import describe, show
from edgernn.tune.ledger import ERROR, listed
from edgernn.tune.pictures import plot_front, plot_history, plot_importance
from edgernn.tune.study import LABELLED, Plan

TRIALS, BEST, FRONT = "trials.csv", "best.toml", "front"
MOST_ROWS = 20
"""Printed; the file holds all."""
FEWEST_FOR_IMPORTANCE = 10
"""Complete trials. Importance compares the best tenth with the rest (PED-ANOVA, Watanabe et al.
2023), which needs one."""


def write_findings(study: Study, plan: Plan, folder: Path) -> list[str]:
    """Write table, pictures and training files into `folder`; returns what to print, by line.

    Raises EdgernnError if no trial was completed; the table is written even so.
    """
    make_folder(folder)
    trials = listed(study)
    front = pareto_front(trials, plan.directions)
    (folder / TRIALS).write_text(_csv(trials, plan, front), encoding="utf-8")
    if not front:
        reasons = [t.user_attrs[ERROR] for t in trials if ERROR in t.user_attrs]
        last = f"; the last one failed: {reasons[-1]}" if reasons else ""
        raise EdgernnError(f"{folder / TRIALS}: no trial was completed{last}")
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    names = plan.study.objectives
    plot_history(folder / "history.png", trials, names[0], direction=plan.directions[0])
    written = [TRIALS, "history.png"]
    if len(complete) >= FEWEST_FOR_IMPORTANCE:
        plot_importance(folder / "importance.png", importances(study, plan))
        written.append("importance.png")
    best = balanced(front, plan.directions)
    if len(names) > 1:
        plot_front(folder / "pareto.png", complete, front, best, names)
        written += ["pareto.png", f"{FRONT}/"]
        for old in (folder / FRONT).glob("trial-*.toml"):
            old.unlink()
        for trial in front:
            _write_config(folder / FRONT / f"trial-{trial.number}.toml", plan, trial)
    _write_config(folder / BEST, plan, best)
    written.append(BEST)
    lines = [*table(trials, plan, front)]
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        lines.append(
            f"no picture of importance: {len(complete)} trials are complete, "
            f"{FEWEST_FOR_IMPORTANCE} are needed"
        )
    what = "balanced" if len(names) > 1 else "best"
    lines.append(f"{what}: trial {best.number}, {describe(best, names)}")
    if names[0] in LABELLED:
        lines.append(
            f"{plan.labelled} was used for choosing: figures on it are no honest test any more"
        )
    lines.append(f"{folder}: {', '.join(written)}")
    return [*lines, f"next: edgernn train {folder / BEST} -o runs/{folder.name}"]


def pareto_front(trials: Sequence[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """Complete trials that none beats in every objective, best quality first. With one objective:
    the best, the earliest of equals."""
    costs = {
        trial.number: _costs(trial, directions)
        for trial in trials
        if trial.state == TrialState.COMPLETE
    }
    chosen: list[FrozenTrial] = []
    least = math.inf
    by_number = {trial.number: trial for trial in trials}
    for number in sorted(costs, key=lambda n: (*costs[n], n)):
        if (last := costs[number][-1]) < least or not chosen:
            chosen.append(by_number[number])
            least = last
        if len(directions) == 1:
            break
    return chosen


def balanced(front: Sequence[FrozenTrial], directions: Sequence[str]) -> FrozenTrial:
    """The point of the front nearest to the best of both, each measured by its spread."""
    costs = [_costs(trial, directions) for trial in front]
    low = [min(values) for values in zip(*costs, strict=True)]
    span = [max(values) - min(values) or 1.0 for values in zip(*costs, strict=True)]
    away = [math.hypot(*((c - a) / s for c, a, s in zip(cost, low, span, strict=True)))
            for cost in costs]  # fmt: skip
    return front[away.index(min(away))]


def importances(study: Study, plan: Plan) -> dict[str, dict[str, float]]:
    """Objective → key → its share of what made trials good."""
    shares = {}
    for i, name in enumerate(plan.study.objectives):
        sign = -1.0 if plan.directions[i] == "maximize" else 1.0  # PED-ANOVA takes less for better

        def target(trial: FrozenTrial, i: int = i, sign: float = sign) -> float:
            return sign * float(trial.values[i])

        with (
            warnings.catch_warnings()
        ):  # it cannot see our sign, and warns whenever a target is given
            warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
            shares[name] = optuna.importance.get_param_importances(
                study, params=list(plan.space.keys), target=target
            )
    return shares


def table(trials: Sequence[FrozenTrial], plan: Plan, front: Sequence[FrozenTrial]) -> list[str]:
    """The best trials as aligned lines, * at those of the front."""
    best = {trial.number for trial in front}
    order = sorted(trials, key=lambda t: (t.state != TrialState.COMPLETE, *_rank(t, plan)))
    head = ["", "trial", *plan.study.objectives, *plan.space.keys]
    rows = [head]
    for trial in order[:MOST_ROWS]:
        if trial.state == TrialState.COMPLETE:
            values = [f"{value:.6g}" for value in trial.values]
        else:
            values = [_state(trial), *[""] * (len(plan.directions) - 1)]
        params = [show(trial.params[key]) if key in trial.params else "" for key in plan.space.keys]
        star = "*" if trial.number in best else ""
        rows.append([star, str(trial.number), *values, *params])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    if len(order) > MOST_ROWS:
        lines.append(f"… and {len(order) - MOST_ROWS} more in {TRIALS}")
    return lines


def _csv(trials: Sequence[FrozenTrial], plan: Plan, front: Sequence[FrozenTrial]) -> str:
    best = {trial.number for trial in front}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names, keys = plan.study.objectives, plan.space.keys
    writer.writerow(["trial", "state", *names, *keys, "seconds", "front", "reason"])
    for trial in trials:
        values = trial.values if trial.state == TrialState.COMPLETE else [""] * len(names)
        params = [trial.params.get(key, "") for key in keys]
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        is_front = "yes" if trial.number in best else ""
        reason = trial.user_attrs.get(ERROR, "")
        writer.writerow([trial.number, _state(trial), *values, *params, seconds, is_front, reason])
    return out.getvalue()


def _write_config(path: Path, plan: Plan, trial: FrozenTrial) -> None:
    """The training file of a trial, its paths leading from where it lies."""
    make_folder(path.parent)
    config: Config = plan.space.config_of(trial.params).seen_from(path.parent, plan.base)
    said = describe(trial, plan.study.objectives)
    head = (
        f"# Trial {trial.number} of the study {msgspec.json.encode(plan.name).decode()}: {said}\n"
    )
    path.write_bytes(head.encode() + config_toml(config))


def _costs(trial: FrozenTrial, directions: Sequence[str]) -> tuple[float, ...]:
    """The values, less being better."""
    return tuple(
        -value if direction == "maximize" else value
        for value, direction in zip(trial.values, directions, strict=True)
    )


def _rank(trial: FrozenTrial, plan: Plan) -> tuple[float, ...]:
    is_complete = trial.state == TrialState.COMPLETE
    return (*(_costs(trial, plan.directions) if is_complete else ()), trial.number)


def _state(trial: FrozenTrial) -> str:
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
