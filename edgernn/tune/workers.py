"""Processes that train one trial after another; they know nothing of the study.

A worker is told a configuration, says the loss of every epoch, is told whether to go on, and says
what the detector is worth. It may die at any time: its pipe then ends, and only its trial is lost.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import torch

from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.run import EpochLoss
from edgernn.tune.objective import Judged, Objective, judge

PRELOADED = [__name__, "torch._dynamo"]
"""Imported once for all workers. An optimiser's first step imports the second: 3 s each time."""


class Failed(NamedTuple):
    """The configuration cannot be trained; one sentence says why."""

    reason: str


class Pruned(NamedTuple):
    """The trial was told to stop."""

    epochs: int


Message = EpochLoss | Judged | Pruned | Failed
"""An EpochLoss waits for an answer, whether to go on; all others end the trial."""


class WorkerDied(Exception):  # an event, not an error: another worker takes over
    """The process is gone, killed or by a defect whose traceback it has printed."""


class Worker:
    """One process, and the pipe to it."""

    def __init__(self, objective: Objective) -> None:
        # forked from a server that has imported torch once, and has neither threads nor CUDA
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, objective), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, config: Config) -> None:
        """Begin a trial. Raises WorkerDied."""
        self._send(config)

    def answer(self, *, go_on: bool) -> None:
        """Reply to an EpochLoss. Raises WorkerDied."""
        self._send(go_on)

    def receive(self) -> Message:
        """What it said last; blocks until it says something. Raises WorkerDied."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, ConnectionError) as exc:
            raise WorkerDied from exc
        return message

    def dismiss(self) -> None:
        """End an idle process, which tidies up."""
        self.connection.close()
        self._process.join()

    def kill(self) -> None:
        """End the process at once, trial or no trial."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _send(self, what: object) -> None:
        try:
            self.connection.send(what)
        except ConnectionError as exc:
            raise WorkerDied from exc


def wait_for(workers: Sequence[Worker], *, timeout_s: float) -> list[Worker]:
    """Those with something to receive, or that died; [] if none within the time."""
    ready = wait([worker.connection for worker in workers], timeout_s)
    return [worker for worker in workers if worker.connection in ready]


class _Stop(Exception):  # unwinds the training loop
    pass


def _serve(connection: Connection, objective: Objective) -> None:
    """The process: until the pipe ends, which it does when the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the other side decides
    try:
        while True:
            connection.send(_trial(connection, objective, connection.recv()))
    except (EOFError, ConnectionError):
        return


def _trial(connection: Connection, objective: Objective, config: Config) -> Message:
    epochs = 0

    def on_epoch(loss: EpochLoss) -> None:
        nonlocal epochs
        epochs = loss.epoch
        connection.send(loss)
        if not connection.recv():
            raise _Stop

    torch.set_num_threads(config.training.threads)
    try:
        return judge(objective, config, on_epoch)
    except _Stop:
        return Pruned(epochs)
    except EdgernnError as exc:
        return Failed(str(exc))
