"""Small studies: a training file, its recordings, and what the tests of tuning do with them."""

import threading
from collections.abc import Callable
from pathlib import Path

from optuna.distributions import BaseDistribution, IntDistribution
from optuna.study import Study

from edgernn.recording import write_recording
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.tune.conduct import conduct, make_objective, open_study
from edgernn.tune.study import Plan, read_plan

TRAINING = """
[[recording]]
path = "healthy.csv"
[network]
hidden = 4
[training]
epochs = 2
streams = 4
chunk = 32
learning_rate = 0.01
device = "cpu"
"""
RATES = '"training.learning_rate" = { low = 0.001, high = 0.1, log = true }\n'

SPACE: dict[str, BaseDistribution] = {"x": IntDistribution(0, 10_000)}


def make_study_folder(made: Path) -> Path:
    """A training file, its recording, and a labelled one; studies are added."""
    write_recording(made / "healthy.csv", simulate_pump(hours=0.3, seed=1, stream="pump"))
    faults = [parse_fault("leak@6m")]
    write_recording(
        made / "faulty.csv", simulate_pump(hours=0.2, seed=2, faults=faults, stream="pump")
    )
    (made / "pump.toml").write_text(TRAINING)
    return made


def plan_of(folder: Path, search: str, *, study: str = "", name: str, more: str = "") -> Plan:
    path = folder / f"{name}.toml"
    path.write_text(f'train = "pump.toml"\n[study]\n{study}\n{more}\n[search]\n{search}')
    return read_plan(path)


def run(plan: Plan, output: Path, say: Callable[[str], None] = lambda _: None) -> Study:
    objective = make_objective(plan, None, output)
    with open_study(plan, objective, output, join=False) as study:
        conduct(plan, objective, study, say=say, stop=threading.Event())
    return study
