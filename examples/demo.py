"""The whole journey on one machine: simulate, train, export, broker, agent, alerts, a picture.

Every part is a process of its own, talking over a real socket. Ends by itself; exit code 0 only if
every planted fault was alerted and the healthy stream was not.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgernn.card import Card
from edgernn.recording import Track, read_recording
from edgernn.report import FAULT_COLOUR, RED, STYLE, dates_of, plot_score, shade
from edgernn.times import parse_time
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.engine import Engine
from edgernn_device.link import Link, Message

HOURS = 2.5
SPEED = 240
"""Times real time: 2.5 hours in 38 s."""
PLANTED = {
    "pump-1": ("cavitation@40m", "stuck:pressure@80m"),
    "pump-2": ("leak@20m", "bearing@50m"),
    "pump-3": (),
}
"""Stream → its faults; a stream without any must stay quiet."""
AFTERMATH_S = 60
"""The detector's window still remembers a fault for so long."""
EDGERNN = (sys.executable, "-m", "edgernn")


class Alarm(NamedTuple):
    on_s: float
    off_s: float


class Found(NamedTuple):
    stream: str
    fault: str
    at: str
    delay_s: float | None


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    healthy, artefact = folder / "healthy.csv", folder / "pump.onnx"
    step("a healthy pump for eight hours, and three pumps to watch")
    edgernn("simulate", "pump", "--hours", "8", "--seed", "1", "-o", healthy)
    for seed, (stream, faults) in enumerate(PLANTED.items(), start=2):
        wanted = [word for fault in faults for word in ("--fault", fault)]
        edgernn(
            "simulate", "pump", "--hours", HOURS, "--seed", seed, *wanted, "-o", csv(folder, stream)
        )
    step("train on the healthy one")
    edgernn("train", healthy, "-o", folder / "run", "--force")
    step("export: int8, proven against the trained detector")
    edgernn("export", folder / "run", "-o", artefact)
    step(f"watch three pumps over MQTT, {SPEED} times as fast as real ones")
    alerts, scores = watch_pumps(folder, artefact)
    step("what was planted, and what was found")
    engine = Engine.load(artefact)
    tracks = {name: read_recording(csv(folder, name)).tracks[0] for name in PLANTED}
    alarms = {name: alarms_of(alerts, name) for name in PLANTED}
    found = [row for name in PLANTED for row in compare(name, tracks[name], alarms[name])]
    false = {name: false_alarms(tracks[name], alarms[name]) for name in PLANTED}
    print_table(found, false)
    draw(folder / "demo.png", engine.card, tracks, scores, alarms)
    print(f"\n{folder / 'demo.png'}: signals, scores, threshold, alerts")
    took_s = time.monotonic() - began_s
    print(f"{folder / 'alerts.jsonl'}: {len(alerts)} alerts; {took_s:.0f} s in all")
    is_good = all(row.delay_s is not None for row in found) and not any(
        alarms[name] for name, faults in PLANTED.items() if not faults
    )
    print("every planted fault was found, the healthy pump stayed quiet" if is_good else "FAILED")
    return 0 if is_good else 1


def watch_pumps(
    folder: Path, artefact: Path
) -> tuple[list[dict[str, Any]], dict[str, list[tuple[float, float, float]]]]:
    """Broker, agent, watch and one replay a stream; alerts, and (time, score) by stream."""
    with ExitStack() as stack:
        broker = stack.enter_context(running("broker", "--port", "0", stdout=subprocess.PIPE))
        address = re.findall(r"mqtt://[\w.]+:\d+", first_line(broker))[0]
        print(f"  broker at {address}")
        listener = stack.enter_context(Listener(address))
        log = stack.enter_context((folder / "agent.log").open("w"))
        agent = stack.enter_context(
            running("agent", write_config(folder, artefact, address), stderr=log)
        )
        listener.wait_for(lambda: listener.health, "the agent's first report")
        jsonl = stack.enter_context((folder / "alerts.jsonl").open("w"))
        stack.enter_context(running("watch", "--json", "--broker", address, stdout=jsonl))
        stack.enter_context(running("watch", "--broker", address))  # for you to read
        time.sleep(1.0)  # both are subscribed
        replays = [
            stack.enter_context(
                running(
                    *("replay", csv(folder, stream), "--broker", address),
                    *("--stream", stream, "--speed", str(SPEED)),
                    stdout=subprocess.DEVNULL,
                )
            )
            for stream in PLANTED
        ]
        for replay in replays:
            if replay.wait(timeout=HOURS * 3600 / SPEED + 120):
                raise SystemExit("a replay failed")
        samples = len(PLANTED) * round(HOURS * 3600)
        listener.wait_for(lambda: listener.health.get("samples") == samples, f"{samples} samples")
        agent.terminate()
        if code := agent.wait(timeout=30):
            raise SystemExit(f"the agent ended with {code}; see {folder / 'agent.log'}")
        listener.wait_for(lambda: listener.availability == "offline", "the agent to say goodbye")
        time.sleep(0.5)  # the last alert is printed
        print(f"  agent: {listener.health['rss_mb']:.0f} MB, dropped {listener.health['dropped']}")
    lines = (folder / "alerts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], listener.scores


class Listener:
    """What the agent says beside alerts: scores, health, availability."""

    def __init__(self, address: str) -> None:
        self.scores: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PLANTED}
        self.health: dict[str, Any] = {}
        self.availability = ""
        self._changed = threading.Condition()
        self._link = Link(
            Access(address=BrokerAddress.parse(address)),
            client_id="demo-listener",
            subscriptions=[("edgernn/demo/#", 1)],
            on_message=self._take,
        )

    def __enter__(self) -> "Listener":
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def wait_for(self, is_there: Any, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(is_there, timeout=60):
                raise SystemExit(f"waited in vain for {what}")

    def _take(self, message: Message) -> None:
        *_, stream, kind = message.topic.split("/")
        with self._changed:
            if kind == "availability":
                self.availability = message.payload.decode()
            elif kind == "health":
                self.health = json.loads(message.payload)
            elif kind == "score":
                said = json.loads(message.payload)
                value = float("nan") if said["score"] is None else said["score"]
                row = (parse_time(said["time"]), value, said["threshold"])
                self.scores[stream].append(row)
            self._changed.notify_all()
        self._link.ack(message)


def compare(stream: str, track: Track, alarms: list[Alarm]) -> Iterator[Found]:
    """Every planted fault, and how long after its start an alarm was on."""
    assert track.label is not None
    for label in dict.fromkeys(track.label[track.label != ""]):
        start_s, end_s = (float(t) for t in track.time_s[track.label == label][[0, -1]])
        on = [max(a.on_s, start_s) for a in alarms if a.on_s <= end_s and a.off_s >= start_s]
        at = f"{(start_s - track.time_s[0]) / 60:.0f} min"
        yield Found(stream, str(label), at, min(on) - start_s if on else None)


def false_alarms(track: Track, alarms: list[Alarm]) -> int:
    """Alarms that went on while the pump was healthy, and had been for `AFTERMATH_S`."""
    assert track.label is not None
    faulty_s = track.time_s[track.label != ""]
    return sum(
        not ((faulty_s <= a.on_s) & (faulty_s >= a.on_s - AFTERMATH_S)).any() for a in alarms
    )


def alarms_of(alerts: list[dict[str, Any]], stream: str) -> list[Alarm]:
    """On- and off-alerts of one stream as pairs; one that never went off ends at infinity."""
    mine = {
        edge: [a for a in alerts if a["stream"] == stream and a["edge"] == edge]
        for edge in ("on", "off")
    }
    off_s = {a["onset"]: parse_time(a["time"]) for a in mine["off"]}
    return [Alarm(parse_time(a["time"]), off_s.get(a["onset"], float("inf"))) for a in mine["on"]]


def print_table(found: list[Found], false: dict[str, int]) -> None:
    print(f"  {'stream':8} {'planted fault':14} {'at':>8}  found after")
    for row in found:
        outcome = "MISSED" if row.delay_s is None else f"{row.delay_s:.0f} s"
        print(f"  {row.stream:8} {row.fault:14} {row.at:>8}  {outcome}")
    for name, count in false.items():
        kind = "healthy stretches" if PLANTED[name] else "healthy throughout"
        print(f"  {name:8} {kind:23}  {count} false alarm(s)")


def plot_signals(axes: Axes, card: Card, track: Track) -> None:
    """All channels of a stream in one plot, each scaled to the range it was trained on."""
    for c, channel in enumerate(card.channels):
        span = max(channel.high - channel.low, 1e-9)
        x = (track.x[:, c] - channel.low) / span
        axes.plot(dates_of(track.time_s), x, lw=0.6, alpha=0.9, label=channel.name)
    axes.set_ylim(-0.3, 1.3)
    axes.set_ylabel("channels,\nscaled", rotation=0, ha="right", va="center")


def draw(
    path: Path,
    card: Card,
    tracks: dict[str, Track],
    scores: dict[str, list[tuple[float, float, float]]],
    alarms: dict[str, list[Alarm]],
) -> None:
    """Signals, score, threshold, planted faults and alarms of every stream."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.2 * len(tracks)), layout="constrained")
        rows = figure.subplots(
            2 * len(tracks), 1, sharex=True, height_ratios=[1.2, 1] * len(tracks)
        )
        for i, (name, track) in enumerate(tracks.items()):
            signals, score = rows[2 * i], rows[2 * i + 1]
            plot_signals(signals, card, track)
            signals.set_title(name, loc="left", fontweight="bold")
            said = np.array(scores[name])
            plot_score(score, said[:, 0], said[:, 1].astype(np.float32), said[:, 2])
            assert track.label is not None
            on = np.zeros(len(track.time_s), bool)
            for alarm in alarms[name]:
                on |= (track.time_s >= alarm.on_s) & (track.time_s <= alarm.off_s)
            for axes in (signals, score):
                shade(
                    axes,
                    track.time_s,
                    track.label != "",
                    colour=FAULT_COLOUR,
                    label="planted fault",
                )
            shade(score, track.time_s, on, colour=RED, label="alarm on", alpha=0.3)
            score.legend(loc="upper right", frameon=False, ncols=3)
        rows[0].legend(loc="upper right", frameon=False, ncols=7, bbox_to_anchor=(1, 1.25))
        figure.savefig(path, dpi=110)


def write_config(folder: Path, artefact: Path, address: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(
        f'model = "{artefact.name}"\nnode = "demo"\n'
        f'[broker]\naddress = "{address}"\n'
        "[output]\nscores = true\nscore_every_s = 5.0\nhealth_every_s = 1.0\n"
    )
    return path


def csv(folder: Path, stream: str) -> Path:
    return folder / f"{stream}.csv"


def step(what: str) -> None:
    print(f"\n== {what}", flush=True)


def edgernn(*words: object) -> None:
    """Run one command to its end, shown as you would type it."""
    print("$ edgernn", *words, flush=True)
    if subprocess.run([*EDGERNN, *map(str, words)], check=False).returncode:
        raise SystemExit(f"edgernn {words[0]} failed")


@contextmanager
def running(*words: object, **pipes: Any) -> Iterator[subprocess.Popen[str]]:
    """A command in the background; ended when the block ends."""
    print("$ edgernn", *words, "&", flush=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([*EDGERNN, *map(str, words)], text=True, env=environment, **pipes)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


if __name__ == "__main__":
    sys.exit(main())
