"""What adapting costs a step, and what it does where sensors drift: the tables of docs/training.md.

python -m benchmarks.adapt
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import HOURS, interleaved, pump, table
from edgernn.alarm import Alarm, Limits
from edgernn.card import Binding
from edgernn.config import Config, TrainingConfig
from edgernn.evaluation.evaluate import BLOCK, ScoredTrack
from edgernn.evaluation.metrics import measure
from edgernn.nets import AdaptConfig, Detector, LevelsConfig, NetworkConfig
from edgernn.recording import Recording, Track
from edgernn.run import Run, build_detector
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.stretches import split
from edgernn.training.train import calibrate, train
from edgernn_device.engine import Engine
from edgernn_device.shipped import GENERAL_FILE
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize

Floats = NDArray[np.float32]

OFF = AdaptConfig()
READOUT = AdaptConfig(readout=True)
BOTH = AdaptConfig(readout=True, scale=True)
LEVELS: Mapping[str, LevelsConfig] = {
    "levels": LevelsConfig(of=("reading", "residual")),
    "levels of readings": LevelsConfig(of=("reading",)),
    "levels of residuals": LevelsConfig(of=("residual",)),
}
COSTLY: Mapping[str, AdaptConfig | LevelsConfig] = {
    "off": OFF,
    "read-out": READOUT,
    "scale": AdaptConfig(scale=True),
    "both": BOTH,
    **LEVELS,
}
"""Whose steps are timed."""
WAYS: Mapping[str, AdaptConfig | LevelsConfig] = {
    "off": OFF,
    "read-out": READOUT,
    "level alone": AdaptConfig(readout=True, features=0),
    "both": BOTH,
    **LEVELS,
}
"""Whose alarms are counted."""
SIZES = ((1, 1), (1, 64), (64, 1), (64, 64))
"""Samples and streams of a call."""
CHANNELS = 8
ROUNDS = 15
TRAININGS = (0, 1, 2)
"""Seeds of the weights; all else as `edgernn train` does it by default."""
HELD_OUT_HOURS = 12.0
SEEDS = (11, 12, 13)
"""Of what is scored."""
DRIFTS = (0.0, 0.25, 0.5)
"""Of every sensor, in standard deviations of its noise an hour."""
FAULTS = (
    "cavitation@60m+10m",
    "stuck:pressure@120m+10m",
    "leak@180m+20m",
    "bearing@240m+60m",
    "cavitation@380m+10m",
    "stuck:flow@440m+10m",
    "leak@500m+60m",
    "bearing@600m+60m",
)
BUDGET = "1/week"


class Effect(NamedTuple):
    """Of one way to adapt at one drift, summed over the seeds."""

    healthy_alarms: int
    share_on: float
    """Of the healthy hours: an alarm that never goes off again is one alarm."""
    found: int
    faults: int
    false_alarms: int
    """In the recordings with faults."""
    auc_pr: float


def main() -> None:
    torch.set_num_threads(1)
    print("## Adapting: one step\n")
    print(
        f"C = {CHANNELS}, H = 32, not trained, int8; beside them the general artefact. µs of the "
        "engine's step; in brackets, ratio "
        f"to a detector that does not adapt. Median of {ROUNDS} interleaved rounds.\n"
    )
    print(costs())
    print("## Adapting: sensors that drift\n")
    print(
        f"Trained on {HOURS:g} healthy hours of the simulated pump, all by default, with three "
        f"seeds; scored on {len(SEEDS)} × {HELD_OUT_HOURS:g} healthy hours (seeds "
        f"{', '.join(map(str, SEEDS))}) and as many with {len(FAULTS)} faults each, budget "
        f"{BUDGET}. Drift: of every sensor, standard deviations of its noise an hour. Alarms on "
        "the healthy hours (share of them that the alarm is on) · faults found · false alarms "
        "beside faults · AUC-PR.\n"
    )
    print(effects())


def costs() -> str:
    detectors = {name: _untrained(way) for name, way in COSTLY.items()}
    card = train(
        Config(recording=(), training=TrainingConfig(epochs=1)),
        simulate_pump(hours=1, seed=0),
        name="",
    )[0].card
    channels = tuple(
        msgspec.structs.replace(card.channels[0], name=name) for name in _names(CHANNELS)
    )
    card = msgspec.structs.replace(card, channels=channels)
    artefacts = {
        name: with_card(
            quantize(build_graph(made), "int8"),
            msgspec.structs.replace(card, states=made.states),
        )
        for name, made in detectors.items()
    }
    engines = {name: Engine(one) for name, one in artefacts.items()}
    binding = Binding(_names(CHANNELS), 1.0)
    engines["general"] = Engine(GENERAL_FILE.read_bytes(), binding=binding)
    generator = np.random.default_rng(0)
    times = [
        interleaved(
            {
                name: _step(engine, generator.standard_normal((t, n, CHANNELS), np.float32))
                for name, engine in engines.items()
            },
            rounds=ROUNDS,
        )
        for t, n in SIZES
    ]
    lines = [
        [
            name,
            *(f"{1e6 * took[name]:,.0f} ({took[name] / took['off']:.2f})" for took in times),
            f"{4 * sum(int(np.prod(s.shape)) for s in engine.card.states):,}",
            f"{engine.size_bytes:,}",
        ]
        for name, engine in engines.items()
    ]
    sizes = [f"T={t}, N={n}" for t, n in SIZES]
    return table(["adapts", *sizes, "state, bytes a stream", "artefact, bytes"], lines)


def effects() -> str:
    healthy = pump()
    runs = []
    for seed in TRAININGS:
        config = Config(recording=(), training=TrainingConfig(seed=seed, device="cpu"))
        runs.append(train(config, healthy, name="pump")[0])
    lines = [
        [f"{name}, training {seed}", *map(_cell, _measured(_adapting(run, healthy, way)))]
        for name, way in WAYS.items()
        for seed, run in zip(TRAININGS, runs, strict=True)
    ]
    return table(["adapts", *(f"drift {drift:g}/h" for drift in DRIFTS)], lines)


def _cell(e: Effect) -> str:
    return (
        f"{e.healthy_alarms} ({e.share_on:.1%}) · {e.found} of {e.faults} · {e.false_alarms} · "
        f"{e.auc_pr:.3f}"
    )


def _adapting(run: Run, healthy: Recording, way: AdaptConfig | LevelsConfig) -> Run:
    """The same trained weights, calibrated as a detector that adapts."""
    table = {"adapt" if isinstance(way, AdaptConfig) else "levels": way}
    config = msgspec.structs.replace(run.config, **table)
    made = build_detector(config, run.card.channel_names, period_s=run.card.period_s)
    trained = run.model.state_dict()
    mine = {name: one for name, one in trained.items() if not name.startswith("calibration.")}
    made.load_state_dict(mine, strict=False)  # neither adapters nor levels are trained
    pieces = split(healthy, config).calibration
    tails = calibrate(made.eval(), pieces, warm_up=run.card.warm_up)
    card = msgspec.structs.replace(run.card, tails=tails, states=made.states)
    return Run(config, card, made, run.healthy)


def _measured(run: Run) -> list[Effect]:
    """At each drift."""
    faults = [parse_fault(text) for text in FAULTS]
    recordings = [
        simulate_pump(hours=HELD_OUT_HOURS, seed=seed, faults=planned, drift=drift)
        for drift in DRIFTS
        for planned in ([], faults)
        for seed in SEEDS
    ]
    scored = iter(_side_by_side(run, [one.tracks[0] for one in recordings]))
    seeds = len(SEEDS)
    return [_effect(run, list(islice(scored, seeds)), list(islice(scored, seeds))) for _ in DRIFTS]


def _effect(run: Run, healthy: list[ScoredTrack], faulty: list[ScoredTrack]) -> Effect:
    said = [measure([one], aftermath_s=run.card.warm_up * run.card.period_s) for one in faulty]
    return Effect(
        sum(edge.is_on for one in healthy for edge in one.edges),
        float(np.mean([one.is_on.mean() for one in healthy])),
        sum(one.faults_found or 0 for one in said),
        sum(one.faults_total or 0 for one in said),
        sum(one.false_alarms or 0 for one in said),
        float(np.mean([one.auc_pr or 0.0 for one in said])),
    )


@torch.no_grad()
def _side_by_side(run: Run, tracks: Sequence[Track]) -> list[ScoredTrack]:
    """Streams of equal length scored together: what is learnt sample by sample takes no longer
    for many of them."""
    x = torch.from_numpy(np.stack([track.x for track in tracks], axis=1))  # (T, N, C)
    state = run.detector.fresh_state(len(tracks))
    parts: list[list[Floats]] = []
    for block in torch.split(x, BLOCK):
        results = run.detector(block, *state)
        said, state = results[:3], results[3:]
        parts.append([one.numpy() for one in said])
    score, share, expected = (np.concatenate([part[i] for part in parts]) for i in range(3))
    score[: run.card.warm_up] = np.nan
    rule = msgspec.structs.replace(run.card.alarm, false_alarms=BUDGET)
    limits = Limits.from_rule(rule, run.card)
    scored = []
    for n, track in enumerate(tracks):
        alarm = Alarm(limits)
        is_on, threshold, edges = np.zeros(len(score), bool), np.zeros(len(score)), []
        for t, (time_s, value) in enumerate(zip(track.time_s.tolist(), score[:, n], strict=True)):
            if (edge := alarm.update(time_s, float(value))) is not None:
                edges.append(edge)
            is_on[t], threshold[t] = alarm.is_on, alarm.threshold
        said = (score[:, n], share[:, n], expected[:, n])
        scored.append(ScoredTrack(track, *said, is_on, threshold, tuple(edges)))
    return scored


def _untrained(way: AdaptConfig | LevelsConfig) -> Detector:
    adapt, levels = (way, None) if isinstance(way, AdaptConfig) else (None, way)
    return Detector(_names(CHANNELS), NetworkConfig(), None, adapt, levels, span=60, seed=0).eval()


def _names(channels: int) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(channels))


def _step(engine: Engine, x: Floats) -> Callable[[], object]:
    rows = np.array([engine.add_stream() for _ in range(x.shape[1])])
    return lambda: engine.run(rows, x)


if __name__ == "__main__":
    main()
