"""The study file: what is tried, how trials are chosen, and what they are judged by."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.layout import Columns
from edgernn.settings import read_settings
from edgernn.tune.space import Space, read_space

Direction = Literal["minimize", "maximize"]

SAMPLERS = ("grid", "random", "tpe", "gp")
PRUNERS = ("none", "median", "hyperband")
QUALITIES = ("loss", "auc_pr", "f1")
LABELLED = ("auc_pr", "f1")
"""Qualities that are measured on labelled data, and are better when larger."""
COSTS = ("bytes", "step_us")
DEFAULT_TRIALS = 30

LOSS_IGNORES = ("alarm", "score")
"""Tables that the validation loss does not depend on."""
LOSS_MOVED_BY = (
    "forecast.horizon",
    "head.kinds",
    "head.window",
    "max_gap_s",
    "network.direction",
    "network.look_ahead",
    "period_s",
    "training.calibration",
    "training.streams",
    "training.validation",
)
"""Keys that change which values the validation loss is a mean of: not comparable between trials."""


class StudyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[study]`."""

    name: str = ""
    """In the storage; "" = the study file's name without its ending."""
    trials: int | None = None
    """None = 30, and every point with sampler "grid"."""
    sampler: str = "tpe"
    """"grid", "random", "tpe" (Bergstra et al. 2011) or "gp" (a Gaussian process)."""
    seed: int = 0
    pruner: str | None = None
    """"none", "median" or "hyperband" (Li et al. 2018), by the epochs' validation loss.
    None = "median", and "none" with two objectives."""
    timeout_s: float | None = None
    """No trial starts later than this; those that run are finished."""
    workers: int = 1
    """Processes of this machine, a trial each."""
    storage: str = ""
    """A journal file, relative to the study file, or a postgresql:// address; "" = `trials.journal`
    in the output folder."""
    quality: str = "loss"
    """"loss", "auc_pr" or "f1"."""
    against: str = ""
    """A second objective, the smaller the better: "bytes" of the artefact, or "step_us", the
    device engine's time for one sample on this machine."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("sampler", SAMPLERS),
            ("pruner", (None, *PRUNERS)),
            ("quality", QUALITIES),
            ("against", ("", *COSTS)),
        ):
            if (found := getattr(self, name)) not in allowed:
                known = ", ".join(word for word in allowed if word)
                raise ValueError(f"{name}: expected one of {known}, got {found!r}")
        limits = {"trials": (1, 100_000), "workers": (1, 1024), "seed": (0, 2**63 - 1)}
        for name, (low, high) in limits.items():
            found = getattr(self, name)
            if found is not None and not low <= found <= high:
                raise ValueError(f"{name}: expected {low}–{high}, got {found}")
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            raise ValueError(f"timeout_s: expected seconds above 0, got {self.timeout_s}")
        if self.sampler == "grid" and self.trials is not None:
            raise ValueError(f"trials: a grid tries every point once; leave {self.trials} out")
        if self.against and self.pruner not in (None, "none"):
            raise ValueError(f'pruner: expected "none" with two objectives, got "{self.pruner}"')
        if "://" in self.storage and not self.storage.startswith("postgresql://"):
            scheme = self.storage.partition("://")[0]
            raise ValueError(f"storage: expected a file or postgresql://…, got {scheme}://…")

    @property
    def objectives(self) -> tuple[str, ...]:
        """Quality first."""
        return (self.quality, self.against) if self.against else (self.quality,)

    @property
    def pruning(self) -> str:
        """The pruner, where none is given the one that fits."""
        return self.pruner or ("none" if self.against else "median")


class EvaluateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[evaluate]`: labelled data to choose by. Figures on it are no test any more."""

    recording: str
    """A file, relative to the study file."""
    columns: Columns | None = None
    """None = those of the training file's first `[[recording]]`."""


class StudyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole study file. `train` and `[search]` must be there."""

    train: str
    """A training file, relative to the study file: every key that is not searched."""
    search: dict[str, Any]
    """Dotted key of the training file → its dimension."""
    study: StudyConfig = StudyConfig()
    evaluate: EvaluateConfig | None = None

    def __post_init__(self) -> None:
        labelled = self.study.quality in LABELLED
        if labelled and self.evaluate is None:
            raise ValueError(
                f'study.quality: "{self.study.quality}" is measured on labelled data: '
                f'expected [evaluate] recording = "…"'
            )
        if not labelled and self.evaluate is not None:
            raise ValueError(
                f'evaluate: quality "{self.study.quality}" uses no labels; expected study.quality '
                f"to be one of {', '.join(LABELLED)}, or no [evaluate]"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """A study file, read and found sound."""

    name: str
    study: StudyConfig
    space: Space
    config: Config
    """The training file; trials differ from it in the searched keys."""
    base: Path
    """The folder that the training file's paths lead from."""
    labelled: Path | None
    """The recording of `[evaluate]`."""
    columns: Columns
    """Of that recording."""
    storage: str
    """A path or an address; "" = in the output folder."""

    @property
    def trials(self) -> int:
        """How many are wanted."""
        if self.study.sampler == "grid":
            return len(self.space.points())
        return self.study.trials or DEFAULT_TRIALS

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of the objectives, in Optuna's words."""
        return tuple(
            "maximize" if name in LABELLED else "minimize" for name in self.study.objectives
        )


def read_plan(path: Path) -> Plan:
    """Read a study file and the training file it names; every value of every dimension is tried on
    the training file. Raises EdgernnError with the key's path and what is allowed."""
    file = read_settings(path, StudyFile)
    train = path.parent / file.train
    if train.suffix != ".toml":
        raise EdgernnError(f"{path}: train: expected a training file (.toml), got {file.train!r}")
    config = read_settings(train, Config)
    if config.task != "anomaly" and file.study.quality != "loss":
        raise EdgernnError(
            f'{path}: study.quality: only "loss" for task "{config.task}", got '
            f'"{file.study.quality}"'
        )
    if config.general is not None and file.study.quality == "loss":
        raise EdgernnError(
            f"{path}: study.quality: expected one of {', '.join(LABELLED)} for a training file "
            'with general, which has no loss, got "loss"'
        )
    try:
        space = read_space(file.search, config)
        if file.study.quality == "loss":
            _check_comparable(space)
        if file.study.sampler == "grid":
            space.check_grid()
    except EdgernnError as exc:
        raise EdgernnError(f"{path}: {exc}") from exc
    evaluate, storage = file.evaluate, file.study.storage
    return Plan(
        name=file.study.name or path.stem,
        study=file.study,
        space=space,
        config=config,
        base=train.parent,
        labelled=None if evaluate is None else path.parent / evaluate.recording,
        columns=(evaluate and evaluate.columns) or config.recording[0].columns,
        storage=storage if "://" in storage or not storage else str(path.parent / storage),
    )


def _check_comparable(space: Space) -> None:
    """With quality "loss" a key must change the loss, and not what it is a mean of."""
    for key in space.keys:
        needs = f"expected study.quality to be one of {', '.join(LABELLED)}"
        if key.split(".")[0] in LOSS_IGNORES:
            raise EdgernnError(
                f'search."{key}": the validation loss does not depend on it; {needs}'
            )
        if key in LOSS_MOVED_BY:
            raise EdgernnError(
                f'search."{key}": changes what the validation loss is measured on, so that trials '
                f"could not be compared; {needs}"
            )
