"""From what was asked for to the candidate that is written: build, measure, train on, choose."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgernn.errors import EdgernnError
from edgernn.layout import Columns
from edgernn.recording import Recording, read_recording
from edgernn.run import Run
from edgernn.settings import check_is_writable
from edgernn_export.artefact import prepare
from edgernn_export.budget import parse_budget
from edgernn_export.choice import (
    Examined,
    Measured,
    build_and_examine,
    choose,
    loses_too_much,
    measure_all,
)
from edgernn_export.findings import CSV, LATENCY, MARKDOWN, QUALITY, lines, write_findings
from edgernn_export.qat import EPOCHS, train_on
from edgernn_export.quality import set_exam
from edgernn_export.vocabulary import AUTO, QUANTIZATIONS

TRAINED = "+qat"
"""Behind the name of a candidate that training went on for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of `edgernn export` that choose."""

    quantization: str
    """One of `QUANTIZATIONS`, or "auto"."""
    goal: str
    """One of `GOALS`."""
    budget: str
    """As `budget.parse_budget` reads it."""
    labelled: Path | None
    is_qat: bool


def select(run: Run, folder: Path, wish: Wish, *, say: Callable[[str], None]) -> Measured:
    """Measure what was asked for, beside float32, and take the best inside the budget.

    The table and pictures go into the run folder, also where nothing is chosen: then an
    EdgernnError says what each candidate misses.
    """
    budget, said = parse_budget(wish.budget)
    if "auc_pr" in said and wish.labelled is None:
        raise EdgernnError("--budget: auc-pr needs --labelled RECORDING to be measured on")
    if run.card.task != "anomaly" and (wish.labelled or said & {"flips", "auc_pr"}):
        raise EdgernnError(
            f'--labelled, flips and auc-pr: only for task "anomaly", this run is for '
            f'"{run.card.task}"'
        )
    check_is_writable(folder)
    exam = set_exam(run, _read(run, wish.labelled))
    is_auto = wish.quantization == AUTO
    modes = QUANTIZATIONS if is_auto else dict.fromkeys(("none", wish.quantization))
    source = prepare(run)
    examined: dict[str, Examined] = {}
    for mode in modes:
        say(f"{mode}: building, proving")
        try:
            examined[mode] = build_and_examine(source, mode, exam, budget)
        except EdgernnError as exc:
            if not is_auto:
                raise
            say(f"{mode}: left out: {exc}")
            continue
        is_rounded = mode not in ("none", "float16")
        if wish.is_qat and is_rounded and loses_too_much(*examined[mode], budget):
            say(f"{mode}: outside the budget; training on for {EPOCHS} epochs")
            trained = prepare(train_on(source, folder, mode))
            examined[mode + TRAINED] = build_and_examine(trained, mode, exam, budget)
    say("measuring times")
    x = np.concatenate([track.x for track in run.healthy.tracks])
    rows = measure_all(examined, x, budget)
    asked = [row for row in rows if is_auto or row.candidate.quantization == wish.quantization]
    try:
        chosen = choose(asked, wish.goal, budget)
    except EdgernnError:
        _show(run, folder, rows, None, say)
        raise
    _show(run, folder, rows, chosen.name, say)
    return chosen


def _show(
    run: Run, folder: Path, rows: list[Measured], chosen: str | None, say: Callable[[str], None]
) -> None:
    for line in lines(rows, chosen):
        say(line)
    write_findings(folder, rows, chosen, run.card.task)
    say(f"{folder}: {', '.join((CSV, MARKDOWN, QUALITY, LATENCY))}")


def _read(run: Run, path: Path | None) -> Recording | None:
    if path is None:
        return None
    columns = run.config.recording[0].columns if run.config.recording else Columns()
    return read_recording(path, columns=columns, period_s=run.card.period_s)
