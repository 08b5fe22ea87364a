"""The command `edgernn export`."""

import os
from pathlib import Path

import click
import torch

from edgernn.errors import EdgernnError
from edgernn.run import load_run
from edgernn.settings import make_folder
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
def export(run_folder: Path, output: Path, quantize: str) -> None:
    """Write the detector of RUN_FOLDER as one ONNX file, after proving it on the device's engine.

    If what it says differs by more than the stated tolerance, or one alarm is gained or lost, no
    file is written and every deviation is listed.
    """
    if output.suffix != ".onnx":
        raise EdgernnError(f"{output}: expected a file name ending in .onnx")
    if output.is_dir():
        raise EdgernnError(f"{output}: is a folder, expected a file name")
    run = load_run(run_folder)
    make_folder(output.parent)
    torch.set_num_threads(run.config.training.threads)
    artefact, proof = build_artefact(run, quantization=quantize)
    write_atomically(output, artefact)
    click.echo(f"{output}: {len(artefact):,} bytes, weights {quantize}, {run.card.network}")
    same, shown = DECISIONS[run.card.task]
    click.echo(f"proven over {proof.samples:,} samples against the trained detector{same}:")
    for deviation in proof.largest:
        if deviation.what in shown:
            click.echo(f"  {deviation}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise EdgernnError(f"{path}: cannot be written: {exc.strerror}") from exc
