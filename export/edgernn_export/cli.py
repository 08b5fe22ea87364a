"""The command `edgernn export`."""

from pathlib import Path

import click
import torch

from edgernn.errors import EdgernnError
from edgernn.run import load_run
from edgernn.settings import make_folder, write_atomically
from edgernn_device.engine import Engine
from edgernn_device.keys import public_key, read_private_key, sign
from edgernn_export.artefact import QUANTIZATIONS, accepted, build_artefact
from edgernn_export.choice import GOALS
from edgernn_export.select import AUTO, TRAINED, Wish, select

DECISIONS = {
    "anomaly": (", 0 alarms flipped", ("score",)),
    "classify": ("", ("probability",)),
    "forecast": ("", ("forecast, in standard deviations", "spread, its logarithm")),
}
"""Task → what the proof found no difference in, and the differences that are shown."""


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="An .onnx file."
)
@click.option(
    "--quantize",
    type=click.Choice((AUTO, *QUANTIZATIONS)),
    default="int8",
    show_default=True,
    help="How weights are stored; auto measures all ways and chooses.",
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
    type=click.Path(path_type=Path),
    metavar="RECORDING",
    help="A recording with labels, for AUC-PR.",
)
@click.option("--qat", is_flag=True, help="Train on where rounding exceeds the budget.")
@click.option(
    "--sign",
    "key_file",
    type=click.Path(path_type=Path),
    metavar="KEY",
    help="A private key of `edgernn keygen`: sign the artefact.",
)
def export(
    run_folder: Path,
    output: Path,
    quantize: str,
    optimise: str | None,
    budget: str | None,
    labelled: Path | None,
    qat: bool,
    key_file: Path | None,
) -> None:
    """Write the detector of RUN_FOLDER as one ONNX file, after proving it on the device's engine.

    If what it says differs by more than the stated tolerance, or one alarm is gained or lost, no
    file is written and every deviation is listed. With --quantize auto, --budget, --labelled or
    --qat, candidates are measured on this machine, and the table is kept in RUN_FOLDER.
    """
    if output.suffix != ".onnx":
        raise EdgernnError(f"{output}: expected a file name ending in .onnx")
    if output.is_dir():
        raise EdgernnError(f"{output}: is a folder, expected a file name")
    if optimise is not None and quantize != AUTO:
        raise click.UsageError(f"--optimise is for --quantize auto, here --quantize {quantize}")
    if qat and quantize in ("none", "float16"):
        raise click.UsageError(f"--qat is for weights of integers, here --quantize {quantize}")
    wish = Wish(quantize, optimise or GOALS[0], budget or "", labelled, is_qat=qat)
    key = read_private_key(key_file) if key_file else None
    run = load_run(run_folder)
    make_folder(output.parent)
    torch.set_num_threads(run.config.training.threads)
    proven_against = "the trained detector"
    if quantize == AUTO or budget is not None or labelled is not None or qat:
        chosen = select(run, run_folder, wish, say=click.echo)
        artefact, proof = accepted(chosen.candidate)
        if chosen.name.endswith(TRAINED):
            proven_against = "the model that was trained on, which the table judges"
    else:
        artefact, proof = build_artefact(run, quantization=quantize)
    quantize = Engine(artefact).card.quantization
    if key is not None:
        artefact = sign(artefact, key)
    write_atomically(output, artefact)
    click.echo(f"{output}: {len(artefact):,} bytes, weights {quantize}, {run.card.network}")
    if key is not None:
        click.echo(f"signed by key {public_key(key).id}")
    same, shown = DECISIONS[run.card.task]
    click.echo(f"proven over {proof.samples:,} samples against {proven_against}{same}:")
    for deviation in proof.largest:
        if deviation.what in shown:
            click.echo(f"  {deviation}")
