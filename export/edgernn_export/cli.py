"""The commands `edgernn export` and `edgernn tune`: what they take. Torch is imported when they
run."""

from typing import Any

import click

from edgernn.options import PATH
from edgernn_export.vocabulary import AUTO, GOALS, QUANTIZATIONS


@click.command()
@click.argument("run_folder", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="An .onnx file.")
@click.option(
    "--quantize",
    type=click.Choice((AUTO, *QUANTIZATIONS)),
    help="How weights are stored; auto measures all ways and chooses. Default: int8.",
)
@click.option("--optimise", type=click.Choice(GOALS), help="What auto looks for. Default: size.")
@click.option(
    "--budget",
    metavar="KEY=NUMBER,…",
    help="The most that may be lost or cost: flips, auc-pr, difference, bytes, us. "
    "Default: flips=0,auc-pr=0.005.",
)
@click.option(
    "--labelled",
    type=PATH,
    metavar="RECORDING",
    help="A recording with labels, for AUC-PR.",
)
@click.option("--qat", is_flag=True, help="Train on where rounding exceeds the budget.")
@click.option(
    "--sign",
    "key_file",
    type=PATH,
    metavar="KEY",
    help="A private key of `edgernn keygen`: sign the artefact.",
)
def export(**said: Any) -> None:
    """Write the detector of RUN_FOLDER as one ONNX file, after proving it on the device's engine.

    If what it says differs by more than the stated tolerance, or one alarm is gained or lost, no
    file is written and every deviation is listed. With --quantize auto, --budget, --labelled or
    --qat, candidates are measured on this machine, and the table is kept in RUN_FOLDER.
    """
    from edgernn_export import exporting

    exporting.export(**said)


@click.command()
@click.argument("study_file", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="Folder for results. Default: studies/NAME.",
)
@click.option("--join", is_flag=True, help="Take part in a study; refuse to begin one.")
def tune(**said: Any) -> None:
    """Train many variants of a detector, as the .toml file STUDY_FILE asks, and choose.

    The same command again goes on where the last one stopped, and on another machine with the same
    storage it takes part. Ctrl-C keeps what is done.
    """
    from edgernn_export import tune

    tune.tune(**said)
