"""Detectors as methods of a benchmark: trained for each series, or ready as an artefact."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edgernn.benchmark.method import Said, nothing, rising_times
from edgernn.benchmark.series import Series
from edgernn.calibration import parse_budget
from edgernn.card import AlarmRule, Binding
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track
from edgernn.settings import make_folder, read_toml, to_settings, write_atomically
from edgernn.training.begin import ALARM
from edgernn.training.begin import FEWEST_SAMPLES as FEWEST_TO_BEGIN
from edgernn.training.tails import FEWEST_SAMPLES
from edgernn.training.train import train
from edgernn_device.engine import Engine
from edgernn_device.trust import admit, read_artefact
from edgernn_export.artefact import RefusedError, build_artefact
from edgernn_export.benchmark.streamed import stream_through

SPARE_ROWS = 20
"""That may be missing from what is calibrated with."""


EXPORTS = {"int8": "", "none": "float32 weights, for with int8 ones the export is refused"}
"""Tried in turn, with what somebody who reads the figures has to know then."""
NO_EXPORT = "says nothing, for its export is refused with int8 and with float32 weights"


@dataclass(frozen=True, slots=True)
class Trained:
    """Train on what a series gives to learn from, export, stream through the device's engine."""

    name: str
    config: Config
    budget: str | None = None
    keep: Path | None = None
    """A folder for the artefacts, a file for each series."""

    @property
    def fewest_rows(self) -> int:
        """So many that enough are left to calibrate with, also where some are missing."""
        if self.config.general is not None:
            return FEWEST_TO_BEGIN
        return math.ceil((FEWEST_SAMPLES + SPARE_ROWS) / self.config.training.calibration)

    def judge(self, series: Series) -> Said:
        """A detector that cannot be begun, or exported as proven, says nothing, as its user would
        have none; the note says so, or that only float32 weights decide as it does."""
        torch.set_num_threads(self.config.training.threads)
        if self.config.general is not None:
            return self._begun(series)
        run, _ = train(self.config, learnt_recording(series), name=series.name)
        for quantization, note in EXPORTS.items():
            try:
                artefact, _ = build_artefact(run, quantization=quantization)
            except RefusedError:
                continue
            return replace(self._streamed(artefact, series), note=note)
        return self._nothing(series, run.card.alarm, note=NO_EXPORT)

    def _begun(self, series: Series) -> Said:
        """It goes on where the recording ends."""
        try:
            run, _ = train(self.config, learnt_recording(series), name=series.name)
        except EdgernnError as exc:  # nothing moves, or too much is missing
            rule = self.config.alarm.over(ALARM)
            return self._nothing(series, rule, note=f"says nothing: {exc}")
        artefact, _ = build_artefact(run, quantization="none")
        return self._streamed(artefact, series, skipped=len(series.learnable))

    def _nothing(self, series: Series, rule: AlarmRule, *, note: str) -> Said:
        asked_per_s = parse_budget(self.budget or rule.false_alarms)
        return nothing(series, threshold=1.0, asked_per_s=asked_per_s, note=note)

    def _streamed(self, artefact: bytes, series: Series, *, skipped: int = 0) -> Said:
        if self.keep is not None:
            path = self.keep / Path(series.name).with_suffix(".onnx")
            make_folder(path.parent)
            write_atomically(path, artefact)
        return stream_through(Engine(artefact), series, budget=self.budget, skipped=skipped)


@dataclass(frozen=True, slots=True)
class Ready:
    """One artefact for every series: nothing is learnt but what its graph learns by itself."""

    name: str
    path: Path
    budget: str | None = None
    fewest_rows: int = 0

    def judge(self, series: Series) -> Said:
        return stream_through(open_for(self.path, series), series, budget=self.budget)


def open_for(path: Path, series: Series) -> Engine:
    """An artefact, told of the channels and the period of the series if it takes any."""
    model = read_artefact(path)
    card = admit(model, where=str(path))
    binding = Binding(series.channels, series.period_s) if card.any_channels else None
    return Engine(model, where=str(path), binding=binding)


def learnt_recording(series: Series) -> Recording:
    """What the protocol gives to learn from, without labels."""
    x = series.learnable
    track = Track(series.name, rising_times(series)[: len(x)], x, None)
    units = ("",) * len(series.channels)
    return Recording(series.channels, units, (track,), series.period_s, ())


def read_training_file(path: Path) -> Config:
    """A training file; [[recording]] may be missing, for each series brings its own rows."""
    keys = read_toml(path)
    config = to_settings({"recording": []} | keys, Config, where=str(path))
    if config.task != "anomaly":
        raise EdgernnError(f'{path}: task: expected "anomaly", got "{config.task}"')
    return config
