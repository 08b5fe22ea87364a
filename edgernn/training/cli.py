"""The command `edgernn train`: what it takes. Torch is imported when it runs."""

from typing import Any

import click

from edgernn.options import PATH, column_options


@click.command()
@click.argument("sources", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, help="Run folder. Default: runs/NAME.")
@click.option("--seed", type=int, help="Of weights and batches. Default: 0.")
@click.option("--epochs", type=int, help="At most this many. Default: 200.")
@click.option("--period", "period_s", type=float, help="Seconds between samples. Default: found.")
@click.option("--false-alarms", help='Budget per stream, such as "1/week" (the default).')
@column_options
@click.option("--force", is_flag=True, help="Write into a run folder that is there already.")
@click.option("--diagnose", is_flag=True, help="Plot how far back the gradient reaches.")
@click.option("--resume", is_flag=True, help="Go on where the same command was interrupted.")
def train(**said: Any) -> None:
    """Train a detector on SOURCES: healthy recordings, or one .toml training file.

    The run folder then holds the weights, the configuration, the calibration and the loss curve.
    Under torchrun, several processes train one detector.
    """
    from edgernn.training import command

    command.train(**said)
