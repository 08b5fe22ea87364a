"""Command-line options that several commands share."""

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def column_options(command: Any) -> Any:
    """--time, --label, --stream-column, --ignore: for every command that reads a recording."""
    for option in (
        click.option("--ignore", multiple=True, help="A column to leave out. May be given again."),
        click.option(
            "--stream-column", "stream", help="Name of the stream column. Default: found."
        ),
        click.option("--label", help="Name of the label column. Default: found."),
        click.option("--time", help="Name of the time column. Default: found."),
    ):
        command = option(command)
    return command


def said(columns: dict[str, Any]) -> dict[str, Any]:
    """The column options that were given."""
    return {key: value for key, value in columns.items() if value not in (None, ())}
