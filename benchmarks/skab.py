"""Real faults of a real pump, the whole way: train, export, broker, agents, replay, alerts.

    python benchmarks/skab.py -o build/skab

Needs Mosquitto and the SKAB recordings; docs/skab.md tells the story. Every step is the command a
user would type, in a process of its own. Labels are read where alarms are measured, nowhere else.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.measure import table
from benchmarks.skab_figures import (
    HEALTHY_ROWS,
    Figures,
    Spans,
    budget_alarms,
    mahalanobis,
    measure,
    plain_alarms,
    spans_of,
    z_score,
)
from benchmarks.skab_picture import draw
from edgernn.layout import Columns
from edgernn.recording import Track, read_recording
from edgernn.times import parse_time
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.link import Link, Message

HERE = Path(__file__).parent
DATA = Path(os.environ.get("EDGERNN_DATA", HERE.parents[1] / "shared" / "data"))
TRAINING_FILE = HERE.parent / "examples" / "skab.toml"
LABELS = Columns(ignore=("changepoint",))
AGENTS = {  # node: its artefact's weights, its budget of false alarms ("" = as the artefact says)
    "week": ("int8", ""),
    "week-float32": ("none", ""),
    "day": ("int8", "1/day"),
    "hour": ("int8", "1/hour"),
}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", **os.environ}
"""torch's threads wait for each other on a network this small: training took 8 minutes with two of
them on two busy cores, and 47 s with one."""
PATIENCE_S = 120.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    figures: tuple[Figures, ...]
    alarms: dict[str, dict[str, Spans]]
    """Method → stream → its alarms; an agent's are those on the alert topic."""
    blamed: dict[str, dict[str, int]]
    """Node → channel → alerts that name it first."""
    health: dict[str, dict[str, Any]]
    """Node → its last health message."""
    duration_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description="SKAB through the whole product, and beside it.")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/skab"))
    parser.add_argument("--training-file", type=Path, default=TRAINING_FILE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="instead of the table")
    said = parser.parse_args()
    files = sorted((DATA / "skab" / "valve1").glob("*.csv"), key=lambda path: int(path.stem))
    tracks = {path.stem: read_recording(path, columns=LABELS).tracks[0] for path in files}
    result = compare(said.output, said.training_file, files, tracks, seed=said.seed)
    (said.output / "result.json").write_bytes(msgspec.json.encode(result))
    draw(said.output / "skab.png", tracks, result.alarms, result.figures)
    print(msgspec.json.encode(result).decode() if said.json else report(result))


def compare(
    folder: Path,
    training_file: Path,
    files: Sequence[Path],
    tracks: Mapping[str, Track],
    *,
    seed: int,
) -> Result:
    """Everything in order: the product through its commands, then the plain methods."""
    began_s = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    local = folder / "skab.toml"  # the same file, its paths leading to the data from anywhere
    local.write_text(training_file.read_text().replace("../../shared/data", str(DATA.resolve())))
    edgernn("train", local, "-o", folder / "run", "--seed", seed, "--force")
    for weights in ("int8", "none"):
        edgernn("export", folder / "run", "-o", folder / f"{weights}.onnx", "--quantize", weights)
    listener = run_agents(folder, files, messages=sum(len(t.x) for t in tracks.values()))

    alarms = {f"edgernn {node}": listener.alarms(node) for node in AGENTS}
    for name, distance in (("z-score", z_score), ("Mahalanobis", mahalanobis)):
        for rule, decide in (("plain", plain_alarms), ("budget", budget_alarms)):
            alarms[f"{name}, {rule}"] = {
                stream: decide(track, distance(track.x, track.x[:HEALTHY_ROWS]))
                for stream, track in tracks.items()
            }
    alarms["always on"] = dict.fromkeys(tracks, ((0.0, None),))
    return Result(
        figures=tuple(measure(method, tracks, found) for method, found in alarms.items()),
        alarms=alarms,
        blamed={node: listener.blamed(node) for node in AGENTS},
        health=listener.health,
        duration_s=round(time.monotonic() - began_s, 1),
    )


def run_agents(folder: Path, files: Sequence[Path], *, messages: int) -> "Listener":
    """Broker, agents, and one file after the other replayed; what was heard meanwhile."""
    with ExitStack() as stack:
        log = folder / "broker.log"
        stack.enter_context(started("broker", "--port", 0, "--kind", "mosquitto", log=log))
        address = broker_address(log)
        listener = stack.enter_context(Listener(address))
        agents = []
        for node, (weights, budget) in AGENTS.items():
            settings = folder / f"{node}.toml"
            settings.write_text(f'model = "{weights}.onnx"\n[output]\nhealth_every_s = 0.5\n')
            words = ["agent", settings, "--broker", address, "--node", node]
            words += ["--false-alarms", budget] if budget else []
            agents.append(stack.enter_context(started(*words, log=folder / f"{node}.log")))
        listener.wait(0, agents)
        for path in files:  # named for its file; the label column is never sent
            edgernn("replay", path, "--speed", 0, "--broker", address)
        listener.wait(messages, agents)
    return listener


class Listener:
    """Collects every node's alerts, and its last health message."""

    def __init__(self, address: str) -> None:
        self.health: dict[str, dict[str, Any]] = {}
        self._alerts: dict[tuple[str, str], dict[str, Any]] = {}
        """By node and id: MQTT may deliver an alert twice."""
        self._link = Link(
            Access(address=BrokerAddress.parse(address)),
            client_id="skab-listener",
            subscriptions=[("edgernn/+/+/alert", 1), ("edgernn/+/health", 1)],
            on_message=self._take,
        )

    def __enter__(self) -> "Listener":
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def wait(self, messages: int, agents: Sequence[subprocess.Popen[bytes]]) -> None:
        """Until every agent says that it handled so many; what it alerted came before that."""
        until_s = time.monotonic() + PATIENCE_S
        while any(self.health.get(node, {}).get("messages", -1) < messages for node in AGENTS):
            self._link.raise_if_dead()
            if time.monotonic() > until_s or any(agent.poll() is not None for agent in agents):
                raise RuntimeError(f"not every agent got {messages} messages: {self.health}")
            time.sleep(0.1)

    def alarms(self, node: str) -> dict[str, Spans]:
        """Stream → its alarms; a stream without any is not there."""
        edges: dict[str, list[tuple[float, bool]]] = {}
        for alert in self._of(node):
            edge = (parse_time(alert["time"]), alert["edge"] == "on")
            edges.setdefault(alert["stream"], []).append(edge)
        return {stream: spans_of(sorted(found)) for stream, found in sorted(edges.items())}

    def blamed(self, node: str) -> dict[str, int]:
        """Channel → alerts that name it first when an alarm goes on."""
        return Counter(a["channels"][0]["name"] for a in self._of(node) if a["edge"] == "on")

    def _of(self, node: str) -> list[dict[str, Any]]:
        """Without those of streams that are silent because their file has ended."""
        return [
            alert
            for (whose, _), alert in self._alerts.items()
            if whose == node and alert["kind"] == "anomaly"
        ]

    def _take(self, message: Message) -> None:
        content = msgspec.json.decode(message.payload)
        if message.topic.endswith("/health"):
            self.health[message.topic.split("/")[1]] = content
        else:
            self._alerts[content["node"], content["id"]] = content
        self._link.ack(message)


def edgernn(*words: object) -> None:
    """Run a command to its end. It is shown, and what it says, on stderr."""
    print("$ edgernn", *words, file=sys.stderr, flush=True)
    subprocess.run(_command(words), check=True, stdout=sys.stderr, env=ENVIRONMENT)


@contextmanager
def started(*words: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background until the end of the block; what it says goes to `log`."""
    print("$ edgernn", *words, "&", file=sys.stderr, flush=True)
    with log.open("wb") as output:
        process = subprocess.Popen(_command(words), stdout=output, stderr=output, env=ENVIRONMENT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _command(words: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "edgernn", *map(str, words)]


def broker_address(log: Path) -> str:
    """Where the trial broker says that it listens."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        if found := re.search(r"mqtt://[\d.]+:\d+(?=:)", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise RuntimeError(f"no broker: {log.read_text()}")


def report(result: Result) -> str:
    """The table, and the delay in every file."""
    titles = ("method", "F1", "FAR", "FAR before", "MAR", "alerted", "on already", "false alarms")
    rows = [
        [
            f.method,
            *(f"{share:.3f}" for share in (f.f1, f.false_alarm_rate, f.rate_before)),
            f"{f.missed_alarm_rate:.3f}",
            *map(str, (f.alerted, f.on_already, f.false_alarms)),
            "–" if f.median_delay_s is None else f"{f.median_delay_s:.0f} s",
        ]
        for f in result.figures
    ]
    delays = [
        [f.method, *("–" if d is None else f"{d:.0f}" for d in f.delays_s.values())]
        for f in result.figures
    ]
    streams = list(result.figures[0].delays_s)
    blamed = "\n".join(f"{node} blames {channels}" for node, channels in result.blamed.items())
    return (
        f"{table((*titles, 'delay'), rows)}\n{table(('delay in s, file', *streams), delays)}\n"
        f"{blamed}\n{result.duration_s:.0f} s in all"
    )


if __name__ == "__main__":
    main()
