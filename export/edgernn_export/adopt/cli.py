"""The command `edgernn adopt`: what it takes. Torch is imported when it runs."""

from typing import Any

import click

from edgernn.options import PATH
from edgernn_export.vocabulary import PREDICTS, TASKS, WARM_UP


@click.command()
@click.argument("model_file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="An .onnx file.")
@click.option(
    "--task",
    type=click.Choice(TASKS),
    default="none",
    show_default=True,
    help="none: the model with its states as inputs and outputs, for your own runtime. forecast "
    "and score: an artefact for `edgernn agent`.",
)
@click.option("--channels", help="Names of the input's columns, in their order: a,b,c.")
@click.option("--healthy", type=PATH, help="A healthy recording with these channels.")
@click.option("--period", "period_s", type=float, help="Seconds between samples. Default: found.")
@click.option(
    "--predicts",
    type=click.Choice(PREDICTS),
    help="For score: the model's output is the next sample, or the same one rebuilt.",
)
@click.option("--horizon", type=int, help="For forecast: samples ahead. Default: 1.")
@click.option(
    "--scale", type=PATH, help="A CSV file channel,mean,std: the model sees (value − mean) / std."
)
@click.option("--warm-up", type=int, help=f"Samples that do not count. Default: {WARM_UP}.")
@click.option("--false-alarms", help='For score: budget per stream, such as "1/week" (default).')
@click.option("--name", help="Of the model, in its card. Default: the file's.")
def adopt(**said: Any) -> None:
    """Make MODEL_FILE, anybody's ONNX file with LSTM, GRU or RNN nodes, run sample by sample.

    Its states become inputs `state.…` and outputs `state.….next`, any number of samples and streams
    fits, and what it says is proven to be what it said of whole sequences. What cannot be streamed
    is refused, and the node named.
    """
    from edgernn_export.adopt import command

    command.adopt(**said)
