"""The command `edgernn train` at work."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
import torch
from tqdm import tqdm

from edgernn.alarm import Limits
from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.layout import Columns
from edgernn.nets.calendar import CYCLES
from edgernn.nets.general import General
from edgernn.options import said
from edgernn.recording import Recording, check_dated
from edgernn.run import CONFIG, GRADIENT, EpochLoss, Run, build_model, remove_findings, save_run
from edgernn.settings import check_is_writable, make_folder, read_settings
from edgernn.spill import Spill
from edgernn.training.begin import apart
from edgernn.training.checkpoint import NAME as CHECKPOINT
from edgernn.training.checkpoint import remove_checkpoint
from edgernn.training.fit import best_of
from edgernn.training.pictures import plot_losses, plot_reach
from edgernn.training.ranks import joined
from edgernn.training.reach import Reach
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train as train_detector

LOSS_PICTURE = "loss.png"
NEXT = "next: edgernn evaluate {folder} RECORDING, edgernn export {folder} -o NAME.onnx"
FEWEST_CYCLES = 3
"""Days, or weeks, that tell what belongs to a time of them from what happened once."""
SAID_EVERY_S = 10.0
"""Between two lines of progress where there is no terminal."""


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
    """What `cli.train` says."""
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
    if config.general is not None:
        of_training = {
            "--seed": seed is not None,
            "--epochs": epochs is not None,
            "--resume": resume,
            "--diagnose": diagnose,
        }
        if words := ", ".join(word for word, is_said in of_training.items() if is_said):
            raise click.UsageError(f"{words}: {first} has general, which is not trained")
    config = _override(config, seed=seed, epochs=epochs, period_s=period_s)
    _check_folder(folder, force=force, resume=resume)
    torch.set_num_threads(config.training.threads)
    with (
        _not_left_empty(folder),
        joined(config.training.device) as ranks,
        _spill(folder, config) as spill,
    ):
        say = click.echo if ranks.is_first else _say_nothing
        recording = read_recordings(config, base, spill)
        if false_alarms is not None:
            if config.task != "anomaly":
                raise EdgernnError(f'--false-alarms: only for task "anomaly", got "{config.task}"')
            alarm = msgspec.structs.replace(config.alarm, false_alarms=false_alarms)
            config = msgspec.structs.replace(config, alarm=alarm)
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
        if config.general is not None:
            if ranks.is_first:  # there is nothing that others could do meanwhile
                _begin(config, recording, folder, base, spill)
            return
        _check_fits(config, recording, first)
        for note in (*config.network.notes, *_seldom_seen(config.network.calendar, recording)):
            say(f"note: {note}")
        together = f" in {ranks.count} processes" if ranks.count > 1 else ""
        say(f"training, at most {config.training.epochs} epochs{together}")
        reaches: dict[str, Reach] = {}

        def tell_reach(when: str, reach: Reach) -> None:
            reaches[when] = reach
            for sentence in reach.sentences(config.network.kind):
                say(f"{when} training: {sentence}")

        with _progress(config.training.epochs, say, is_shown=ranks.is_first) as show:
            run, losses = train_detector(
                config,
                recording,
                name=folder.name,
                on_epoch=show,
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


def _seldom_seen(calendar: Sequence[str], recording: Recording) -> list[str]:
    """A sentence for each cycle of a calendar that the recording hardly shows."""
    longest_s = max(
        float(track.time_s[-1] - track.time_s[0]) + recording.period_s for track in recording.tracks
    )
    return [
        f'network.calendar has "{cycle}", and no stream lasts longer than '
        f"{longest_s / length_s:.2g} {cycle}s: what happened once is taken for usual at its time; "
        f"record {FEWEST_CYCLES} {cycle}s or more, or leave it out"
        for cycle, length_s in CYCLES.items()
        if cycle in calendar and longest_s < FEWEST_CYCLES * length_s
    ]


def _begin(config: Config, recording: Recording, folder: Path, base: Path, spill: Spill) -> None:
    """A detector without a network: there is nothing to train, and nothing to resume."""
    check_dated(recording, "general goes by the time of day")
    for note in apart(recording):
        click.echo(f"note: {note}")
    total = sum(len(track.time_s) for track in recording.tracks)
    said_s = time.monotonic()

    def show(samples: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s > SAID_EVERY_S:
            said_s = time.monotonic()
            click.echo(f"{samples:,} samples of about {total:,}")

    run, _ = train_detector(config, recording, name=folder.name, spill=spill, on_block=show)
    remove_findings(folder)
    save_run(folder, replace(run, config=config.seen_from(folder, base)), [])
    (folder / LOSS_PICTURE).unlink(missing_ok=True)
    assert isinstance(run.model, General)
    if unknown := ", ".join(recording.channels[c] for c in run.model.unknown):
        click.echo(f"note: {unknown} never moved: what is usual is learnt on the device")
    click.echo(f"{folder}: {run.card.network}; {_aim(run)}")
    click.echo(NEXT.format(folder=folder))


@contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """A folder that is made for a run goes again where there is none."""
    was_there = folder.exists()
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError):  # it holds something, or was never made
                folder.rmdir()


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
    plot_losses(folder / LOSS_PICTURE, losses)
    remove_checkpoint(folder)
    best = best_of(losses)
    click.echo(
        f"{folder}: {run.card.network}, epoch {best.epoch} of {len(losses)} kept "
        f"(validation loss {best.validation:.3f}); {_aim(run)}"
    )
    if best.epoch == run.config.training.epochs:
        click.echo("note: still getting better when the epochs ran out; more (--epochs) may help")
    hours = sum(len(track.time_s) for track in run.healthy.tracks) * run.card.period_s / 3600
    extrapolated = "; what a budget says of rarer alarms is extrapolated"
    is_anomaly = run.card.task == "anomaly"
    click.echo(f"calibrated on {hours:.1f} h{extrapolated if is_anomaly else ''}")
    click.echo(NEXT.format(folder=folder))


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


def _check_fits(config: Config, recording: Recording, source: Path) -> None:
    """Refuse before an epoch what does not fit the channels, by the file that says it."""
    try:
        build_model(config, recording.channels, period_s=recording.period_s, classes=("a", "b"))
    except EdgernnError as exc:
        raise EdgernnError(f"{source}: {exc}") from exc


@contextmanager
def _progress(
    epochs: int, say: Callable[[str], None], *, is_shown: bool
) -> Iterator[Callable[[EpochLoss], None]]:
    """What is told of every epoch: a bar on a terminal, else a line now and then; and after Ctrl-C
    how to go on."""
    is_terminal = is_shown and sys.stderr.isatty()
    epoch, best, said_s = 0, math.inf, time.monotonic()
    with tqdm(total=epochs, unit="epoch", disable=not is_terminal) as bar:

        def show(loss: EpochLoss) -> None:
            nonlocal epoch, best, said_s
            epoch, best = loss.epoch, min(best, loss.validation)
            bar.set_postfix_str(f"loss {loss.training:.3f}, validation {loss.validation:.3f}")
            bar.update()
            if not is_terminal and time.monotonic() - said_s > SAID_EVERY_S:
                said_s = time.monotonic()
                say(f"epoch {epoch}: validation {loss.validation:.3f}, best {best:.3f}")

        try:
            yield show
        except KeyboardInterrupt:
            bar.close()
            say(f"stopped after epoch {epoch}; the same command with --resume goes on")
            raise
