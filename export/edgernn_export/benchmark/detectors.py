"""Detectors as methods of a benchmark: trained for each series, or ready as an artefact."""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch

from edgernn.benchmark.method import Said, rising_times
from edgernn.benchmark.series import Series
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track
from edgernn.settings import make_folder, read_text, to_settings, write_atomically
from edgernn.training.tails import FEWEST_SAMPLES
from edgernn.training.train import train
from edgernn_device.engine import Engine
from edgernn_export.artefact import build_artefact
from edgernn_export.benchmark.streamed import stream_through


@dataclass(frozen=True, slots=True)
class Trained:
    """Train on what a series gives to learn from, export, stream through the device's engine."""

    name: str
    config: Config
    budget: str | None = None
    quantization: str = "int8"
    keep: Path | None = None
    """A folder for the artefacts, a file for each series."""

    @property
    def fewest_rows(self) -> int:
        """So many that enough are left to calibrate with."""
        return math.ceil(FEWEST_SAMPLES / self.config.training.calibration)

    def judge(self, series: Series) -> Said:
        artefact = self._artefact(series)
        if self.keep is not None:
            path = self.keep / Path(series.name).with_suffix(".onnx")
            make_folder(path.parent)
            write_atomically(path, artefact)
        return stream_through(Engine(artefact), series, budget=self.budget)

    def _artefact(self, series: Series) -> bytes:
        torch.set_num_threads(self.config.training.threads)
        run, _ = train(self.config, learnt_recording(series), name=series.name)
        artefact, _ = build_artefact(run, quantization=self.quantization)
        return artefact


@dataclass(frozen=True, slots=True)
class Ready:
    """One artefact for every series: nothing is learnt but what its graph learns by itself."""

    name: str
    path: Path
    budget: str | None = None
    fewest_rows: int = 0

    def judge(self, series: Series) -> Said:
        return stream_through(Engine.load(self.path), series, budget=self.budget)


def learnt_recording(series: Series) -> Recording:
    """What the protocol gives to learn from, without labels."""
    x = series.learnable
    track = Track(series.name, rising_times(series)[: len(x)], x, None)
    units = ("",) * len(series.channels)
    return Recording(series.channels, units, (track,), series.period_s, ())


def read_training_file(path: Path) -> Config:
    """A training file; [[recording]] may be missing, for each series brings its own rows."""
    try:
        keys = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as exc:
        raise EdgernnError(f"{path}: not valid TOML: {exc}") from exc
    config = to_settings({"recording": []} | keys, Config, where=str(path))
    if config.task != "anomaly":
        raise EdgernnError(f'{path}: task: expected "anomaly", got "{config.task}"')
    return config
