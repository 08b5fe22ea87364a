"""Run → artefact: graph, weights as asked, card; nothing is returned that was not proven."""

import msgspec
import onnx

from edgernn.card import CARD_KEY, Card, encode_card
from edgernn.errors import EdgernnError
from edgernn.recording import Recording
from edgernn.run import Run
from edgernn_device.engine import Engine
from edgernn_device.golden import GOLDEN_KEY, encode_golden, record_golden
from edgernn_export.compare import TOLERANCE
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize_int8
from edgernn_export.verify import Proof, golden_stream, prove

QUANTIZATIONS = ("none", "int8")


def build_artefact(run: Run, *, quantization: str) -> tuple[bytes, Proof]:
    """The bytes of a proven artefact, and the proof.

    `quantization` is one of `QUANTIZATIONS`. Raises EdgernnError listing every deviation if the
    device's engine does not decide as the trained model does.
    """
    model = build_graph(run.model)
    if quantization == "int8":
        model = quantize_int8(model)
    card = msgspec.structs.replace(
        run.card, quantization=quantization, tolerance=TOLERANCE[run.card.task][quantization]
    )
    artefact = with_golden(with_card(model, card), run.healthy)
    proof = prove(artefact, run, quantization=quantization)
    if proof.failures:
        lines = "\n  ".join(map(str, proof.failures))
        raise EdgernnError(
            "refused: the exported graph does not decide as the trained model does; no file written"
            f"{'; try --quantize none' if quantization != 'none' else ''}\n  {lines}"
        )
    return artefact, proof


def with_golden(artefact: bytes, healthy: Recording) -> bytes:
    """The same artefact with golden vectors: what the engine says here of a few."""
    golden = record_golden(Engine(artefact), golden_stream(healthy))
    model = onnx.load_from_string(artefact)
    notes = list(model.metadata_props)
    del model.metadata_props[:]
    model.metadata_props.add(key=GOLDEN_KEY, value=encode_golden(golden))
    model.metadata_props.extend(notes)  # the card ends the file: cut off anywhere, it has none
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def with_card(model: onnx.ModelProto, card: Card) -> bytes:
    """The model's bytes with this card in its metadata, and no other."""
    stamped = onnx.ModelProto()
    stamped.CopyFrom(model)
    del stamped.metadata_props[:]
    stamped.metadata_props.add(key=CARD_KEY, value=encode_card(card))
    content: bytes = stamped.SerializeToString(deterministic=True)
    return content
