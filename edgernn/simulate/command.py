"""The command `edgernn simulate`."""

from pathlib import Path

import click

from edgernn.errors import EdgernnError
from edgernn.options import PATH
from edgernn.recording import write_recording
from edgernn.simulate.house import simulate_house
from edgernn.simulate.pump import parse_fault, simulate_pump


@click.command()
@click.argument("machine", type=click.Choice(["pump", "house"]))
@click.option(
    "--hours", type=float, help="Length of the recording. Default: 8 of a pump, 1440 of a house."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[:CHANNEL]@START[+LENGTH]",
    help="Such as cavitation@40m, stuck:temperature@80m or leak@1h+10m. May be given again.",
)
@click.option(
    "--drift",
    type=float,
    default=0.0,
    help="Of a pump's sensors, in standard deviations of their noise an hour. Default: 0.",
)
@click.option("-o", "--output", type=PATH, required=True, help="A .csv or .parquet file.")
def simulate(
    machine: str,
    hours: float | None,
    seed: int,
    faults: tuple[str, ...],
    drift: float,
    output: Path,
) -> None:
    """Make a recording of a simulated machine, with faults and their labels on demand.

    \b
    Of a pump, every second: vibration, pressure, flow, current, temperature, speed.
    Faults: bearing, cavitation, leak; stuck:CHANNEL, spike:CHANNEL, dropout:CHANNEL.
    Of a house, every 15 minutes: power, indoor, outdoor, sun. It has no faults.
    """
    if machine == "house":
        if faults:
            raise EdgernnError("--fault: only for a pump, a house has none")
        if drift:
            raise EdgernnError("--drift: only for a pump, a house has none")
        recording = simulate_house(
            hours=1440.0 if hours is None else hours, seed=seed, stream=output.stem
        )
    else:
        planned = [parse_fault(text) for text in faults]
        hours = 8.0 if hours is None else hours
        recording = simulate_pump(
            hours=hours, seed=seed, faults=planned, drift=drift, stream=output.stem
        )
    write_recording(output, recording)
    rows = len(recording.tracks[0].time_s)
    click.echo(f"{output}: {rows:,} samples of {len(recording.channels)} channels")
