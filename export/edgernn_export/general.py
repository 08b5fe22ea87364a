"""The artefact that needs no training: its graph for any channels, proven, as `make pretrained`
writes it into the device's package. Nothing in it was fitted to data, so there is none to ship."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgernn import __version__
from edgernn.card import CARD_VERSION, MOST_CHANNELS, Card, Provenance
from edgernn.nets.general import General
from edgernn.nets.levels import UNGUARDED
from edgernn.recording import Recording, Track
from edgernn.settings import write_atomically
from edgernn.training.begin import ALARM, ITS_OWN_SCORE
from edgernn.training.stretches import BRIDGED_IN_USE
from edgernn_device.golden import PROBE
from edgernn_device.shipped import GENERAL, GENERAL_FILE
from edgernn_export.artefact import accepted_proof, with_card, with_golden
from edgernn_export.compare import TOLERANCE
from edgernn_export.graph import build_graph
from edgernn_export.verify import Proof, prove

WARM_UP = int(UNGUARDED)
"""Samples: as long as all that comes is learnt alike."""


@dataclass(frozen=True, slots=True)
class Untrained:
    """What the artefact is proven against."""

    card: Card
    model: General
    healthy: Recording


def build_general() -> bytes:
    """The bytes of the artefact, not proven yet."""
    model = _model()
    return with_golden(with_card(build_graph(model), general_card(model)), waves())


def prove_general(artefact: bytes) -> Proof:
    """Raises EdgernnError if the device's engine does not decide as the torch module does."""
    model = _model()
    card = general_card(model).bound(PROBE, where=GENERAL)
    proof = prove(artefact, Untrained(card, model, waves()), quantization="none")
    accepted_proof(proof)
    return proof


def _model() -> General:
    return General(len(PROBE.channels), period_s=PROBE.period_s, is_open=True).eval()


def general_card(model: General) -> Card:
    """Times in it are in periods."""
    return Card(
        version=CARD_VERSION,
        name=GENERAL,
        task="anomaly",
        network=f"any channels → {model.config}",
        channels=(),
        period_s=1.0,
        max_gap_s=float(BRIDGED_IN_USE),
        warm_up=WARM_UP,
        delay=0,
        classes=(),
        horizon=0,
        states=model.states,
        tails=(ITS_OWN_SCORE,),
        alarm=ALARM,
        quantization="none",
        tolerance=TOLERANCE["anomaly"]["none"],
        # nothing of the machine, the day or torch: the same code gives the same bytes
        provenance=Provenance(__version__, "", "", 0, "", ""),
        any_channels=MOST_CHANNELS,
    )


def waves(samples: int = 4000) -> Recording:
    """Slow waves with noise, to prove with: what a healthy stream may look like."""
    generator = np.random.default_rng(0)
    t = np.arange(samples)[:, None] / np.array([90.0, 47.0, 230.0])
    x = np.sin(2 * np.pi * t) + 0.3 * generator.standard_normal((samples, len(PROBE.channels)))
    track = Track("proof", np.arange(samples, dtype=np.float64), x.astype(np.float32), None)
    return Recording(PROBE.channels, ("", "", ""), (track,), PROBE.period_s, ())


def main(file: Path) -> None:
    torch.set_num_threads(1)
    artefact = build_general()
    proof = prove_general(artefact)
    write_atomically(file, artefact)
    sys.stdout.write(f"{file}: {len(artefact):,} bytes, proven over {proof.samples:,} samples\n")
    sys.stdout.writelines(f"  {one}\n" for one in proof.largest if one.what == "score")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GENERAL_FILE)
