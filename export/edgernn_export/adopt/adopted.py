"""A stateful foreign graph and a healthy recording → an artefact that the agent runs, proven."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, version_converter

from edgernn import __version__
from edgernn.card import CARD_VERSION, AlarmRule, Card, Provenance, State, Tail
from edgernn.config import Config, RecordingConfig
from edgernn.errors import EdgernnError
from edgernn.recording import Track
from edgernn.run import Run
from edgernn.training.tails import FEWEST_SAMPLES
from edgernn.training.train import calibrate
from edgernn_device.engine import Engine
from edgernn_export.adopt.healthy import Healthy, Scaling, fill
from edgernn_export.adopt.judged import SMALLEST_SPREAD, Judged
from edgernn_export.adopt.proof import Streamed, open_session, relative, runs
from edgernn_export.adopt.recurrent import RECURRENT
from edgernn_export.adopt.walk import Stateful
from edgernn_export.adopt.wrap import forecasting, scoring
from edgernn_export.adopt.writer import FLOAT
from edgernn_export.artefact import with_card, with_golden
from edgernn_export.compare import TOLERANCE, Outputs, compare
from edgernn_export.graph import OPSET, build_graph
from edgernn_export.verify import proof_stream
from edgernn_export.vocabulary import WARM_UP

Floats = NDArray[np.float32]

PROOF_SAMPLES = 1500
PROOF_STREAMS = 4
BLOCK = 4096
"""Samples that run through the foreign graph at a time."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign model with what its owner says of it."""

    name: str
    stateful: Stateful
    scaling: Scaling | None
    digest: str
    """SHA-256 of the file, and of what was said of it."""
    where: str

    def seen(self, x: Floats, centre: Floats) -> Floats:
        """x (T, …, C) in sensor units → as the model sees it."""
        filled = fill(x, centre)
        return filled if self.scaling is None else (filled - self.scaling.mean) / self.scaling.std

    def told(self, x: Floats, centre: Floats, shape: Sequence[int]) -> Floats:
        """x (T, N, C) from fresh states → what is told (T, N, *shape), both in sensor units."""
        model = self.stateful.model.SerializeToString()
        streamed = Streamed(open_session(model, self.where), self.stateful)
        blocks = [min(BLOCK, len(x) - start) for start in range(0, len(x), BLOCK)]
        (said,) = streamed.run(self.seen(x, centre), blocks).values()
        said = said.reshape(*x.shape[:2], *shape)
        return said if self.scaling is None else said * self.scaling.std + self.scaling.mean


def only_output(stateful: Stateful, *, where: str) -> tuple[int, ...]:
    """The shape of what is told of a sample. Raises EdgernnError if there are several outputs."""
    if len(stateful.outputs) != 1:
        names = ", ".join(output.name for output in stateful.outputs)
        raise EdgernnError(f"{where}: expected one output beside the states, got {names}")
    said = stateful.model.graph.output[0]
    if (kind := said.type.tensor_type.elem_type) != FLOAT:
        raise EdgernnError(
            f"{where}: output {said.name!r}: expected float32, got "
            f"{helper.tensor_dtype_to_string(kind).removeprefix('TensorProto.')}"
        )
    return stateful.outputs[0].shape


def adopt_score(
    foreign: Foreign, healthy: Healthy, *, predicts: str, warm_up: int, false_alarms: str | None
) -> tuple[bytes, tuple[str, ...]]:
    """An artefact of task "anomaly": what the model says of each channel, judged and calibrated as
    a detector's own forecasts are. Returns its bytes, and what was proven, in sentences."""
    channels = healthy.recording.channels
    shape = only_output(foreign.stateful, where=foreign.where)
    if shape not in ((len(channels),), (1, len(channels))):
        raise EdgernnError(
            f"{foreign.where}: output {foreign.stateful.outputs[0].name!r}: expected "
            f"{len(channels)} values a sample, one for each channel, got the shape {list(shape)}"
        )
    judged = Judged(channels, predicts=predicts, span=WARM_UP)
    judged.centre = torch.from_numpy(healthy.centre)
    judged.scale = torch.from_numpy(healthy.spread)
    pieces = [
        Track(p.stream, p.time_s, _side_by_side(foreign, healthy, p.x[:, None])[:, 0], None)
        for p in healthy.pieces
    ]
    _set_spread(judged, pieces, warm_up)
    tails = calibrate(judged, pieces, warm_up=warm_up)
    judged.eval()
    graph = build_graph(judged, inputs=2 * len(channels))
    if (opset := foreign.stateful.model.opset_import[0].version) > OPSET:
        graph = version_converter.convert_version(graph, opset)
    model, states = scoring(foreign.stateful, healthy.centre, foreign.scaling, graph, judged.states)
    alarm = AlarmRule.for_period(healthy.recording.period_s)
    if false_alarms is not None:
        alarm = msgspec.structs.replace(alarm, false_alarms=false_alarms)
    card = _card(foreign, healthy, "anomaly", states, warm_up=warm_up, tails=tails, alarm=alarm)
    artefact = with_golden(with_card(model, card), healthy.recording)
    return artefact, _prove_scores(artefact, foreign, healthy, judged, card)


def adopt_forecast(
    foreign: Foreign, healthy: Healthy, *, horizon: int, warm_up: int
) -> tuple[bytes, tuple[str, ...]]:
    """An artefact of task "forecast". The model says no spread: it is that of its errors on the
    recording, for each step and channel. Returns its bytes, and what was proven, in sentences."""
    channels = len(healthy.recording.channels)
    shape = only_output(foreign.stateful, where=foreign.where)
    if int(np.prod(shape)) != horizon * channels or shape[-1] not in (channels, horizon * channels):
        raise EdgernnError(
            f"{foreign.where}: output {foreign.stateful.outputs[0].name!r}: expected "
            f"{horizon} × {channels} values a sample, for --horizon {horizon} and each channel, "
            f"got the shape {list(shape)}"
        )
    spread = _errors(foreign, healthy, horizon, warm_up)
    model, states = forecasting(foreign.stateful, healthy.centre, foreign.scaling, spread)
    card = _card(foreign, healthy, "forecast", states, warm_up=warm_up, horizon=horizon)
    artefact = with_golden(with_card(model, card), healthy.recording)
    return artefact, _prove_forecasts(artefact, foreign, healthy, spread)


def _side_by_side(foreign: Foreign, healthy: Healthy, x: Floats) -> Floats:
    """x (T, N, C) with what is told beside it, (T, N, 2·C), as `Judged` takes it."""
    told = foreign.told(x, healthy.centre, x.shape[2:])
    return np.concatenate([x, told], axis=-1).astype(np.float32)


@torch.no_grad()
def _set_spread(judged: Judged, pieces: Sequence[Track], warm_up: int) -> None:
    """Spreads near what is seen; `calibrate` has the last word, within a factor of ten."""
    parts = []
    for piece in pieces:
        x = torch.from_numpy(piece.x).unsqueeze(1)
        parts.append(judged.residuals(x, *judged.fresh_state(1))[0][warm_up:, 0, 0].numpy())
    r = np.concatenate(parts)  # (·, C)
    seen = int(np.isfinite(r).sum(axis=0).min())
    if seen < FEWEST_SAMPLES:
        raise EdgernnError(
            f"calibration: {seen} healthy samples of a channel, at least "
            f"{FEWEST_SAMPLES} are needed; record longer"
        )
    spread = np.sqrt(np.nanmean(np.clip(r, -100, 100) ** 2, axis=0, dtype=np.float64))
    spread = np.clip(spread, SMALLEST_SPREAD, None)
    (head,) = judged.heads
    head.read_out.widen(torch.from_numpy(spread).float())


def _errors(foreign: Foreign, healthy: Healthy, horizon: int, warm_up: int) -> Floats:
    """(H, C) root mean square of (sample − forecast) in sensor units, where there is a sample."""
    channels = len(healthy.centre)
    squares, count = np.zeros((horizon, channels)), np.zeros((horizon, channels), np.int64)
    for piece in healthy.pieces:
        told = foreign.told(piece.x[:, None], healthy.centre, (horizon, channels))[:, 0]
        for h in range(1, horizon + 1):
            error = (piece.x[warm_up + h :] - told[warm_up:-h, h - 1]).astype(np.float64)
            squares[h - 1] += np.nansum(error**2, axis=0)
            count[h - 1] += np.isfinite(error).sum(axis=0)
    if count.min() < FEWEST_SAMPLES:
        raise EdgernnError(
            f"the recording is too short: {count.min()} samples to measure a forecast's errors "
            f"with, at least {FEWEST_SAMPLES} are needed; record longer"
        )
    spread: Floats = np.sqrt(squares / count).astype(np.float32)
    smallest: Floats = SMALLEST_SPREAD * healthy.spread
    return np.maximum(spread, smallest)


def _card(
    foreign: Foreign,
    healthy: Healthy,
    task: str,
    states: tuple[State, ...],
    *,
    warm_up: int,
    horizon: int = 0,
    tails: tuple[Tail, ...] = (),
    alarm: AlarmRule | None = None,
) -> Card:
    data = hashlib.sha256()
    for piece in healthy.pieces:
        data.update(np.ascontiguousarray(piece.x).data)
    return Card(
        version=CARD_VERSION,
        name=foreign.name,
        task=task,
        network=_describe(foreign.stateful),
        channels=healthy.channels,
        period_s=healthy.recording.period_s,
        max_gap_s=healthy.max_gap_s,
        warm_up=warm_up,
        delay=0,
        classes=(),
        horizon=horizon,
        states=states,
        tails=tails,
        alarm=alarm or AlarmRule.for_period(healthy.recording.period_s),
        quantization="none",
        tolerance=TOLERANCE[task]["none"],
        provenance=Provenance(
            edgernn=__version__,
            torch=str(torch.__version__),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=0,
            data_hash=data.hexdigest(),
            config_hash=foreign.digest,
        ),
    )


def _describe(stateful: Stateful) -> str:
    """Such as "6 → lstm 32 → lstm 32, adopted"."""
    layers = [
        f"{node.op_type.lower()} {a.i}"
        for node in stateful.model.graph.node
        if node.op_type in RECURRENT
        for a in node.attribute
        if a.name == "hidden_size"
    ]
    return f"{' → '.join([str(stateful.channels), *layers])}, adopted"


def _prove_scores(
    artefact: bytes, foreign: Foreign, healthy: Healthy, judged: Judged, card: Card
) -> tuple[str, ...]:
    """The device's engine beside the judge in torch, fed by the foreign graph in one go."""
    x = _proof_stream(healthy)
    both = torch.from_numpy(_side_by_side(foreign, healthy, x))
    with torch.no_grad():
        said = judged(both, *judged.fresh_state(x.shape[1]))[: len(judged.outputs)]
    config = Config(recording=(RecordingConfig(path=foreign.where),))
    run = Run(config, card, judged, healthy.recording)
    deviations = []
    for name, streams, chunks in runs(x):
        got = _engine(artefact, x[:, :streams], chunks)
        true = {
            output: one.numpy()[:, :streams]
            for output, one in zip(judged.outputs, said, strict=True)
        }
        deviations += compare(name, run, Outputs(true, {}), Outputs(got, {}), "none")
    _refuse([str(d) for d in deviations if not d.difference <= d.allowed], foreign.where)
    return tuple(str(d) for d in deviations if d.what == "score")


def _prove_forecasts(
    artefact: bytes, foreign: Foreign, healthy: Healthy, spread: Floats
) -> tuple[str, ...]:
    """The device's engine beside the foreign graph in one go, in standard deviations."""
    x = _proof_stream(healthy)
    true = foreign.told(x, healthy.centre, spread.shape) / healthy.spread
    allowed = TOLERANCE["forecast"]["none"]
    said, wrong = [], []
    for name, streams, chunks in runs(x):
        got = _engine(artefact, x[:, :streams], chunks)
        difference = relative(true[:, :streams], got["forecast"] / healthy.spread)
        sentence = f"{name}: forecast differs by {difference:.3g} of its range"
        said.append(f"{sentence}, allowed {allowed:g}")
        if not difference <= allowed:
            wrong.append(said[-1])
        if not np.array_equal(got["spread"], np.broadcast_to(spread, got["spread"].shape)):
            wrong.append(f"{name}: spread differs")
    _refuse(wrong, foreign.where)
    return tuple(said)


def _refuse(deviations: Sequence[str], where: str) -> None:
    if deviations:
        lines = "\n  ".join(deviations)
        raise EdgernnError(
            f"{where}: refused: the engine does not say what the parts say; no file written\n"
            f"  {lines}"
        )


def _proof_stream(healthy: Healthy) -> Floats:
    """(T, N, C) with values missing, frozen, shifted and wild."""
    return proof_stream(healthy.recording, streams=PROOF_STREAMS, samples=PROOF_SAMPLES)


def _engine(artefact: bytes, x: Floats, chunks: Sequence[int]) -> dict[str, Floats]:
    engine = Engine(artefact)
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    parts = []
    start = 0
    for length in chunks:
        parts.append(engine.run(rows, np.ascontiguousarray(x[start : start + length])))
        start += length
    return {
        name: np.concatenate([part[i] for part in parts])
        for i, name in enumerate(engine.card.outputs)
    }


def read_model(path: Path) -> tuple[onnx.ModelProto, bytes]:
    """An ONNX file and its bytes. Raises EdgernnError for anything that is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise EdgernnError(f"{path}: no such file") from exc
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be read: {exc.strerror}") from exc
    try:
        model = onnx.load_model_from_string(content)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except Exception as exc:  # protobuf, checker and file errors have no common class
        detail = " ".join(str(exc).split())[:200]
        raise EdgernnError(f"{path}: not a readable ONNX file: {detail}") from exc
    return model, content
