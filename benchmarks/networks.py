"""Every kind of network and head on the same data: the table of docs/networks.md.

    python -m benchmarks.networks -o build/networks

Trains each on the simulated pump and on SKAB (skipped where its files are absent), with the same
defaults, nothing tuned. A row takes a minute or two; those that are in the folder are kept, so it
can be stopped and started again. Artefacts are made from the runs that the folder keeps, and steps
timed side by side, at the end. Labels are read where quality is measured, nowhere else.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import interleaved, table
from edgernn.alarm import Limits
from edgernn.config import Config, RecordingConfig, ScoreConfig, TrainingConfig
from edgernn.evaluation.evaluate import score_recording
from edgernn.evaluation.metrics import Metrics, measure
from edgernn.layout import Columns
from edgernn.nets import HeadConfig, NetworkConfig
from edgernn.recording import Recording, Track, read_recording
from edgernn.run import EpochLoss, Run, load_run, save_run
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train
from edgernn_device.engine import Engine
from edgernn_export.artefact import build_artefact

Floats = NDArray[np.float32]

DATA = Path(os.environ.get("EDGERNN_DATA", Path(__file__).parents[2] / "shared" / "data"))
HEALTHY_HOURS, FAULTY_HOURS = 6.0, 4.0
FAULTS = ("cavitation@40m+10m", "stuck:pressure@80m+10m", "leak@120m+10m", "bearing@160m+60m")
SKAB_FITTED = 400
"""Rows at the start of every file; SKAB's protocol: fit on these, score the rest."""
EPOCHS = 60
"""At most; early stopping usually ends sooner."""
ROUNDS = 9

GRU = NetworkConfig()
KINDS: Mapping[str, tuple[NetworkConfig, HeadConfig, ScoreConfig]] = {
    name: (network, head, score)
    for name, network, head, score in (
        ("rnn, tanh", NetworkConfig(kind="rnn"), HeadConfig(), ScoreConfig()),
        (
            "rnn, ReLU",
            NetworkConfig(kind="rnn", activation="relu"),
            HeadConfig(),
            ScoreConfig(),
        ),
        ("lstm", NetworkConfig(kind="lstm"), HeadConfig(), ScoreConfig()),
        ("gru", GRU, HeadConfig(), ScoreConfig()),
        (
            "gru, 2 layers, residual",
            NetworkConfig(layers=2, dropout=0.1, residual=True),
            HeadConfig(),
            ScoreConfig(),
        ),
        ("gru, 2 branches", GRU, HeadConfig(), ScoreConfig()),  # named by each data set's channels
        ("conv 5 → gru", NetworkConfig(conv=5), HeadConfig(), ScoreConfig()),
        ("gru → attention 32", NetworkConfig(attention=32), HeadConfig(), ScoreConfig()),
        (
            "gru, bidirectional 16",
            NetworkConfig(direction="bidirectional", look_ahead=16),
            HeadConfig(),
            ScoreConfig(),
        ),
        ("tcn, 4 blocks", NetworkConfig(kind="tcn", layers=4), HeadConfig(), ScoreConfig()),
        ("fastgrnn", NetworkConfig(kind="fastgrnn"), HeadConfig(), ScoreConfig()),
        ("fastgrnn, rank 8", NetworkConfig(kind="fastgrnn", rank=8), HeadConfig(), ScoreConfig()),
        ("mingru, 2 layers", NetworkConfig(kind="mingru", layers=2), HeadConfig(), ScoreConfig()),
        ("gru: reconstruct", GRU, HeadConfig(kinds=("reconstruct",)), ScoreConfig()),
        ("gru: encoder-decoder", GRU, HeadConfig(kinds=("encoder-decoder",)), ScoreConfig()),
        (
            "gru: forecast + reconstruct",
            GRU,
            HeadConfig(kinds=("forecast", "reconstruct")),
            ScoreConfig(),
        ),
        ("gru, whitened", GRU, HeadConfig(), ScoreConfig(relation="whitened")),
    )
}
"""Row of the table → what is asked for; everything else is the default."""
BRANCHES = {
    "pump": (("vibration", "current", "speed"), ("pressure", "flow", "temperature")),
    "skab": (
        ("Accelerometer1RMS", "Accelerometer2RMS", "Current", "Voltage"),
        ("Pressure", "Temperature", "Thermocouple", "Volume Flow RateRMS"),
    ),
}


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Of one detector on one data set."""

    auc_pr: float
    f1: float
    """Over rows, at the budget's threshold."""
    false_alarm_rate: float
    found: int
    faults: int
    false_alarms: int
    epochs: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one line of the table; the rest is in its run folder."""

    quality: dict[str, Quality | None]
    """Data set → quality; None where its files are absent."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Every network and head on the same data.")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/networks"))
    parser.add_argument("--only", choices=list(KINDS), help="One row.")
    said = parser.parse_args()
    torch.set_num_threads(1)
    said.output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Row] = {}
    runs: dict[str, Run] = {}
    for name in [said.only] if said.only else KINDS:
        path = said.output / (re.sub(r"\W+", "-", name) + ".json")
        if not path.exists():
            path.write_bytes(msgspec.json.encode(measure_row(name, path.with_suffix(""))))
        rows[name] = msgspec.json.decode(path.read_bytes(), type=Row)
        runs[name] = load_run(path.with_suffix(""))
    print(report(rows, runs))


def measure_row(name: str, folder: Path) -> Row:
    """Train on each data set and score; the pump's run goes into the folder."""
    run, losses, on_pump = _on_pump(_config(name, "pump", ()))
    save_run(folder, run, losses)
    return Row(quality={"pump": on_pump, "skab": _on_skab(name)})


def step_times_s(artefacts: Mapping[str, bytes], size: int) -> dict[str, float]:
    """Name → seconds of a step of `size` streams by `size` samples of the healthy pump."""
    x = simulate_pump(hours=1, seed=1).tracks[0].x
    block = np.resize(x, (size, size, x.shape[1]))
    steps = {name: _step(Engine(artefact), block) for name, artefact in artefacts.items()}
    return interleaved(steps, rounds=ROUNDS)


def _on_pump(config: Config) -> tuple[Run, list[EpochLoss], Quality]:
    healthy = simulate_pump(hours=HEALTHY_HOURS, seed=0)
    faulty = simulate_pump(
        hours=FAULTY_HOURS, seed=100, faults=[parse_fault(text) for text in FAULTS]
    )
    run, losses = train(config, healthy, name="pump")
    return run, losses, _quality(run, faulty, budget="1/week", epochs=len(losses))


def _on_skab(name: str) -> Quality | None:
    folder = DATA / "skab"
    if not folder.is_dir():
        return None
    files = sorted((folder / "valve1").glob("*.csv"))
    recordings = (
        RecordingConfig(path=str((folder / "anomaly-free/anomaly-free.csv").resolve())),
        RecordingConfig(path=str((folder / "valve1").resolve() / "*.csv"), first_rows=SKAB_FITTED),
    )
    config = _config(name, "skab", recordings)
    run, losses = train(config, read_recordings(config, Path()), name="skab")
    tracks = []
    for path in files:
        (track,) = read_recording(path, columns=Columns(ignore=("changepoint",))).tracks
        assert track.label is not None
        label = track.label.copy()
        label[:SKAB_FITTED] = ""  # there is none in them; they warm the detector up
        tracks.append(Track(path.stem, track.time_s, track.x, label))
    first = read_recording(files[0], columns=Columns(ignore=("changepoint",)))
    together = Recording(first.channels, first.units, tuple(tracks), first.period_s, ())
    return _quality(run, together, budget="1/hour", epochs=len(losses), skip=SKAB_FITTED)


def _quality(run: Run, recording: Recording, *, budget: str, epochs: int, skip: int = 0) -> Quality:
    rule = msgspec.structs.replace(run.card.alarm, false_alarms=budget)
    scored = score_recording(run.detector, run.card, recording, Limits.from_rule(rule, run.card))
    for one in scored:
        one.score[:skip] = np.nan
    said: Metrics = measure(scored, aftermath_s=run.card.warm_up * run.card.period_s)
    numbers = (said.auc_pr, said.f1, said.false_alarm_rate)
    assert None not in numbers
    auc_pr, f1, rate = (float(number or 0) for number in numbers)
    return Quality(
        auc_pr=auc_pr,
        f1=f1,
        false_alarm_rate=rate,
        found=said.faults_found or 0,
        faults=said.faults_total or 0,
        false_alarms=said.false_alarms or 0,
        epochs=epochs,
    )


def _config(name: str, data: str, recordings: tuple[RecordingConfig, ...]) -> Config:
    network, head, score = KINDS[name]
    if "branches" in name:
        network = msgspec.structs.replace(network, hidden=16, branches=BRANCHES[data])
    return Config(
        recording=recordings,
        network=network,
        head=head,
        score=score,
        training=TrainingConfig(epochs=EPOCHS, device="cpu"),
    )


def _step(
    engine: Engine, x: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> Callable[[], object]:
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    return lambda: engine.run(rows, x)


def report(rows: Mapping[str, Row], runs: Mapping[str, Run]) -> str:
    """The table, in Markdown; every artefact in it is proven."""
    artefacts = {name: build_artefact(run, quantization="int8")[0] for name, run in runs.items()}
    step, batch = (step_times_s(artefacts, size) for size in (1, 64))
    lines = []
    for name, row in rows.items():
        pump, skab = row.quality["pump"], row.quality["skab"]
        assert pump is not None
        cells = [
            name,
            f"{sum(p.numel() for p in runs[name].model.parameters()):,}",
            f"{len(artefacts[name]):,}",
            f"{1e6 * step[name]:,.0f}",
            f"{1e6 * batch[name] / 64**2:.2f}",
            f"{runs[name].card.delay}",
            f"{pump.auc_pr:.3f}",
            f"{pump.found} of {pump.faults}, {pump.false_alarms} false",
        ]
        cells += (
            ["–", "–"]
            if skab is None
            else [f"{skab.auc_pr:.3f}", f"{skab.f1:.2f} at {skab.false_alarm_rate:.1%}"]
        )
        lines.append(cells)
    titles = [
        "network",
        "parameters",
        "bytes",
        "step, µs",
        "in batches, µs",
        "late by",
        "pump: AUC-PR",
        "pump: faults, 1/week",
        "SKAB: AUC-PR",
        "SKAB: F1 at FAR, 1/hour",
    ]
    return table(titles, lines)


if __name__ == "__main__":
    main()
