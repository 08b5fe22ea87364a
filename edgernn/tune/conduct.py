"""A study, conducted: the storage opened, trials dealt out to workers, until enough are done."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from edgernn.errors import EdgernnError
from edgernn.recording import Recording
from edgernn.run import EpochLoss
from edgernn.settings import make_folder
from edgernn.spill import Spill
from edgernn.training.stretches import read_recordings
from edgernn.tune.journal import KernelLock
from edgernn.tune.ledger import ERROR, Ledger, counted, listed, make_pruner, make_sampler
from edgernn.tune.objective import Cost, Judged, Objective, read_labelled
from edgernn.tune.study import Plan
from edgernn.tune.workers import Failed, Pruned, Worker, WorkerDied, wait_for

JOURNAL = "trials.journal"
PLAN = "plan"
"""Where the study notes what all who take part must agree on."""
LAY_OUT_S = 30.0
"""Whoever begins a study has this long to line up its grid before another one does."""
BEAT_S = 15.0
POLL_S = 1.0
"""Between two looks at trials that run elsewhere, and at whether to stop."""

Say = Callable[[str], None]


@contextmanager
def open_study(plan: Plan, objective: Objective, folder: Path, *, join: bool) -> Iterator[Study]:
    """The study in its storage, begun if it is not there; connections are closed afterwards.

    `join`: it must be there. Raises EdgernnError if the storage cannot be reached, if a recording
    is not what it must be, or if the study was begun with another search or other data.
    """
    agreement = _agreement(plan, objective)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each trial is ours to say
    storage, where = _open_storage(plan, folder)
    try:
        study, is_new = _begin(plan, storage, where, join=join)
        _agree(study, plan, agreement, where, is_new=is_new)
        yield study
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def conduct(
    plan: Plan, objective: Objective, study: Study, *, say: Say, stop: threading.Event
) -> None:
    """Run trials until the study has as many as it wants, those of other machines included.

    Soon after `stop` is set the trials that run are given back, to be run when the study goes on.
    """
    ledger = Ledger(
        study,
        wanted=plan.trials,
        space=plan.space.distributions(),
        prunes=plan.study.pruning != "none",
        replaces=plan.study.sampler != "grid",
    )
    crew = _Crew(plan, objective, study, ledger, say)
    try:
        crew.work(stop)
    finally:
        crew.dismiss()


@dataclass(slots=True)
class _Task:
    trial: Trial
    began_s: float
    epochs: int = 0


class _Crew:
    """The workers of this machine, and the trial that each is at."""

    def __init__(
        self, plan: Plan, objective: Objective, study: Study, ledger: Ledger, say: Say
    ) -> None:
        self._plan = plan
        self._objective = objective
        self._study = study
        self._ledger = ledger
        self._say = say
        self._idle: list[Worker] = []
        self._busy: dict[Worker, _Task] = {}

    def work(self, stop: threading.Event) -> None:
        timeout_s = self._plan.study.timeout_s
        began_s = beaten_s = time.monotonic()
        is_told = False
        while not stop.is_set():
            elsewhere = self._ledger.elsewhere()
            is_late = timeout_s is not None and time.monotonic() - began_s > timeout_s
            while not is_late and len(self._busy) < self._plan.study.workers and self._begin():
                pass
            if not self._busy:
                if is_late or not elsewhere:
                    return
                if not is_told:
                    self._say(f"waiting for {len(elsewhere)} trial(s) that run elsewhere")
                is_told = True
                stop.wait(POLL_S)
                continue
            for worker in wait_for(list(self._busy), timeout_s=POLL_S):
                self._hear(worker)
            if time.monotonic() - beaten_s > BEAT_S:
                self._ledger.beat()
                beaten_s = time.monotonic()
        self._ledger.give_back()

    def dismiss(self) -> None:
        for worker in self._busy:
            worker.kill()
        for worker in self._idle:
            worker.dismiss()

    def _begin(self) -> bool:
        """Deal out a trial; False if there is none."""
        if (trial := self._ledger.next()) is None:
            return False
        task = _Task(trial, time.monotonic())
        try:
            config = self._plan.space.config_of(trial.params)
        except EdgernnError as exc:
            self._ledger.impossible(trial, str(exc))
            self._line(task)
            return True
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.start(config)
            except WorkerDied:  # while it was idle: the trial is none the worse
                worker.kill()
                continue
            self._busy[worker] = task
            return True
        worker = Worker(self._objective)
        self._busy[worker] = task
        try:
            worker.start(config)
        except WorkerDied:
            self._bury(worker)
        return True

    def _hear(self, worker: Worker) -> None:
        task = self._busy[worker]
        try:
            message = worker.receive()
            if isinstance(message, EpochLoss):
                task.epochs = message.epoch
                worker.answer(go_on=self._ledger.goes_on(task.trial, message))
                return
        except WorkerDied:
            self._bury(worker)
            return
        self._idle.append(worker)
        del self._busy[worker]
        match message:
            case Judged():
                self._ledger.completed(task.trial, message.values)
            case Pruned():
                self._ledger.pruned(task.trial)
            case Failed():
                self._ledger.failed(task.trial, message.reason)
        self._line(task)

    def _bury(self, worker: Worker) -> None:
        task = self._busy.pop(worker)
        worker.kill()
        again = self._ledger.lost(task.trial)
        fate = "tried again" if again else "given up"
        self._say(f"trial {task.trial.number}: its worker died after epoch {task.epochs}; {fate}")

    def _line(self, task: _Task) -> None:
        """What became of a trial, in one line."""
        known = {trial.number: trial for trial in listed(self._study)}
        if (trial := known.get(task.trial.number)) is None:
            return  # it was taken for lost, and is another process's now
        done = sum(trial.state.is_finished() for trial in counted(self._study))
        point = "  ".join(f"{key}={show(value)}" for key, value in trial.params.items())
        seconds = time.monotonic() - task.began_s
        outcome = describe(trial, self._plan.study.objectives)
        self._say(
            f"trial {trial.number} ({done} of {self._plan.trials})  {outcome}  {point}  "
            f"epoch {task.epochs}, {seconds:.0f} s"
        )


def describe(trial: FrozenTrial, objectives: tuple[str, ...]) -> str:
    """The values of a trial, or why it has none."""
    if trial.state == TrialState.COMPLETE:
        return "  ".join(
            f"{name} {value:.6g}" for name, value in zip(objectives, trial.values, strict=True)
        )
    if trial.state == TrialState.PRUNED:
        return "pruned"
    return f"failed: {trial.user_attrs.get(ERROR, 'its workers died')}"


def show(value: object) -> str:
    """A value of a search key as one reads it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def make_objective(plan: Plan, cost: Cost | None, scratch: Path) -> Objective:
    """How the plan judges trials; `cost` is the second objective, `scratch` a folder for samples
    that are too many for the memory."""
    return Objective(
        quality=plan.study.quality,
        base=plan.base,
        labelled=plan.labelled,
        columns=plan.columns,
        cost=cost,
        scratch=scratch,
    )


def _open_storage(plan: Plan, folder: Path) -> tuple[JournalStorage | RDBStorage, str]:
    """The storage, and its name without a password."""
    if "://" not in plan.storage:
        path = Path(plan.storage) if plan.storage else folder / JOURNAL
        make_folder(path.parent)
        try:
            return JournalStorage(JournalFileBackend(str(path), KernelLock(path))), str(path)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise EdgernnError(f"{path}: not a journal of trials: {exc}") from exc
    try:
        return RDBStorage(plan.storage), "study.storage"
    except (SQLAlchemyError, ImportError) as exc:
        detail = str(exc).strip().splitlines()[0]
        raise EdgernnError(f"study.storage: the database cannot be used: {detail}") from exc


def _begin(
    plan: Plan, storage: JournalStorage | RDBStorage, where: str, *, join: bool
) -> tuple[Study, bool]:
    """The study, and whether it was begun just now."""
    is_new = False
    if not join:
        with suppress(DuplicatedStudyError):
            optuna.create_study(
                study_name=plan.name, storage=storage, directions=list(plan.directions)
            )
            is_new = True
    try:
        study = optuna.load_study(
            study_name=plan.name,
            storage=storage,
            sampler=make_sampler(plan.study.sampler, seed=plan.study.seed),
            pruner=make_pruner(plan.study.pruning, epochs=_most_epochs(plan)),
        )
    except KeyError as exc:
        raise EdgernnError(f'{where}: no study "{plan.name}" to join; begin it first') from exc
    return study, is_new


def _agree(
    study: Study, plan: Plan, agreement: dict[str, str], where: str, *, is_new: bool
) -> None:
    """Note what was agreed on and line up the grid, or make sure that it is the same still."""
    patience_s = time.monotonic() + (0 if is_new else LAY_OUT_S)
    while (found := study.user_attrs.get(PLAN)) is None and time.monotonic() < patience_s:
        time.sleep(0.2)
    if found is None:  # begun just now, or by one who died at it
        if plan.study.sampler == "grid":
            for point in plan.space.points():
                study.enqueue_trial(point, skip_if_exists=not is_new)
        study.set_user_attr(PLAN, agreement)
        return
    if other := [name for name, text in agreement.items() if found.get(name) != text]:
        raise EdgernnError(
            f'{where}: the study "{plan.name}" was begun with another {other[0]}; '
            f"give this one another study.name"
        )


def _agreement(plan: Plan, objective: Objective) -> dict[str, str]:
    """What must be equal for trials to be comparable; paths may differ between machines."""
    with Spill(objective.scratch, limit_bytes=plan.config.training.memory_gb * 1e9) as spill:
        recording = read_recordings(plan.config, objective.base, spill)
        learnt_from = _hash(_content(recording))
    judged_by = ""
    if objective.labelled is not None:
        judged_by = _hash(_content(read_labelled(objective, period_s=recording.period_s)))
    config = msgspec.to_builtins(plan.config)
    del config["recording"]
    return {
        "search": _hash([msgspec.json.encode(dict(plan.space.dimensions))]),
        "training file": _hash([msgspec.json.encode(config)]),
        "objective": " against ".join(plan.study.objectives),
        "kind of sampler": "grid" if plan.study.sampler == "grid" else "free",
        "recording": learnt_from,
        "labelled recording": judged_by,
    }


def _content(recording: Recording) -> Iterator[memoryview]:
    """Times, values, and labels where there are any."""
    for track in recording.tracks:
        for array in (track.time_s, track.x, track.label):
            if array is not None:
                yield np.ascontiguousarray(array).data


def _hash(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _most_epochs(plan: Plan) -> int:
    dimension = plan.space.dimensions.get("training.epochs")
    return int(max(dimension.ends)) if dimension else plan.config.training.epochs
