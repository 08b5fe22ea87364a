"""Run → artefact: graph, weights as asked, card; nothing is returned that was not proven."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import numpy as np
import onnx

from edgernn.card import CARD_KEY, Card, encode_card
from edgernn.errors import EdgernnError
from edgernn.recording import Recording
from edgernn.run import Run
from edgernn_device.golden import GOLDEN_KEY, encode_golden, probed, record_golden
from edgernn_export.compare import TOLERANCE
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize
from edgernn_export.rounding import Moments, healthy_lanes, measure_moments, timed_lanes
from edgernn_export.verify import Proof, golden_stream, prove

SPARE = 0.5
"""Share of the tolerance: where the proof of an artefact finds more, a finer one is tried."""


class RefusedError(EdgernnError):
    """What the proof found is not to be shipped."""


@dataclass(frozen=True, slots=True)
class Source:
    """What every artefact of a run is made from."""

    run: Run
    graph: onnx.ModelProto
    """float32."""
    moments: Moments


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artefact and what the proof found; not to be shipped if that is a failure."""

    quantization: str
    artefact: bytes
    proof: Proof


def prepare(run: Run) -> Source:
    """The run's float32 graph, and what its weights are multiplied by on healthy data."""
    graph = build_graph(run.model)
    if not run.model.has_clock:
        return Source(run, graph, measure_moments(graph, healthy_lanes(run.healthy)))
    x, times_s = timed_lanes(run.healthy)
    states = [state.numpy() for state in run.model.fresh_state(len(times_s), times_s)]
    named = dict(zip((one.name for one in run.model.states), states, strict=True))
    return Source(run, graph, measure_moments(graph, x, named))


def build_candidates(source: Source, quantization: str) -> Iterator[Candidate]:
    """Artefacts of one of `QUANTIZATIONS`, proven or not, the smallest first: by "int8" all weights
    are int8, then those at the edge are int16."""
    for is_tight in (True, False) if quantization == "int8" else (False,):
        yield _build(source, quantization, is_tight=is_tight)


def build_artefact(run: Run, *, quantization: str) -> tuple[bytes, Proof]:
    """The bytes of a proven artefact, and the proof.

    `quantization` is one of `QUANTIZATIONS`. Raises RefusedError listing every deviation if the
    device's engine does not decide as the trained model does.
    """
    source = Source(run, build_graph(run.model), MappingProxyType({}))
    if quantization != "none":
        source = prepare(run)
    for candidate in build_candidates(source, quantization):
        if all(d.difference <= SPARE * d.allowed for d in candidate.proof.largest):
            break
    return accepted(candidate)


def accepted(candidate: Candidate) -> tuple[bytes, Proof]:
    """Artefact and proof. Raises RefusedError listing every deviation that was not allowed."""
    hint = "; try --quantize none" if candidate.quantization != "none" else ""
    return candidate.artefact, accepted_proof(candidate.proof, hint)


def accepted_proof(proof: Proof, hint: str = "") -> Proof:
    """The proof. Raises RefusedError, with a hint, listing every deviation that was not allowed."""
    if proof.failures:
        lines = "\n  ".join(map(str, proof.failures))
        raise RefusedError(
            "refused: the exported graph does not decide as the trained model does; no file written"
            f"{hint}\n  {lines}"
        )
    return proof


def _build(source: Source, quantization: str, *, is_tight: bool) -> Candidate:
    run = source.run
    model = quantize(source.graph, quantization, is_tight=is_tight, moments=source.moments)
    tolerance = TOLERANCE[run.card.task][quantization]
    card = msgspec.structs.replace(run.card, quantization=quantization, tolerance=tolerance)
    artefact = with_golden(with_card(model, card), run.healthy)
    return Candidate(quantization, artefact, prove(artefact, run, quantization=quantization))


def with_golden(artefact: bytes, healthy: Recording) -> bytes:
    """The same artefact with golden vectors: what the engine says here of a few."""
    golden = record_golden(probed(artefact), golden_stream(healthy))
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
    stamped.metadata_props.add(key=CARD_KEY, value=encode_card(with_short_numbers(card)))
    content: bytes = stamped.SerializeToString(deterministic=True)
    return content


def with_short_numbers(card: Card) -> Card:
    """The card with measured numbers at the precision that the graph has them in: float32."""
    channels = tuple(
        msgspec.structs.replace(one, low=_short(one.low), high=_short(one.high))
        for one in card.channels
    )
    tails = tuple(
        msgspec.structs.replace(
            tail,
            knots=tuple(map(_short, tail.knots)),
            scores=tuple(map(_short, tail.scores)),
            shape=_short(tail.shape),
            scale=_short(tail.scale),
            extremal_index=_short(tail.extremal_index),
        )
        for tail in card.tails
    )
    return msgspec.structs.replace(card, channels=channels, tails=tails)


def _short(value: float) -> float:
    """The shortest decimal number that is the same float32."""
    return float(str(np.float32(value)))
