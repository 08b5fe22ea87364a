"""What every benchmark needs: something to measure, medians of interleaved times, and a table."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgernn.config import Config, TrainingConfig
from edgernn.recording import Recording
from edgernn.run import Run
from edgernn.simulate.pump import simulate_pump
from edgernn.training.train import train
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph
from edgernn_export.quantize import quantize

HOURS = 8.0
"""Of the simulated pump: what the README trains on."""
ROUND_S = 0.02
"""Calls are repeated until a round takes this long, so that the clock's own cost is nothing."""


def pump() -> Recording:
    """The healthy recording that all benchmarks share."""
    return simulate_pump(hours=HOURS, seed=0)


def brief_run(recording: Recording) -> Run:
    """After two epochs: that changes nothing of how long a step takes."""
    config = Config(recording=(), training=TrainingConfig(epochs=2, device="cpu"))
    run, _ = train(config, recording, name="benchmark")
    return run


def briefly_trained_artefact(recording: Recording) -> bytes:
    """As `edgernn export` writes it by default, but without proof."""
    run = brief_run(recording)
    return with_card(quantize(build_graph(run.detector), "int8"), run.card)


def interleaved(functions: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Name → median seconds of a call. Every round calls each function in turn, so that what else
    the machine does strikes all of them alike."""
    calls = {name: _calls_per_round(function) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(_seconds(function, calls[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first column to the left and numbers to the right."""
    marks = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, marks, *rows)) + "\n"


def status_mb(field: str, pid: int | None = None) -> float:
    """A process's VmRSS (resident now) or VmHWM (most ever), in MB of 10⁶ bytes. Linux only."""
    path = Path("/proc") / ("self" if pid is None else str(pid)) / "status"
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(lines[field].split()[0]) * 1024 / 1e6


def _calls_per_round(function: Callable[[], object]) -> int:
    function()  # the first call may allocate
    return max(1, round(ROUND_S / _seconds(function, 1)))


def _seconds(function: Callable[[], object], calls: int) -> float:
    began_s = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - began_s) / calls
