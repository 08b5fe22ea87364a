"""Ten times what the device can score. EDGERNN_OVERLOAD_S is how long, in seconds: `make overload`
takes five minutes for each policy."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import PATIENCE_S, Listener, online, play
from flood import Flood
from mosquitto import Mosquitto, find_mosquitto

OVERLOAD_S = float(os.environ.get("EDGERNN_OVERLOAD_S", "3"))
SAMPLE_S = 0.002
"""What the slowed agent takes for a sample, beside its own work."""
RATE = 10 / SAMPLE_S
STREAMS = 3
INBOX = 500
ALLOWED_GROWTH_MB = 3.0
"""Of the resident memory; what is given up in 3 s would take 7."""
SLOWLY = Path(__file__).parents[1] / "agent_slowly.py"


@contextmanager
def slow_agent(
    folder: Path, artefact: Path, broker: Mosquitto, *words: str, more: str = ""
) -> Iterator["subprocess.Popen[str]"]:
    path = folder / "agent.toml"
    path.write_text(
        f'model = "{artefact}"\nnode = "pi"\n[output]\nhealth_every_s = 0.2\n'
        f'[store]\npath = "agent.db"\n[broker]\naddress = "{broker.address}"\n'
        f"keepalive_s = 2\n{more}"
    )
    process = subprocess.Popen(
        [sys.executable, str(SLOWLY), str(path), *words], stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def rss_mb(process: "subprocess.Popen[str]") -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def work_off(listener: Listener, flood: Flood) -> dict[str, Any]:
    """The health report once every message that was sent is scored, or missed by its number."""

    def is_done() -> bool:
        health = listener.last("edgernn/pi/health")
        return bool(health["messages"] + health["dropped"].get("lost", 0) == flood.sent)

    listener.wait_for(is_done, "not worked off")
    found: dict[str, Any] = listener.last("edgernn/pi/health")
    return found


@pytest.mark.timeout(60 + 10 * OVERLOAD_S)
@pytest.mark.parametrize(
    ("when_full", "qos", "counted"),
    [
        ("drop-oldest", 0, "inbox_full"),
        ("keep-latest", 0, "inbox_replaced"),
        ("drop-oldest", 1, "inbox_full"),  # acknowledged, or the broker would stop
        ("keep-latest", 1, "inbox_replaced"),
        ("stop-reading", 1, "lost"),  # by the broker, which says nothing: seen by seq
    ],
)
def test_ten_times_too_much_leaves_memory_flat_every_message_counted_and_soon_forgotten(
    tmp_path: Path,
    artefact: Path,
    healthy_csv: Path,
    when_full: str,
    qos: int,
    counted: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    options: tuple[str, ...] = ("max_queued_messages 1000",)
    if qos and when_full != "stop-reading":
        options += ("max_inflight_messages 2000",)  # with 20 the inbox is never full
    small = f'[input]\nqos = {qos}\ninbox = {INBOX}\nwhen_full = "{when_full}"\n'
    with (
        Mosquitto(tmp_path, options=options) as broker,
        Listener(broker) as listener,
        slow_agent(tmp_path, artefact, broker, str(SAMPLE_S), more=small) as process,
    ):
        online(listener)
        with Flood(broker.port, healthy_csv, streams=STREAMS) as flood:
            flood.send(rate=RATE, duration_s=1.0)  # warm
            before_mb = rss_mb(process)
            flood.send(rate=RATE, duration_s=OVERLOAD_S)
            after_mb = rss_mb(process)
            ended_s = time.monotonic()
            listener.wait_for(
                lambda: listener.last("edgernn/pi/health")["inbox"] == 0, "not recovered"
            )
            flood.send(rate=100, duration_s=0.3)  # as usual again; also shows the last gap
            health = work_off(listener, flood)
            recovered_s = time.monotonic() - ended_s
        given_up = health["dropped"][counted]
        with capsys.disabled():
            print(
                f"\n| {when_full}, QoS {qos} | {flood.sent:,} | {health['messages']:,} "
                f"| {given_up:,} | {before_mb:.1f} | {after_mb:.1f} | {recovered_s:.1f} s |"
            )
    assert given_up > flood.sent / 2  # it was too much
    assert after_mb - before_mb < ALLOWED_GROWTH_MB
    assert recovered_s < 0.3 + 2 * (INBOX + 1000) * SAMPLE_S + 2
    assert health["reconnects"] == 0


@pytest.mark.parametrize("part", ["worker", "network"])
def test_a_part_that_hangs_ends_the_agent_and_its_last_will_says_offline(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path, part: str
) -> None:
    words = ("0", f"stuck-{part}", "1.0")
    with (
        Listener(mosquitto) as listener,
        slow_agent(tmp_path, artefact, mosquitto, *words) as process,
    ):
        online(listener)
        began_s = time.monotonic()
        play(mosquitto, healthy_csv, "stuck")
        code = process.wait(PATIENCE_S)
        assert time.monotonic() - began_s < 5
        listener.wait_for(
            lambda: listener.last("edgernn/pi/availability") == "offline", "still online"
        )
        assert code == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert f"the {part} has not moved for 1 s" in said
