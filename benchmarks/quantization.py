"""Every kind of network by every way to store its weights: size, time, and what scores lose.

Alone: `python -m benchmarks.quantization`
"""

import msgspec
import onnx

from benchmarks.measure import pump, table
from edgernn.config import Config, TrainingConfig
from edgernn.nets import NETWORKS, NetworkConfig
from edgernn.training.train import train
from edgernn_export.artefact import prepare, with_card
from edgernn_export.latency import measure_latency
from edgernn_export.quality import examine, set_exam
from edgernn_export.quantize import computes_in_integers, quantize, stored_as
from edgernn_export.vocabulary import QUANTIZATIONS

HIDDEN = 64
EPOCHS = 4
"""Enough for scores that mean something; docs/quantization.md has detectors trained to the end."""


def main() -> None:
    """Print the table."""
    print("## Quantisation: every kind of network by every mode\n")
    print(
        f"H = {HIDDEN}, the simulated pump (6 channels), {EPOCHS} epochs. Bytes without golden "
        "vectors. Difference: the largest of a score up to the critical level, over the healthy "
        "stretch and the proof's disturbed streams; flips: alarms gained and lost there. One "
        "thread.\n"
    )
    titles = ["network", "mode", "bytes", "of float32", "weights", "computes in"]
    figures = ["µs, N=1", "µs, N=1024", "difference", "flips"]
    print(table([*titles, *figures], [row for kind in NETWORKS for row in _rows(kind)]))


def _rows(kind: str) -> list[list[str]]:
    config = Config(
        recording=(),
        network=NetworkConfig(kind=kind, hidden=HIDDEN),
        training=TrainingConfig(epochs=EPOCHS, device="cpu"),
    )
    run, _ = train(config, pump(), name=kind)
    source, exam = prepare(run), set_exam(run, None)
    artefacts = {}
    for mode in QUANTIZATIONS:
        model = quantize(source.graph, mode, moments=source.moments)
        card = msgspec.structs.replace(run.card, quantization=mode)
        artefacts[mode] = with_card(model, card)
    latencies = measure_latency(artefacts, run.healthy.tracks[0].x)
    rows = []
    for mode, artefact in artefacts.items():
        model = onnx.load_from_string(artefact)
        quality = examine(exam, artefact, sample_by_sample=mode == "int8-dynamic")
        rows.append(
            [
                kind,
                mode,
                f"{len(artefact):,}",
                f"{len(artefact) / len(artefacts['none']):.2f}",
                " + ".join(sorted(stored_as(model))),
                ", ".join(computes_in_integers(model)) or "float32",
                f"{latencies[mode].us_1:,.0f}",
                f"{latencies[mode].us_1024:,.0f}",
                f"{quality.difference:.2g}",
                f"{(quality.gained or 0) + (quality.lost or 0)}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
