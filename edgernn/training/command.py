"""The command `edgernn train`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
import torch
from tqdm import tqdm

from edgernn.alarm import Limits
from edgernn.card import AlarmRule
from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.layout import Columns
from edgernn.options import PATH, column_options, said
from edgernn.run import CONFIG, GRADIENT, EpochLoss, Run, remove_findings, save_run
from edgernn.settings import check_is_writable, make_folder, read_settings
from edgernn.spill import Spill
from edgernn.training.checkpoint import NAME as CHECKPOINT
from edgernn.training.checkpoint import remove_checkpoint
from edgernn.training.fit import best_of
from edgernn.training.pictures import plot_losses, plot_reach
from edgernn.training.ranks import joined
from edgernn.training.reach import Reach
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train as train_detector


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
def train(
    sources: tuple[Path, ...],
    output: Path | None,
    seed: int | None,
    epochs: int | None,
    period_s: float | None,
    false_alarms: str | None,
    force: bool,
    resume: bool,
    diagnose: bool,
    **columns: Any,
) -> None:
    """Train a detector on SOURCES: healthy recordings, or one .toml training file.

    The run folder then holds the weights, the configuration, the calibration and the loss curve.
    Under torchrun, several processes train one detector.
    """
    first = sources[0]
    folder = output or Path("runs") / first.stem
    if first.suffix == ".toml":
        if len(sources) > 1 or said(columns):
            raise click.UsageError("a training file stands alone: put recordings and columns in it")
        config, base = read_settings(first, Config), first.parent
    else:
        found = Columns(**said(columns))
        recordings = tuple(RecordingConfig(path=str(path), columns=found) for path in sources)
        config, base = Config(recording=recordings), Path()
    config = _override(config, seed=seed, epochs=epochs, period_s=period_s)
    _check_folder(folder, force=force, resume=resume)
    torch.set_num_threads(config.training.threads)
    with joined(config.training.device) as ranks, _spill(folder, config) as spill:
        say = click.echo if ranks.is_first else _say_nothing
        recording = read_recordings(config, base, spill)
        if false_alarms is not None:
            if config.task != "anomaly":
                raise EdgernnError(f'--false-alarms: only for task "anomaly", got "{config.task}"')
            rule = config.alarm or AlarmRule.for_period(recording.period_s)
            config = msgspec.structs.replace(
                config, alarm=msgspec.structs.replace(rule, false_alarms=false_alarms)
            )
        if ranks.is_first:
            check_is_writable(make_folder(folder))
            if not resume:
                remove_checkpoint(folder)
        for note in recording.notes:
            say(f"note: {note}")
        rows = sum(len(track.time_s) for track in recording.tracks)
        say(
            f"{rows:,} samples of {len(recording.channels)} channels every "
            f"{recording.period_s:g} s in {len(recording.tracks)} stream(s)"
        )
        together = f" in {ranks.count} processes" if ranks.count > 1 else ""
        say(f"training, at most {config.training.epochs} epochs{together}")
        reaches: dict[str, Reach] = {}

        def tell_reach(when: str, reach: Reach) -> None:
            reaches[when] = reach
            for sentence in reach.sentences(config.network.kind):
                say(f"{when} training: {sentence}")

        is_hidden = None if ranks.is_first else True  # None: unless there is no terminal
        with tqdm(total=config.training.epochs, unit="epoch", disable=is_hidden) as bar:
            run, losses = train_detector(
                config,
                recording,
                name=folder.name,
                on_epoch=lambda loss: _show(bar, loss),
                on_reach=tell_reach if diagnose and ranks.is_first else None,
                ranks=ranks,
                folder=folder,
                resume=resume,
                spill=spill,
            )
        if ranks.is_first:
            remove_findings(folder)
            if reaches:
                plot_reach(folder / GRADIENT, reaches)
            _save(folder, replace(run, config=config.seen_from(folder, base)), losses)


def _check_folder(folder: Path, *, force: bool, resume: bool) -> None:
    """Refuse to write over a run, finished or not, that nobody said to."""
    if force and resume:
        raise click.UsageError("--resume goes on, --force starts afresh: say one of them")
    if force or resume:
        return
    if (folder / CHECKPOINT).exists():
        raise EdgernnError(
            f"{folder}: holds a training that was interrupted; "
            f"go on with --resume, or start afresh with --force"
        )
    if (folder / CONFIG).exists():
        raise EdgernnError(f"{folder}: holds a run already; choose another folder or say --force")


def _save(folder: Path, run: Run, losses: list[EpochLoss]) -> None:
    """Write the run, take the checkpoint away, and say what came out."""
    save_run(folder, run, losses)
    plot_losses(folder / "loss.png", losses)
    remove_checkpoint(folder)
    best = best_of(losses)
    click.echo(
        f"{folder}: {run.card.network}, epoch {best.epoch} of {len(losses)} kept "
        f"(validation loss {best.validation:.3f}); {_aim(run)}"
    )
    hours = sum(len(track.time_s) for track in run.healthy.tracks) * run.card.period_s / 3600
    extrapolated = "; what a budget says of rarer alarms is extrapolated"
    is_anomaly = run.card.task == "anomaly"
    click.echo(f"calibrated on {hours:.1f} h{extrapolated if is_anomaly else ''}")
    click.echo(f"next: edgernn evaluate {folder} RECORDING, edgernn export {folder} -o NAME.onnx")


def _aim(run: Run) -> str:
    """What the model is for, in numbers."""
    card = run.card
    match card.task:
        case "classify":
            return f"classes {', '.join(card.classes)}"
        case "forecast":
            return f"{card.horizon} samples ahead, {card.horizon * card.period_s:g} s"
    limits = Limits.from_rule(card.alarm, card)
    return f"threshold {limits.enter:.2f} for {card.alarm.false_alarms}"


def _spill(folder: Path, config: Config) -> Spill:
    """Where samples are kept that are too many for the memory; every process has its own."""
    return Spill(folder, limit_bytes=config.training.memory_gb * 1e9)


def _say_nothing(_: str) -> None:
    """What the other processes of a distributed training print."""


def _override(
    config: Config, *, seed: int | None, epochs: int | None, period_s: float | None
) -> Config:
    """The configuration with what the command line says otherwise."""
    chosen = {"seed": seed, "epochs": epochs}
    changes = {key: value for key, value in chosen.items() if value is not None}
    try:
        training = TrainingConfig(**{**msgspec.structs.asdict(config.training), **changes})
    except ValueError as exc:
        raise EdgernnError(f"--{exc}") from exc
    period_s = config.period_s if period_s is None else period_s
    if period_s is not None and not 0 < period_s < math.inf:
        raise EdgernnError(f"--period: expected a number of seconds above 0, got {period_s}")
    return msgspec.structs.replace(config, training=training, period_s=period_s)


def _show(bar: "tqdm[None]", loss: EpochLoss) -> None:
    bar.set_postfix_str(f"loss {loss.training:.3f}, validation {loss.validation:.3f}")
    bar.update()
