"""The agent as a process: how soon it is there, how much memory it takes, how much it carries.

Alone: `python -m benchmarks.agent`
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.agent_process import MODEL, observed, running_agent, wait_for, wait_for_all
from benchmarks.measure import briefly_trained_artefact, pump, status_mb, table
from benchmarks.traffic import Load, packets, send
from edgernn.recording import Recording
from edgernn_device.broker import TrialBroker

LOADS = [Load(0, 1, 20_000), Load(1, 1, 20_000), Load(1, 10, 4_000), Load(1, 100, 1_000)]
LOAD_ROUNDS = 3
ONE_SAMPLE = Load(1, 1, 1)
MANY = Load(1, 1, 10_000)
START_ROUNDS = 7
LIBRARIES = "import click, msgspec, numpy, onnxruntime, paho.mqtt.client"


def main() -> None:
    """Print the tables."""
    recording = pump()
    with tempfile.TemporaryDirectory() as name, TrialBroker(0, kind="mosquitto") as broker:
        folder = Path(name)
        (folder / MODEL).write_bytes(briefly_trained_artefact(recording))
        one, many = packets(recording, ONE_SAMPLE), packets(recording, MANY)
        print("## Agent: start\n")
        _start_table(folder, broker.port, one)
        print("## Agent: resident memory\n")
        _memory_table(folder, broker.port, many)
        print("## Agent: load\n")
        _load_table(folder, broker.port, recording)


def _start_table(folder: Path, port: int, one: bytes) -> None:
    python, edgernn = [sys.executable, "-c"], [sys.executable, "-m", "edgernn"]
    times: dict[str, list[float]] = {}
    for _ in range(START_ROUNDS):
        online_s, scored_s = _start(folder, port, one)
        for what, time_s in (
            ("Python alone", _run_time([*python, "pass"])),
            ("`edgernn --help`", _run_time([*edgernn, "--help"])),
            ("Python with the agent's libraries", _run_time([*python, LIBRARIES])),
            ('agent, until "online"', online_s),
            ("agent, until the first score", scored_s),
        ):
            times.setdefault(what, []).append(time_s)
    medians = {what: statistics.median(values) for what, values in times.items()}
    floor_s = medians["Python alone"]
    print(f"From the start of the process. Median of {START_ROUNDS}.\n")
    rows = [[what, f"{1e3 * s:,.0f}", f"{s / floor_s:.1f}"] for what, s in medians.items()]
    print(table(["what", "ms", "ratio to Python alone"], rows))


def _start(folder: Path, port: int, one: bytes) -> tuple[float, float]:
    """Seconds from the start of an agent to "online", and to its first score."""
    with observed(port) as seen:
        began_s = time.perf_counter()
        with running_agent(folder, port, qos=1, scores=True):
            online_s = wait_for(seen, "availability", lambda payload: payload == b"online")
            send(port, one, ONE_SAMPLE)
            scored_s = wait_for(seen, "score", bool)
        return online_s - began_s, scored_s - began_s


def _memory_table(folder: Path, port: int, many: bytes) -> None:
    code = f"{LIBRARIES}; print(open('/proc/self/status').read())"
    command = [sys.executable, "-c", code]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    libraries_mb = int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6
    with observed(port) as seen, running_agent(folder, port, qos=1) as process:
        wait_for(seen, "availability", lambda payload: payload == b"online")
        start_mb = status_mb("VmRSS", process.pid)
        send(port, many, MANY)
        wait_for_all(seen, MANY)
        loaded_mb = status_mb("VmRSS", process.pid)
    rows = [
        [what, f"{mb:.1f}", f"{mb / libraries_mb:.2f}"]
        for what, mb in (
            ("Python with the agent's libraries", libraries_mb),
            ("agent, once online", start_mb),
            (f"agent, after {MANY.messages:,} messages at once", loaded_mb),
        )
    ]
    print(table(["what", "MB", "ratio"], rows))


def _load_table(folder: Path, port: int, recording: Recording) -> None:
    rows = []
    for load in LOADS:
        content = packets(recording, load)
        times = [
            (_agent_time(folder, port, content, load), _count_time(port, content, load))
            for _ in range(LOAD_ROUNDS)
        ]
        ours_s, bare_s = map(statistics.median, zip(*times, strict=True))
        rows.append(
            [
                f"QoS {load.qos}, {load.block} in a message",
                *(f"{load.messages / time_s:,.0f}" for time_s in (ours_s, bare_s)),
                f"{bare_s / ours_s:.2f}",
                f"{load.samples / ours_s:,.0f}",
            ]
        )
    print(
        f"Samples of 10 streams, sent as fast as Mosquitto takes them, from the first byte sent "
        f"until all are scored; none may be lost. paho: a subscriber that only counts messages, "
        f"on the same broker and load. Median of {LOAD_ROUNDS}.\n"
    )
    titles = ["load", "agent, messages/s", "paho, messages/s", "agent / paho", "agent, samples/s"]
    print(table(titles, rows))


def _agent_time(folder: Path, port: int, content: bytes, load: Load) -> float:
    """Seconds from the first byte sent to the agent's word that it has scored everything."""
    with observed(port) as seen, running_agent(folder, port, qos=load.qos):
        wait_for(seen, "availability", lambda payload: payload == b"online")
        began_s = time.perf_counter()
        send(port, content, load)
        return wait_for_all(seen, load) - began_s


def _count_time(port: int, content: bytes, load: Load) -> float:
    """The same of a subscriber that only counts."""
    command = [sys.executable, "-m", "benchmarks.traffic", str(port), *map(str, load)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began_s = time.perf_counter()
        send(port, content, load)
        return float(process.stdout.readline()) - began_s  # one clock for all processes


def _run_time(command: Sequence[str]) -> float:
    began_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()
