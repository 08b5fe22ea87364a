"""The training file: every key with its default and its allowed values."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from edgernn.calibration import check_rule
from edgernn.card import OUTPUTS, AlarmConfig, AlarmRule
from edgernn.layout import Columns
from edgernn.nets.adapt import AdaptConfig
from edgernn.nets.forecaster import ForecastConfig
from edgernn.nets.general import GeneralConfig
from edgernn.nets.heads import HeadConfig
from edgernn.nets.level_judge import LevelsConfig
from edgernn.nets.networks import NetworkConfig
from edgernn.nets.views import RELATIONS


class RecordingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[recording]]`: healthy data to learn from."""

    path: str
    """A file, or a pattern such as "healthy/*.csv"; relative to the training file."""
    first_rows: int | None = None
    """Take only this many rows of every stream."""
    columns: Columns = Columns()

    def __post_init__(self) -> None:
        if self.first_rows is not None and self.first_rows < 1:
            raise ValueError(f"first_rows: expected 1 or more, got {self.first_rows}")


CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "optimizer": ("adam", "adamw", "rmsprop", "sgd"),
        "schedule": ("plateau", "cosine", "constant"),
        "device": ("auto", "cpu", "cuda"),
        "precision": ("auto", "float32", "bf16"),
    }
)
"""Words that keys of `[training]` may have."""
MOST_HELD_OUT = 0.8
"""Of a recording, for early stopping and calibration together."""
WITH_MOMENTUM = ("rmsprop", "sgd")
"""Optimisers with a momentum of one's choice; Adam's two means are its own."""


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[training]`."""

    seed: int = 0
    epochs: int = 200
    """At most; early stopping usually ends sooner."""
    patience: int = 20
    """Epochs without a better validation loss before training stops; the rate halves at half."""
    streams: int = 32
    """Parallel pieces the recording is cut into."""
    chunk: int = 64
    """Samples of every piece between two steps of the optimiser: the reach of the gradient."""
    optimizer: str = "adam"
    """"adam", "adamw", "rmsprop" or "sgd"."""
    learning_rate: float = 5e-3
    momentum: float = 0.0
    """Of "sgd" and "rmsprop", below 1."""
    schedule: str = "plateau"
    """Of the learning rate: "plateau" (halves when the validation loss stands still), "cosine"
    (falls to 0 over `epochs`) or "constant"."""
    clip_norm: float = 5.0
    """Largest gradient norm."""
    l1: float = 0.0
    """Penalty on the sum of the weights' magnitudes, part of the gradient; biases are free."""
    l2: float = 0.0
    """Penalty on half the sum of squared weights, part of the gradient; with "adamw" its decoupled
    weight decay instead. Biases are free."""
    hide: float = 0.06
    """Share of values hidden from the network: single ones, whole samples for a while, and channels
    for a whole chunk, so that it learns to live with a gap and with a missing sensor."""
    validation: float = 0.15
    """Share of the recording for early stopping."""
    calibration: float = 0.25
    """Share of the recording, its end, for calibration: training never sees it."""
    memory_gb: float = 2.0
    """Samples beyond so many GB are kept in files in the run folder while training: recordings may
    be larger than the memory. Weights do not depend on it."""
    threads: int = 1
    """Of the CPU. These networks are small: a second thread gained nothing on idle cores
    (benchmarks/RESULTS.md), and took ten times as long on busy ones."""
    device: str = "auto"
    """"auto" (CUDA where there is one), "cpu" or "cuda"."""
    precision: str = "auto"
    """Of the products in training: "bf16" (CUDA only), "float32", or "auto" (bf16 on a CUDA device
    that has it). Weights, states and losses are float32 in either."""

    def __post_init__(self) -> None:
        limits = {
            "epochs": (1, 1_000_000),
            "patience": (1, 1_000_000),
            "streams": (1, 65_536),
            "chunk": (2, 65_536),
            "learning_rate": (1e-7, 1.0),
            "momentum": (0.0, 0.999),
            "clip_norm": (1e-6, 1e6),
            "l1": (0.0, 1.0),
            "l2": (0.0, 1.0),
            "hide": (0.0, 0.9),
            "validation": (0.05, 0.45),
            "calibration": (0.05, 0.6),
            "memory_gb": (0.0, 1e6),
            "threads": (1, 1024),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in limits.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name}: expected {low:.10g}–{high:.10g}, got {value:.10g}")
        for name, words in CHOICES.items():
            if (word := getattr(self, name)) not in words:
                *most, last = (f'"{each}"' for each in words)
                raise ValueError(f'{name}: expected {", ".join(most)} or {last}, got "{word}"')
        if self.momentum and self.optimizer not in WITH_MOMENTUM:
            raise ValueError(
                f'momentum: expected 0 with optimizer = "{self.optimizer}", got {self.momentum:g}; '
                f'"rmsprop" and "sgd" take it'
            )


class ScoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[score]`."""

    window: int = 60
    """Samples that the window view looks back on, 2 to 100,000."""
    relation: str = "conditional"
    """How a channel's residual is judged: given the others' ("conditional"), with all made
    uncorrelated ("whitened"), or on its own ("none")."""

    def __post_init__(self) -> None:
        if not 2 <= self.window <= 100_000:
            raise ValueError(f"window: expected 2–100000 samples, got {self.window}")
        if self.relation not in RELATIONS:
            raise ValueError(
                f"relation: expected one of {', '.join(RELATIONS)}, got {self.relation!r}"
            )


ABOUT_NETWORKS: Mapping[str, msgspec.Struct] = MappingProxyType(
    {
        "network": NetworkConfig(),
        "head": HeadConfig(),
        "adapt": AdaptConfig(),
        "levels": LevelsConfig(),
        "score": ScoreConfig(),
    }
)
"""Tables that a general detector does not read, as they are where nothing is said."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole training file. Only `recording` must be there."""

    recording: tuple[RecordingConfig, ...]
    task: str = "anomaly"
    """"anomaly", "classify" (which label a sample has) or "forecast" (the samples to come)."""
    name: str = ""
    """Of the detector, in its card and its alerts; "" = the run folder's name."""
    period_s: float | None = None
    """Time between samples; None = the recording's median interval."""
    max_gap_s: float | None = None
    """A longer gap starts afresh; None = 60 periods, on the device 2000 with `levels`."""
    network: NetworkConfig = NetworkConfig()
    general: GeneralConfig | None = None
    """In place of a network and all tables about it: nothing is trained. For "anomaly" only, as are
    `head`, `adapt`, `levels`, `score` and `alarm`."""
    head: HeadConfig = HeadConfig()
    adapt: AdaptConfig = AdaptConfig()
    levels: LevelsConfig = LevelsConfig()
    forecast: ForecastConfig = ForecastConfig()
    """For "forecast" only."""
    training: TrainingConfig = TrainingConfig()
    score: ScoreConfig = ScoreConfig()
    alarm: AlarmConfig = AlarmConfig()
    """What is not given is as `AlarmRule.for_period` has it, or with `general` as `begin.ALARM`."""

    def __post_init__(self) -> None:
        if self.period_s is not None and not 0 < self.period_s < math.inf:
            raise ValueError(f"period_s: expected seconds above 0, got {self.period_s}")
        if self.max_gap_s is not None and not 0 <= self.max_gap_s < math.inf:
            raise ValueError(f"max_gap_s: expected 0 or more seconds, got {self.max_gap_s}")
        if self.general is not None:
            self._check_is_alone()
        if "encoder-decoder" in self.head.kinds and self.head.window > self.training.chunk:
            raise ValueError(
                f"head.window: {self.head.window} samples do not fit into training.chunk, "
                f"{self.training.chunk}"
            )
        if self.adapt.readout and "forecast" not in self.head.kinds:
            raise ValueError(
                'adapt.readout: only with "forecast" among head.kinds, got '
                f"{', '.join(self.head.kinds)}"
            )
        if self.levels.is_on and self.adapt.is_on:
            raise ValueError("levels.of: not beside adapt: levels follow what is new by themselves")
        if self.levels.is_on and self.score.relation != ScoreConfig().relation:
            raise ValueError(
                f"score.relation: not with levels.of, which judge channels on their own, got "
                f"{self.score.relation!r}"
            )
        most = MOST_HELD_OUT - self.training.calibration
        if self.training.validation > most + 1e-9:
            raise ValueError(
                f"training.validation: expected 0.05–{most:.10g} beside training.calibration = "
                f"{self.training.calibration:g}, so that {1 - MOST_HELD_OUT:.0%} is left to learn "
                f"from, got {self.training.validation:g}"
            )
        self._check_task()
        check_rule(self.alarm.over(AlarmRule()), where="alarm")

    @property
    def warm_up(self) -> int:
        """Samples after a fresh start that do not count: a window, or what training looked back;
        none where a stream begins with what a recording showed."""
        if self.general is not None:
            return 0
        return self.score.window if self.task == "anomaly" else self.training.chunk

    def _check_is_alone(self) -> None:
        """Refuses tables that a general detector would not read."""
        for table, default in ABOUT_NETWORKS.items():
            if getattr(self, table) != default:
                raise ValueError(f"{table}: not beside general, which has no network")
        memory = TrainingConfig(memory_gb=self.training.memory_gb, threads=self.training.threads)
        if self.training != memory:
            raise ValueError("training: only memory_gb and threads beside general, not trained")

    def _check_task(self) -> None:
        """Refuses tables that the task would not read."""
        if self.task not in OUTPUTS:
            raise ValueError(f"task: expected one of {', '.join(OUTPUTS)}, got {self.task!r}")
        for table, default, task in (
            ("general", None, "anomaly"),
            ("head", HeadConfig(), "anomaly"),
            ("adapt", AdaptConfig(), "anomaly"),
            ("levels", LevelsConfig(), "anomaly"),
            ("score", ScoreConfig(), "anomaly"),
            ("alarm", AlarmConfig(), "anomaly"),
            ("forecast", ForecastConfig(), "forecast"),
        ):
            if getattr(self, table) != default and self.task != task:
                raise ValueError(f'{table}: only for task = "{task}", here task = "{self.task}"')
        if self.task == "forecast" and self.network.direction != "causal":
            raise ValueError(
                'network.direction: expected "causal" for task = "forecast", got '
                f'"{self.network.direction}": what is forecast has not come yet'
            )
        if self.task == "forecast" and 2 * self.forecast.horizon > self.training.chunk:
            raise ValueError(
                f"forecast.horizon: {self.forecast.horizon} samples do not fit twice into "
                f"training.chunk, {self.training.chunk}: raise that to {2 * self.forecast.horizon}"
            )

    def files(self, base: Path) -> tuple[tuple[Path, RecordingConfig], ...]:
        """Every file of every `[[recording]]`, patterns expanded from `base` and sorted."""
        found = []
        for item in self.recording:
            pattern = Path(item.path)
            if not any(letter in item.path for letter in "*?["):
                found.append((base / pattern, item))
                continue
            anchor = Path(pattern.anchor) if pattern.is_absolute() else base
            parts = str(pattern.relative_to(pattern.anchor)) if pattern.anchor else item.path
            found += [(path, item) for path in sorted(anchor.glob(parts))]
        return tuple(found)

    def seen_from(self, folder: Path, base: Path) -> "Config":
        """The same as a training file in `folder`: paths that lead from `base` lead from there."""
        recordings = tuple(
            msgspec.structs.replace(item, path=os.path.relpath(base / item.path, folder))
            for item in self.recording
        )
        return msgspec.structs.replace(self, recording=recordings)
