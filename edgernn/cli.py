"""The command `edgernn`. Subcommands live with their parts and are imported when called."""

import importlib
import logging
import sys
from typing import Any, NamedTuple

import click

from edgernn import __version__
from edgernn.errors import EdgernnError, Exit, MissingExtraError


class Command(NamedTuple):
    """Where a subcommand lives, and which extra it needs beyond the base install."""

    place: str
    summary: str
    extra: str = ""


COMMANDS = {
    "simulate": Command(
        "edgernn.simulate.command:simulate", "Make a recording of a simulated machine.", "train"
    ),
    "train": Command(
        "edgernn.training.cli:train", "Train a detector on a healthy recording.", "train"
    ),
    "tune": Command(
        "edgernn_export.cli:tune", "Train many variants of a detector, and choose.", "tune"
    ),
    "evaluate": Command(
        "edgernn.evaluation.cli:evaluate", "Score a recording; metrics and a report.", "train"
    ),
    "benchmark": Command(
        "edgernn_export.benchmark.cli:benchmark", "Measure detectors on public sets.", "export"
    ),
    "export": Command(
        "edgernn_export.cli:export", "Write a trained detector as one proven ONNX file.", "export"
    ),
    "adopt": Command(
        "edgernn_export.adopt.cli:adopt", "Give anybody's recurrent ONNX file states.", "export"
    ),
    "keygen": Command("edgernn_device.signing:keygen", "Make a key pair to sign with.", "sign"),
    "sign": Command("edgernn_device.signing:sign", "Sign an artefact.", "sign"),
    "inspect": Command("edgernn_device.cli:inspect", "Show what an artefact says of itself."),
    "verify": Command("edgernn_device.cli:verify", "Prove an artefact on this CPU."),
    "agent": Command("edgernn_device.cli:agent", "Run an artefact over MQTT and publish alerts."),
    "record": Command("edgernn_device.cli:record", "Write live MQTT samples to a recording."),
    "replay": Command("edgernn_device.cli:replay", "Publish a recording over MQTT."),
    "watch": Command("edgernn_device.cli:watch", "Print alerts as they arrive."),
    "broker": Command("edgernn_device.cli:broker", "Start an MQTT broker on loopback, for trials."),
}


class LazyGroup(click.Group):
    """Lists every subcommand without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _load(cmd_name) if cmd_name in COMMANDS else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:  # of what a command imports only when it runs
            if (missing := _missing(str(ctx.invoked_subcommand), exc)) is exc:
                raise
            raise missing from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgernn")
def edgernn() -> None:
    """Train recurrent anomaly detectors, export them as one stateful ONNX file, run them over MQTT.

    \b
    edgernn simulate → train, tune → evaluate → export → sign  on a workstation
    edgernn verify, agent, record, replay, watch, inspect      on the device
    """


def main() -> None:
    """Run the command; one line and an `Exit` code for anything the user can put right."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        edgernn.main(prog_name="edgernn", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(Exit.INTERRUPTED)
    except EdgernnError as exc:
        click.echo(f"edgernn: {exc}", err=True)
        sys.exit(exc.exit_code)


def _load(name: str) -> click.Command:
    command = COMMANDS[name]
    module, _, attribute = command.place.partition(":")
    try:
        loaded: Any = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as exc:
        if (missing := _missing(name, exc)) is exc:
            raise
        raise missing from exc
    if not isinstance(loaded, click.Command):
        raise TypeError(f"{command.place} is not a click command")
    return loaded


def _missing(name: str, exc: ModuleNotFoundError) -> Exception:
    """What to raise for it: a sentence if an extra has the module, else itself."""
    extra = COMMANDS[name].extra if name in COMMANDS else ""
    package = (exc.name or "").partition(".")[0]
    if not extra or package.startswith("edgernn"):
        return exc
    return MissingExtraError(
        f"{name} needs {package}, which this installation has not: pip install 'edgernn[{extra}]'"
    )
