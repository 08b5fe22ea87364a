"""The run folder: what training leaves behind, and all that evaluation and export read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgernn.card import Card, decode_card, encode_card
from edgernn.config import ABOUT_NETWORKS, Config
from edgernn.errors import EdgernnError
from edgernn.nets.classifier import Classifier
from edgernn.nets.detector import Detector
from edgernn.nets.forecaster import Forecaster
from edgernn.nets.general import General
from edgernn.nets.model import Exportable, Model
from edgernn.recording import Recording, read_recording, write_recording
from edgernn.settings import read_settings, read_text

CONFIG, CARD, WEIGHTS, HEALTHY, LOSS = (
    "config.toml",
    "card.json",
    "detector.safetensors",
    "healthy.parquet",
    "loss.csv",
)


GRADIENT = "gradient.png"
"""Written with `--diagnose`."""
EVALUATION, EVALUATED = "evaluation", ("metrics.json", "report.html", "folds.json", "folds.csv")
"""Folder inside the run's with one for each recording, and the files in those."""


class EpochLoss(NamedTuple):
    """Mean negative log-likelihood of a value, or of a class."""

    epoch: int
    training: float
    validation: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Run:
    """A trained model with everything that is known of it."""

    config: Config
    card: Card
    model: Exportable
    healthy: Recording
    """The calibration stretch: samples that training never saw, healthy but for "classify"; of a
    general detector the end of what it began with."""

    @property
    def trained(self) -> Model:
        """The model, if it has a network. Raises EdgernnError if it is a general detector."""
        if not isinstance(self.model, Model):
            raise EdgernnError(f"{self.card.name}: [general] has no network that could be trained")
        return self.model

    @property
    def scorer(self) -> Exportable:
        """The model of task "anomaly". Raises EdgernnError if it has another task."""
        if self.card.task != "anomaly":
            raise EdgernnError(f'{self.card.name}: expected task "anomaly", got "{self.card.task}"')
        return self.model

    @property
    def detector(self) -> Detector:
        """The same, if it has a network."""
        scorer = self.scorer
        assert scorer is self.trained
        assert isinstance(scorer, Detector)
        return scorer


def save_run(folder: Path, run: Run, losses: list[EpochLoss]) -> None:
    """Write the folder's files; the weights as safetensors, never pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_bytes(config_toml(run.config))
    (folder / CARD).write_text(encode_card(run.card), encoding="utf-8")
    save_file(run.model.state_dict(), folder / WEIGHTS)
    write_recording(folder / HEALTHY, run.healthy)
    if not losses:  # nothing was trained
        (folder / LOSS).unlink(missing_ok=True)
        return
    lines = [",".join(EpochLoss._fields), *(",".join(f"{v:g}" for v in row) for row in losses)]
    (folder / LOSS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def remove_findings(folder: Path) -> None:
    """What was found out about the detector that a new one takes the place of; files that edgernn
    did not write stay."""
    (folder / GRADIENT).unlink(missing_ok=True)
    for one in (folder / EVALUATION).glob("*/"):
        for name in EVALUATED:
            (one / name).unlink(missing_ok=True)
        _remove_if_empty(one)
    _remove_if_empty(folder / EVALUATION)


def load_run(folder: Path) -> Run:
    """Read a run folder. Raises EdgernnError if it is none, or its parts do not fit each other."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise EdgernnError(f"{folder}: {what}, expected the folder that `edgernn train` wrote")
    for name in (CONFIG, CARD, WEIGHTS, HEALTHY):
        if not (folder / name).is_file():
            raise EdgernnError(f"{folder}: not a run folder of `edgernn train`: {name} is missing")
    config = read_settings(folder / CONFIG, Config)
    card = decode_card(read_text(folder / CARD), where=str(folder / CARD))
    model = _build(config, card)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as exc:
        detail = " ".join(str(exc).split())[:200]
        raise EdgernnError(f"{folder / WEIGHTS}: does not fit {CONFIG}: {detail}") from exc
    healthy = read_recording(folder / HEALTHY)
    if healthy.channels != card.channel_names:
        raise EdgernnError(f"{folder}: {HEALTHY} and {CARD} have different channels")
    ours = (config.task, config.warm_up + model.delay, model.states)
    if ours != (card.task, card.warm_up, card.states):
        raise EdgernnError(f"{folder}: {CONFIG} and {CARD} describe different detectors")
    return Run(config, card, model.eval(), healthy)


def _build(config: Config, card: Card) -> Exportable:
    names, period_s = card.channel_names, card.period_s
    if config.general is not None:
        return General(len(names), config.general, period_s=period_s)
    return build_model(config, names, period_s=period_s, classes=card.classes)


def build_model(
    config: Config, channels: Sequence[str], *, period_s: float, classes: Sequence[str] = ()
) -> Model:
    """An untrained model of the configuration's task, over channels of these names; `period_s`:
    between samples; `classes`: what "classify" tells apart."""
    network, seed = config.network, config.training.seed
    match config.task:
        case "classify":
            return Classifier(channels, network, classes=classes, seed=seed, period_s=period_s)
        case "forecast":
            horizon = config.forecast.horizon
            return Forecaster(channels, network, horizon=horizon, seed=seed, period_s=period_s)
    return build_detector(config, channels, period_s=period_s)


def config_toml(config: Config) -> bytes:
    """A configuration as the training file it reads back from."""
    keys = msgspec.to_builtins(config)
    if config.general is not None:
        keys = {key: value for key, value in keys.items() if key not in ABOUT_NETWORKS}
    return msgspec.toml.encode(_without_none(keys))


def build_detector(config: Config, channels: Sequence[str], *, period_s: float) -> Detector:
    """An untrained detector as the configuration asks for, over channels of these names."""
    return Detector(
        channels,
        config.network,
        config.head,
        config.adapt,
        config.levels,
        span=config.score.window,
        seed=config.training.seed,
        period_s=period_s,
    )


def pick_device(name: str) -> torch.device:
    """ "auto" → CUDA where there is one, else the CPU. Refuses "cuda" where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise EdgernnError('training.device: "cuda" was asked for, and this machine has none')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _without_none(data: object) -> object:
    """TOML has no null: a key that is None is left out, which reads back as None."""
    if isinstance(data, dict):
        return {key: _without_none(value) for key, value in data.items() if value is not None}
    if isinstance(data, list | tuple):
        return [_without_none(value) for value in data]
    return data
