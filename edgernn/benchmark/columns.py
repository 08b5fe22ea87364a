"""What the figures of each set are called, how they are written, and what they mean."""

import csv
import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from edgernn.benchmark.figures import Row


class Column(msgspec.Struct, frozen=True):
    name: str
    """In the CSV."""
    title: str
    digits: int
    meaning: str


OWN = "at the product's own threshold, from the budget alone"
SWEPT = "at the one threshold that is best over all files: looks at the labels, as the protocol has"
BUDGET = (
    Column(
        "false_alarms",
        "false alarms",
        0,
        "Alarms that went on in healthy stretches: behind what was learnt from, outside labelled"
        " stretches and the 60 rows after each.",
    ),
    Column("healthy_hours", "healthy h", 1, "How long these stretches are together."),
    Column("asked_alarms", "asked", 3, "Alarms that the budget allows in so many hours."),
    Column("asked_times", "false/asked", 1, "Alarms seen for each one that was asked for."),
)
ROWS = (
    Column("f1", "F1", 3, f"Of rows with the alarm on, {OWN}. Read it beside the next."),
    Column("far", "FAR", 4, "Of healthy rows, the share with the alarm on."),
    Column("mar", "MAR", 3, "Of faulty rows, the share with the alarm off."),
)
AREAS = (
    Column(
        "vus_pr",
        "VUS-PR",
        3,
        "Average precision with labels that fade out, over all thresholds, TSB-AD's form.",
    ),
    Column("auc_pr", "AUC-PR", 3, "Average precision, over all thresholds."),
)
COLUMNS: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "nab": (
            Column("standard", "standard", 1, f"NAB's score, {SWEPT}."),
            Column("low_fp", "low FP", 1, "The profile that makes false alarms cost twice."),
            Column("low_fn", "low FN", 1, "The profile that makes misses cost twice."),
            Column(
                "own_threshold", "own threshold", 1, f"NAB's standard score of the alerts, {OWN}."
            ),
            Column("windows", "windows", 0, "Labelled."),
            Column("found", "found", 0, "Windows with a detection, at the standard threshold."),
            Column("false_rows", "false rows", 0, "Detections outside windows, at the same."),
            Column("threshold", "threshold", 3, "The standard one, on anomaly_score."),
            *BUDGET,
        ),
        "skab": (
            *ROWS,
            Column("auc_roc", "AUC-ROC", 3, "Of the scores of all files, over all thresholds."),
            Column(
                "best_f1",
                "best F1*",
                3,
                "Of any threshold with a FAR up to 10 %. Looks at the labels: a limit, no result.",
            ),
            Column("change_standard", "change", 1, f"SKAB's change-point score, {OWN}."),
            Column("change_low_fp", "low FP", 1, "The profile that makes false ones cost twice."),
            Column("change_low_fn", "low FN", 1, "The profile that makes misses cost twice."),
            Column("change_delay_s", "delay s", 1, "Mean, of the change points that were found."),
            *BUDGET,
        ),
        "smd": (
            *AREAS,
            *ROWS,
            Column(
                "hits_100",
                "hits 100 %",
                3,
                "Of the n channels behind a stretch, the share among the n that are named first.",
            ),
            Column("hits_150", "hits 150 %", 3, "The same among the first 1.5 n."),
            *BUDGET,
        ),
        "gecco": (*AREAS, *ROWS, *BUDGET),
    }
)
"""By benchmark."""


def cell(row: Row, column: Column) -> str:
    """For a person; "–" where there is nothing to count."""
    value = row.figures.get(column.name)
    return "–" if value is None else f"{value:,.{column.digits}f}"


def table(benchmark: str, rows: Sequence[Row]) -> list[str]:
    """The lines of whole sets among the rows, a method each, as Markdown."""
    columns = COLUMNS[benchmark]
    cells = [
        ["method", *(column.title for column in columns)],
        *([row.method, *(cell(row, c) for c in columns)] for row in rows if not row.file),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        " | ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    rule = " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths))
    return [f"| {line} |" for line in (lines[0], rule, *lines[1:])]


def as_csv(benchmark: str, protocol: str, rows: Sequence[Row]) -> str:
    """Every row with all digits; an empty file name is the whole set, an empty cell nothing."""
    columns = COLUMNS[benchmark]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "protocol", "method", "file", *(c.name for c in columns)])
    for row in rows:
        found = (row.figures.get(column.name) for column in columns)
        values = ["" if value is None else repr(value) for value in found]
        writer.writerow([benchmark, protocol, row.method, row.file, *values])
    return text.getvalue()
