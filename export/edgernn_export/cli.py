"""The command `edgernn export`."""

from pathlib import Path

import click
import torch

from edgernn.errors import EdgernnError
from edgernn.run import load_run
from edgernn.settings import make_folder, write_atomically
from edgernn_device.keys import public_key, read_private_key, sign
from edgernn_export.artefact import QUANTIZATIONS, build_artefact

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
    type=click.Choice(QUANTIZATIONS),
    default="int8",
    show_default=True,
    help="How weights are stored; the arithmetic is float32 either way.",
)
@click.option(
    "--sign",
    "key_file",
    type=click.Path(path_type=Path),
    metavar="KEY",
    help="A private key of `edgernn keygen`: sign the artefact.",
)
def export(run_folder: Path, output: Path, quantize: str, key_file: Path | None) -> None:
    """Write the detector of RUN_FOLDER as one ONNX file, after proving it on the device's engine.

    If what it says differs by more than the stated tolerance, or one alarm is gained or lost, no
    file is written and every deviation is listed.
    """
    if output.suffix != ".onnx":
        raise EdgernnError(f"{output}: expected a file name ending in .onnx")
    if output.is_dir():
        raise EdgernnError(f"{output}: is a folder, expected a file name")
    key = read_private_key(key_file) if key_file else None
    run = load_run(run_folder)
    make_folder(output.parent)
    torch.set_num_threads(run.config.training.threads)
    artefact, proof = build_artefact(run, quantization=quantize)
    if key is not None:
        artefact = sign(artefact, key)
    write_atomically(output, artefact)
    click.echo(f"{output}: {len(artefact):,} bytes, weights {quantize}, {run.card.network}")
    if key is not None:
        click.echo(f"signed by key {public_key(key).id}")
    same, shown = DECISIONS[run.card.task]
    click.echo(f"proven over {proof.samples:,} samples against the trained detector{same}:")
    for deviation in proof.largest:
        if deviation.what in shown:
            click.echo(f"  {deviation}")
