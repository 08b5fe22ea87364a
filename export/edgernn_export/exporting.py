"""The command `edgernn export` at work."""

from pathlib import Path

import click
import torch

from edgernn.errors import EdgernnError
from edgernn.nets.general import General
from edgernn.run import load_run
from edgernn.settings import make_folder, write_atomically
from edgernn_device.engine import Engine
from edgernn_device.keys import public_key, read_private_key, sign
from edgernn_export.artefact import accepted, build_artefact
from edgernn_export.select import TRAINED, Wish, select
from edgernn_export.vocabulary import AUTO, GOALS

DECISIONS = {
    "anomaly": (", 0 alarms flipped", ("score",)),
    "classify": ("", ("probability",)),
    "forecast": ("", ("forecast, in standard deviations", "spread, its logarithm")),
}
"""Task → what the proof found no difference in, and the differences that are shown."""


def export(
    run_folder: Path,
    output: Path,
    quantize: str | None,
    optimise: str | None,
    budget: str | None,
    labelled: Path | None,
    qat: bool,
    key_file: Path | None,
) -> None:
    """What `cli.export` says."""
    if output.suffix != ".onnx":
        raise EdgernnError(f"{output}: expected a file name ending in .onnx")
    if output.is_dir():
        raise EdgernnError(f"{output}: is a folder, expected a file name")
    asked, quantize = quantize, quantize or "int8"
    if optimise is not None and quantize != AUTO:
        raise click.UsageError(f"--optimise is for --quantize auto, here --quantize {quantize}")
    if qat and quantize in ("none", "float16"):
        raise click.UsageError(f"--qat is for weights of integers, here --quantize {quantize}")
    wish = Wish(quantize, optimise or GOALS[0], budget or "", labelled, is_qat=qat)
    key = read_private_key(key_file) if key_file else None
    run = load_run(run_folder)
    if isinstance(run.model, General):
        if asked not in (None, "none") or budget is not None or labelled is not None or qat:
            raise EdgernnError(f"{run_folder}: [general] has no weights, so there is one artefact")
        quantize = "none"
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
