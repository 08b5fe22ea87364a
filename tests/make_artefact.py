"""A small trained artefact and recordings for it: `python tests/make_artefact.py FOLDER`.

The device's tests use them; they run where nothing can be trained.
"""

import sys
from pathlib import Path

from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.nets import NetworkConfig
from edgernn.recording import write_recording
from edgernn.run import Run
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.train import train
from edgernn_export.artefact import build_artefact

ARTEFACT, HEALTHY, FAULTY = "pump.onnx", "healthy.csv", "faulty.csv"


def small_run() -> Run:
    """A pump's detector, trained for some seconds: good enough to find a leak.

    After so few epochs its forecasts are wide, and integer weights move a score by 0.2 at most: the
    proof passed with any of five learning rates within 1 %, as other processors would differ.
    """
    config = Config(
        recording=(RecordingConfig(path="healthy.csv"),),
        network=NetworkConfig(hidden=16),
        training=TrainingConfig(epochs=6, streams=16, chunk=32, learning_rate=0.01, device="cpu"),
    )
    return train(config, simulate_pump(hours=3, seed=1), name="pump")[0]


def write_all(folder: Path, run: Run) -> None:
    """The artefact, half an hour of a healthy pump, and half an hour with a leak."""
    folder.mkdir(parents=True, exist_ok=True)
    artefact, _ = build_artefact(run, quantization="int8")
    (folder / ARTEFACT).write_bytes(artefact)
    faults = [parse_fault("leak@15m")]
    write_recording(folder / HEALTHY, simulate_pump(hours=0.5, seed=2, stream="healthy"))
    write_recording(
        folder / FAULTY, simulate_pump(hours=0.5, seed=3, faults=faults, stream="faulty")
    )


if __name__ == "__main__":
    write_all(Path(sys.argv[1]), small_run())
