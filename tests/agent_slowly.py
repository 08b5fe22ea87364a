"""An agent on a device that is too slow, or of which one thread stops: a program for tests.

python agent_slowly.py AGENT.TOML SECONDS_PER_SAMPLE [stuck-worker | stuck-network HUNG_AFTER_S]
"""

import functools
import logging
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import edgernn_device.agent
from edgernn.settings import read_settings
from edgernn_device.agent import Agent
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.link import Message
from edgernn_device.monitor import Monitor, Outcome
from edgernn_device.payload import RawSample
from edgernn_device.stopping import stop_on_signals
from edgernn_device.watchdog import Supervisor

STUCK = "sensors/stuck/telemetry"


def main() -> None:
    path, sample_s = Path(sys.argv[1]), float(sys.argv[2])
    how, hung_after_s = (sys.argv[3], float(sys.argv[4])) if len(sys.argv) > 3 else ("", 60.0)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    take, enqueue = Monitor.take, Agent._enqueue

    def take_slowly(
        self: Monitor, samples: Iterable[tuple[str, RawSample]], *, now_s: float = 0.0
    ) -> Outcome:
        listed = list(samples)
        if how == "stuck-worker" and any(name == "stuck" for name, _ in listed):
            threading.Event().wait()
        time.sleep(sample_s * len(listed))
        return take(self, listed, now_s=now_s)

    def enqueue_or_not(self: Agent, message: Message) -> None:
        if how == "stuck-network" and message.topic == STUCK:
            threading.Event().wait()
        enqueue(self, message)

    Monitor.take = take_slowly  # type: ignore[method-assign]
    Agent._enqueue = enqueue_or_not  # type: ignore[method-assign]
    quickly = functools.partial(Supervisor, hung_after_s=hung_after_s)
    setattr(edgernn_device.agent, "Supervisor", quickly)  # noqa: B010 - it exports no such name
    config = read_settings(path, AgentConfig)
    engine = Engine.load(path.parent / config.model)
    with stop_on_signals() as stop:
        Agent(config, engine, base=path.parent, where=str(path)).run(stop)


if __name__ == "__main__":
    main()
