"""The command `edgernn benchmark`: what it takes. Torch is imported when it runs."""

from typing import Any

import click

from edgernn.benchmark.baselines import BASELINES
from edgernn.options import PATH
from edgernn_device.shipped import GENERAL
from edgernn_export.vocabulary import ALL, COMES_ALONG, SETS


@click.command()
@click.argument("name", metavar="|".join(SETS))
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    metavar="FILE.toml|NAME",
    help=f"A training file, {' or '.join(COMES_ALONG)} (these come along), {GENERAL} (which is "
    f"not trained), a plain method ({', '.join(BASELINES)}), or {ALL} of these, which is the "
    "default. May be given again; the first one is drawn.",
)
@click.option("--artefact", type=PATH, help="A ready .onnx file for every series, drawn first.")
@click.option("--protocol", default="", help="smd: official, tsb-ad; gecco: tsb-ad, official.")
@click.option("--false-alarms", metavar="BUDGET", help="Another budget than 1/week.")
@click.option(
    "--quiet",
    type=int,
    help="Rows in which a score must be beaten to count again. Default: else 0; nab 288, and for "
    "detectors their own quiet.",
)
@click.option("--table", "table_file", type=PATH, help="A .csv file for every figure of each file.")
@click.option("--report", type=PATH, help="An .html file with a picture of each file.")
@click.option("--scores", type=PATH, help="Folder for a CSV of scores and alerts of each file.")
@click.option("--keep", type=PATH, help="Folder for the artefacts that are trained.")
@click.option("--workers", type=int, default=2, show_default=True, help="Processes.")
def benchmark(**said: Any) -> None:
    """Measure detectors on DIR, a folder laid out as the public set nab, skab, smd or gecco is.

    For each file a detector learns from what the set's protocol gives, is exported with integer
    weights, and streams through the device's engine. Beside it stand plain methods with the same
    decision stage. Labels are for the figures alone.
    """
    from edgernn_export.benchmark import command

    command.benchmark(**said)
