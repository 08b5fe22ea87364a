"""The study's trials in Optuna's storage: which may begin, which is whose, which was lost.

Several machines may share a study. A trial belongs to the process that began it, which leaves a
beat in the storage as long as it lives. One without a beat is lost: it is marked as failed, and
tried again. No trial is begun beyond those wanted, whoever begins it.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from edgernn.run import EpochLoss

logger = logging.getLogger(__name__)

GRACE_S = 120.0
"""A trial without a beat for this long is lost, if its process cannot be looked for."""
NEWBORN_S = 10.0
"""The same for one without any beat: the first is written as soon as the trial is."""
MOST_RETRIES = 1
"""Of a lost trial. What kills two workers, such as want of memory, would kill the third."""
WARM_UP = 0.1
"""Share of the epochs that the median pruner leaves alone: a low learning rate begins slowly."""
ERROR, OWNER, RETRIES, RETRY_OF, SURPLUS = "error", "owner", "retries", "retry_of", "surplus"
IMPOSSIBLE = "impossible"
"""What we note beside a trial (`user_attrs`)."""


class Ledger:
    """One process's view of the study."""

    def __init__(
        self,
        study: Study,
        *,
        wanted: int,
        space: dict[str, BaseDistribution],
        prunes: bool,
        replaces: bool = True,
    ) -> None:
        """`replaces`: another trial is drawn for one whose values exclude each other."""
        self._study = study
        self._wanted = wanted
        self._space = space
        self._sign = -1.0 if study.directions[0].name == "MAXIMIZE" else 1.0
        self._prunes = prunes
        self._replaces = replaces
        self._beats = 0
        self._mine: dict[int, Trial] = {}
        self._seen: dict[int, tuple[Any, float]] = {}  # others' trial → its last beat, and when

    def next(self) -> Trial | None:
        """A trial to run now, or None if none may be begun."""
        while True:
            known = counted(self._study)
            is_waiting = any(trial.state == TrialState.WAITING for trial in known)
            if len(known) >= self._wanted and not is_waiting:
                return None
            trial = self._study.ask()
            self._beat(trial)
            # numbers are given once, whoever asks: of two that ask at the same time one is too many
            if sum(t.number < trial.number for t in counted(self._study)) < self._wanted:
                break
            trial.set_user_attr(SURPLUS, True)
            self._study.tell(trial, state=TrialState.FAIL)
        self._mine[trial.number] = trial
        for key, distribution in self._space.items():
            _suggest(trial, key, distribution)
        return trial

    def goes_on(self, trial: Trial, loss: EpochLoss) -> bool:
        """Note an epoch's validation loss; False if the trial is not worth going on with."""
        if not self._prunes or not math.isfinite(loss.validation):
            return True
        try:
            trial.report(self._sign * loss.validation, loss.epoch)
        except UpdateFinishedTrialError:
            return False  # taken for lost while this machine slept
        return not trial.should_prune()

    def completed(self, trial: Trial, values: Sequence[float]) -> None:
        """Close a trial with the values of its objectives."""
        self._tell(trial, TrialState.COMPLETE, values)

    def pruned(self, trial: Trial) -> None:
        """Close a trial that was stopped early."""
        self._tell(trial, TrialState.PRUNED)

    def failed(self, trial: Trial, reason: str) -> None:
        """Close a trial that cannot be trained."""
        trial.set_user_attr(ERROR, reason)
        self._tell(trial, TrialState.FAIL)

    def impossible(self, trial: Trial, reason: str) -> None:
        """Close a trial whose values exclude each other. Another one takes its place, unless there
        were as many as trials are wanted: then hardly any values go together."""
        excluded = sum(IMPOSSIBLE in other.user_attrs for other in listed(self._study))
        if self._replaces and excluded < self._wanted:
            trial.set_user_attr(IMPOSSIBLE, True)
        self.failed(trial, reason)

    def lost(self, trial: Trial) -> bool:
        """Close a trial whose worker died; whether it will be tried again."""
        self._mine.pop(trial.number)
        return self._again(trial.number)

    def give_back(self) -> None:
        """Close every trial of this process, so that each is tried again, here or elsewhere."""
        for number in list(self._mine):
            del self._mine[number]
            self._again(number, is_blamed=False)

    def beat(self) -> None:
        """Say that this process lives."""
        self._beats += 1
        for trial in self._mine.values():
            self._beat(trial)

    def elsewhere(self) -> list[int]:
        """Numbers of trials that other processes run. Those that are lost are lined up again."""
        running = [t for t in listed(self._study) if t.state == TrialState.RUNNING]
        others = [trial for trial in running if trial.number not in self._mine]
        for trial in others:
            if self._is_lost(trial) and self._again(trial.number):
                logger.warning("trial %d was lost with its process; tried again", trial.number)
        return [trial.number for trial in others]

    def _tell(self, trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        del self._mine[trial.number]
        try:
            self._study.tell(trial, values, state)
        except (UpdateFinishedTrialError, ValueError) as exc:
            logger.warning("trial %d was taken for lost meanwhile: %s", trial.number, exc)

    def _again(self, number: int, *, is_blamed: bool = True) -> bool:
        """Mark a running trial as failed, and line it up again unless it was too often."""
        try:
            frozen = self._study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False  # another process was faster
        retries = frozen.user_attrs.get(RETRIES, 0) + is_blamed
        if retries > MOST_RETRIES:
            return False
        self._study.enqueue_trial(
            frozen.params, user_attrs={RETRY_OF: frozen.number, RETRIES: retries}
        )
        return True

    def _beat(self, trial: Trial) -> None:
        try:
            trial.set_user_attr(OWNER, [*_myself(), self._beats])
        except UpdateFinishedTrialError:
            logger.warning("trial %d was taken for lost meanwhile", trial.number)

    def _is_lost(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(OWNER)
        if owner and owner[0] == _place():
            return bool(_started(owner[1]) != owner[2])
        now = time.monotonic()
        beat, since = self._seen.setdefault(trial.number, (owner, now))
        if beat != owner:
            self._seen[trial.number] = (owner, now)
            return False
        return now - since > (GRACE_S if owner else NEWBORN_S)


class SeededByTrial(BaseSampler):
    """A fresh sampler for every trial, seeded with the study's seed and the trial's number.

    So trial 7 is the same whether the study was interrupted or not, and two machines never draw
    the same. Optuna's own samplers start their sequence anew in every process.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
        self._sampler = self._make(int(seed))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def make_sampler(name: str, *, seed: int) -> BaseSampler:
    """A sampler by its name in the study file. A grid's points are lined up beforehand."""
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "grid": lambda s: RandomSampler(seed=s),
        "random": lambda s: RandomSampler(seed=s),
        "tpe": lambda s: TPESampler(seed=s),
        "gp": lambda s: GPSampler(seed=s),
    }
    return SeededByTrial(makers[name], seed)


def make_pruner(name: str, *, epochs: int) -> optuna.pruners.BasePruner:
    """A pruner by its name in the study file; `epochs` is the most that a trial may have."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=math.ceil(WARM_UP * epochs))
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=epochs)
    return optuna.pruners.NopPruner()


def counted(study: Study) -> list[FrozenTrial]:
    """Trials that count towards the number wanted: those listed that were possible."""
    return [trial for trial in listed(study) if IMPOSSIBLE not in trial.user_attrs]


def listed(study: Study) -> list[FrozenTrial]:
    """Trials without those that were tried again and those beyond the number wanted."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [t for t in trials if t.number not in again and SURPLUS not in t.user_attrs]


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Draw a value. `Study.ask` could draw them all, but before a first beat."""
    match distribution:
        case IntDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_int(key, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_float(key, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            trial.suggest_categorical(key, choices)


def _myself() -> tuple[str, int, int]:
    """This process, so that another one of this machine can tell whether it lives."""
    return _place(), os.getpid(), _started(os.getpid()) or 0


def _place() -> str:
    """Where process ids mean the same: this boot of this machine, this container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5)); None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    state, *fields = stat.rpartition(") ")[2].split()
    return None if state == "Z" else int(fields[18])
