"""The command evaluate at work: metrics, a report, and on request cross-validation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
import torch
from tqdm import tqdm

from edgernn.alarm import Limits
from edgernn.card import AlarmRule
from edgernn.errors import EdgernnError
from edgernn.evaluation.class_metrics import ClassMetrics, class_lines, measure_classes
from edgernn.evaluation.evaluate import score_recording
from edgernn.evaluation.folds import Block, Folds, cross_validate, cut, write_folds
from edgernn.evaluation.forecast_metrics import ForecastMetrics, forecast_lines, measure_forecasts
from edgernn.evaluation.metrics import Metrics, measure
from edgernn.evaluation.page import Evaluation, duration, number, short, write_page
from edgernn.layout import Columns
from edgernn.options import said
from edgernn.recording import Recording, read_recording
from edgernn.run import EVALUATION, Run, load_run
from edgernn.settings import make_folder
from edgernn.spill import Spill
from edgernn.training.stretches import read_recordings


def evaluate(
    run_folder: Path,
    source: Path,
    output: Path | None,
    false_alarms: str | None,
    folds_wanted: int | None,
    **columns: Any,
) -> None:
    """What `cli.evaluate` says."""
    run = load_run(run_folder)
    torch.set_num_threads(run.config.training.threads)
    columns_of_run = [item.columns for item in run.config.recording]  # none if trained by program
    recording = read_recording(
        source,
        columns=msgspec.structs.replace(*columns_of_run[:1] or [Columns()], **said(columns)),
        period_s=run.card.period_s,
    )
    folder = output or run_folder / EVALUATION / source.stem
    if run.card.task != "anomaly":
        if false_alarms is not None or folds_wanted is not None:
            raise EdgernnError(
                f'--false-alarms and --folds: only for task "anomaly", {run_folder} is for '
                f'"{run.card.task}"'
            )
        _evaluate_task(run, recording, folder)
        return
    rule = run.card.alarm
    if false_alarms is not None:
        rule = msgspec.structs.replace(rule, false_alarms=false_alarms)
    limits = Limits.from_rule(rule, run.card)
    spill = Spill(folder, limit_bytes=run.config.training.memory_gb * 1e9)
    blocks = []
    if folds_wanted is not None:
        healthy = read_recordings(run.config, run_folder, spill)
        blocks = cut(healthy, folds_wanted, warm_up=run.card.warm_up)
    scored = score_recording(run.detector, run.card, recording, limits)
    metrics = measure(scored, aftermath_s=run.card.warm_up * run.card.period_s)
    evaluation = Evaluation(source.name, run.card, rule, limits, scored, metrics)
    make_folder(folder)
    numbers = {"threshold": limits.enter, "budget_per_day": evaluation.budget_per_day}
    numbers |= msgspec.structs.asdict(metrics)
    (folder / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(numbers)))
    click.echo(summary(metrics))
    files = "metrics.json, report.html"
    if blocks:
        folds = _cross_validate(run, blocks, rule, recording, spill)
        write_folds(folder, folds)
        click.echo(table(folds, budget_per_day=evaluation.budget_per_day))
        evaluation = replace(evaluation, folds=folds)
        files += ", folds.json, folds.csv"
    write_page(folder / "report.html", evaluation)
    click.echo(f"{folder}: {files}")


def _evaluate_task(run: Run, recording: Recording, folder: Path) -> None:
    """Of a classifier or a forecaster."""
    metrics: ClassMetrics | ForecastMetrics
    if run.card.task == "classify":
        metrics = measure_classes(run.model, run.card, recording)
        click.echo(class_lines(metrics))
    else:
        metrics = measure_forecasts(run.model, run.card, recording)
        click.echo(forecast_lines(metrics))
    make_folder(folder)
    (folder / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(metrics)))
    click.echo(f"{folder}: metrics.json")


def summary(metrics: Metrics) -> str:
    """Metrics as a few lines for a person."""
    if not metrics.scored_rows:
        return "not one sample was scored: every piece is shorter than the warm-up, or empty"
    missing = "precision, recall, F1, areas and delays are not available"
    if metrics.faults_total is None:
        return (
            f"{metrics.alarms} alarm(s) in {metrics.scored_hours:.1f} h "
            f"({number(metrics.alarms_per_day, 2)} a day)\nno labels: {missing}"
        )
    alarms = (
        f"alarms: {metrics.alarms}, of them false {metrics.false_alarms} in "
        f"{number(metrics.healthy_hours, 1)} healthy hours "
        f"({number(metrics.false_alarms_per_day, 2)} a day)"
    )
    unscored = f"faults without one scored row, which count nowhere: {metrics.faults_unscored}"
    if not metrics.faults_total:
        what = f"{unscored}; no other" if metrics.faults_unscored else "the labels name no fault"
        return f"{alarms}\n{what}: {missing}"
    lines = [
        f"rows: precision {number(metrics.precision)}  recall {number(metrics.recall)}  "
        f"F1 {number(metrics.f1)}  false-alarm rate {number(metrics.false_alarm_rate, 4)}  "
        f"missed-alarm rate {number(metrics.missed_alarm_rate, 4)}",
        alarms,
        f"scores: AUC-PR {number(metrics.auc_pr)}  AUC-ROC {number(metrics.auc_roc)}  "
        f"VUS-PR {number(metrics.vus_pr)}",
        f"best possible, looks at the labels: F1 {number(metrics.best_f1)} "
        f"at threshold {number(metrics.best_f1_threshold, 2)}",
    ]
    for kind in metrics.kinds:
        already = f" ({kind.on_already} began with the alarm on)" if kind.on_already else ""
        lines.append(
            f"  {kind.label:<14} {kind.faults_found} of {kind.faults_total} found{already}, "
            f"median delay {duration(kind.median_delay_s)}, F1 {number(kind.f1)}, "
            f"AUC-PR {number(kind.auc_pr)}"
        )
    if metrics.faults_unscored:
        lines.append(unscored)
    return "\n".join(lines)


def table(folds: Folds, *, budget_per_day: float) -> str:
    """A line a number: every fold, then mean ± standard deviation."""
    lines = [f"{len(folds.folds)} folds, budget {budget_per_day:.3g} false alarms a day"]
    for name, mean in folds.mean.items():
        cells = "".join(f"{short(fold[name]):>10}" for fold in folds.folds)
        lines.append(f"  {name:<28}{cells}   {short(mean)} ± {short(folds.std[name])}")
    return "\n".join(lines)


def _cross_validate(
    run: Run, blocks: Sequence[Block], rule: AlarmRule, source: Recording, spill: Spill
) -> Folds:
    has_labels = any(track.label is not None for track in source.tracks)
    with tqdm(total=len(blocks), unit="fold", disable=None) as bar:
        return cross_validate(
            run.config,
            blocks,
            rule=rule,
            source=source if has_labels else None,
            on_fold=bar.update,
            spill=spill,
        )
