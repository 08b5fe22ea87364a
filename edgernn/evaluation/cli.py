"""The command `edgernn evaluate`: what it takes. Torch is imported when it runs."""

from typing import Any

import click

from edgernn.options import PATH, column_options


@click.command()
@click.argument("run_folder", type=PATH)
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, help="Folder for results. Default: inside the run.")
@click.option("--false-alarms", help="Another budget than the run's.")
@click.option(
    "--folds",
    "folds_wanted",
    type=int,
    metavar="K",
    help="Also train K detectors, each without one of K blocks of the run's own recordings, and "
    "say what they make of that block and of SOURCE. Takes K times as long as training.",
)
@column_options
def evaluate(**said: Any) -> None:
    """Score the recording SOURCE with the detector of RUN_FOLDER: metrics and a report. Of a
    classifier or a forecaster: metrics.

    The threshold comes from the budget of false alarms, never from the labels. Columns are those
    that the detector was trained with unless said otherwise.
    """
    from edgernn.evaluation import command

    command.evaluate(**said)
