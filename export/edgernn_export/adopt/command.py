"""The command `edgernn adopt` at work."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
import numpy as np
import torch

from edgernn.calibration import parse_budget
from edgernn.errors import EdgernnError
from edgernn.settings import make_folder, write_atomically
from edgernn_export.adopt.adopted import (
    Foreign,
    adopt_forecast,
    adopt_score,
    read_model,
)
from edgernn_export.adopt.healthy import Healthy, read_healthy, read_scaling
from edgernn_export.adopt.proof import Floats, length_of, noise, prove_streaming, streams_of
from edgernn_export.adopt.walk import Stateful, make_stateful
from edgernn_export.trim import strip
from edgernn_export.vocabulary import WARM_UP


def adopt(
    model_file: Path,
    output: Path,
    task: str,
    channels: str | None,
    healthy: Path | None,
    period_s: float | None,
    predicts: str | None,
    horizon: int | None,
    scale: Path | None,
    warm_up: int | None,
    false_alarms: str | None,
    name: str | None,
) -> None:
    """What `cli.adopt` says."""
    options = {
        "--channels": channels,
        "--healthy": healthy,
        "--period": period_s,
        "--scale": scale,
        "--warm-up": warm_up,
        "--name": name,
        "--predicts": predicts,
        "--false-alarms": false_alarms,
        "--horizon": horizon,
    }
    _check_options(task, options)
    _check_output(output, model_file)
    _check_range("--warm-up", warm_up, 0, 1_000_000)
    _check_range("--horizon", horizon, 1, 1000)
    if period_s is not None and not 0 < period_s < math.inf:
        raise EdgernnError(f"--period: expected a number of seconds above 0, got {period_s}")
    if false_alarms is not None:
        parse_budget(false_alarms, where="--false-alarms")
    torch.set_num_threads(1)
    where = str(model_file)
    model, content = read_model(model_file)
    stateful = make_stateful(model, where=where)
    sentences: tuple[str, ...] = ()
    if channels is None or healthy is None:  # task "none"
        proof = prove_streaming(model, stateful, noise(stateful, where=where), where=where)
        strip(stateful.model)
        artefact = stateful.model.SerializeToString(deterministic=True)
    else:
        names = _names(channels, stateful)
        recording = read_healthy(healthy, names, period_s=period_s)
        for note in recording.recording.notes:
            click.echo(f"note: {note}")
        scaling = None if scale is None else read_scaling(scale, names)
        said = msgspec.json.encode({option: str(value) for option, value in options.items()})
        digest = hashlib.sha256(content + said).hexdigest()
        foreign = Foreign(name or output.stem, stateful, scaling, digest, where)
        x = _sequences(foreign, recording, where)
        proof = prove_streaming(model, stateful, x, where=where)
        strip(stateful.model)
        warm_up = WARM_UP if warm_up is None else warm_up
        if predicts is None:
            artefact, sentences = adopt_forecast(
                foreign, recording, horizon=horizon or 1, warm_up=warm_up
            )
        else:
            artefact, sentences = adopt_score(
                foreign, recording, predicts=predicts, warm_up=warm_up, false_alarms=false_alarms
            )
    make_folder(output.parent)
    write_atomically(output, artefact)
    click.echo(f"{output}: {len(artefact):,} bytes, {_states(stateful)}")
    if stateful.dropped:
        click.echo(f"outputs that were final states are gone: {', '.join(stateful.dropped)}")
    click.echo(
        f"proven: streamed with its states, it says what {model_file.name} says of "
        f"{proof.sequences} whole sequences of {proof.samples} samples; largest difference "
        f"{proof.largest:.1g} of an output's range"
    )
    if sentences:
        click.echo("proven on the device's engine:")
    for sentence in sentences:
        click.echo(f"  {sentence}")


ONLY_FOR = {"--predicts": ("score",), "--false-alarms": ("score",), "--horizon": ("forecast",)}
"""Option → tasks; those not named are for both."""
NEEDED = ("--channels", "--healthy", "--predicts")


def _check_options(task: str, options: Mapping[str, object]) -> None:
    """Every option that was given has an effect, and those that the task needs were given."""
    for option, value in options.items():
        tasks = ONLY_FOR.get(option, ("forecast", "score"))
        if value is not None and task not in tasks:
            raise EdgernnError(f"{option}: only for --task {' or '.join(tasks)}, got --task {task}")
        if value is None and option in NEEDED and task in tasks:
            raise EdgernnError(f"--task {task} needs {option}")


def _check_output(output: Path, model_file: Path) -> None:
    if output.suffix != ".onnx":
        raise EdgernnError(f"{output}: expected a file name ending in .onnx")
    if output.is_dir():
        raise EdgernnError(f"{output}: is a folder, expected a file name")
    if output.exists() and model_file.exists() and output.samefile(model_file):
        raise EdgernnError(f"{output}: is the file that is read; choose another name")


def _check_range(option: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise EdgernnError(f"{option}: expected {low}–{high} samples, got {value}")


def _names(channels: str, stateful: Stateful) -> list[str]:
    names = [name.strip() for name in channels.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise EdgernnError(f"--channels: expected different names, as in a,b,c, got {channels!r}")
    if len(names) != stateful.channels:
        raise EdgernnError(
            f"--channels: expected {stateful.channels} names, as many as input "
            f"{stateful.source!r} has columns, got {len(names)}"
        )
    return names


def _sequences(foreign: Foreign, recording: Healthy, where: str) -> Floats:
    """(T, N, C) pieces of the recording as the model sees them, to prove with."""
    length, streams = length_of(foreign.stateful, where=where), streams_of(foreign.stateful)
    together = np.concatenate([track.x for track in recording.recording.tracks])
    together = np.resize(together, (max(len(together), length * streams), together.shape[1]))
    starts = np.linspace(0, len(together) - length, streams).astype(int)
    parts = [foreign.seen(together[start : start + length], recording.centre) for start in starts]
    return np.stack(parts, axis=1).astype(np.float32)


def _states(stateful: Stateful) -> str:
    return ", ".join(
        f"{s.name} (N, {s.shape[0]}){f' from {s.initial:g}' if s.initial else ''}"
        for s in stateful.states
    )
