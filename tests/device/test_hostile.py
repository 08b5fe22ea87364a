"""An agent among publishers who mean no good, and brokers that come and go: nothing grows, nothing
is invented, and whoever supervises the process hears the truth."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import Listener, agent, online, play
from mosquitto import Mosquitto, find_mosquitto

from edgernn_device.address import Access, BrokerAddress
from edgernn_device.agent import Agent
from edgernn_device.config import AgentConfig, BrokerConfig, InputConfig, OutputConfig, StoreConfig
from edgernn_device.engine import Engine
from edgernn_device.inbox import LONGEST_TOPIC
from edgernn_device.link import Link
from edgernn_device.payload import LARGEST_PAYLOAD
from edgernn_device.watchdog import FRESH_S

WAIT_S = 20.0
SAMPLE = '{"pressure": 2.5, "flow": 60.0}'
OLD = "pump-of-yore"
LATER = '{"time": %d, "pressure": 2.5, "flow": 60.0}'


@contextmanager
def publisher(broker: Mosquitto) -> Iterator[Callable[..., None]]:
    """`say(stream, payload, retain=…)`; all has arrived at the end."""
    link = Link(Access(address=BrokerAddress.parse(broker.address)), client_id="publisher")
    link.start()

    def say(stream: str, payload: str | bytes = SAMPLE, *, retain: bool = False) -> None:
        data = payload if isinstance(payload, bytes) else payload.encode()
        link.publish(f"sensors/{stream}/telemetry", data, qos=1, retain=retain)

    try:
        yield say
    finally:
        link.stop()


def health_when(listener: Listener, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    nothing: dict[str, Any] = {"messages": 0, "samples": 0, "dropped": {}}
    listener.wait_for(
        lambda: bool(is_so(listener.last("edgernn/pi/health") or nothing)), "not as expected"
    )
    found: dict[str, Any] = listener.last("edgernn/pi/health")
    return found


def test_a_retained_sample_is_scored_once_and_not_at_every_new_connection(
    tmp_path: Path, artefact: Path
) -> None:
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    with Mosquitto(tmp_path, is_persistent=True) as broker:
        with publisher(broker) as say:
            say("dated", LATER % 1_700_000_000, retain=True)
            say("undated", retain=True)
        time.sleep(0.3)
        with Listener(broker) as listener, agent(tmp_path, artefact, broker):
            health = health_when(listener, lambda h: h["messages"] == 2)
            assert (health["samples"], health["dropped"]) == (1, {"retained": 1})
            broker.restart()
            health = health_when(listener, lambda h: h["messages"] == 4)
            assert (health["samples"], health["dropped"]) == (1, {"retained": 3})


def test_a_new_stream_takes_the_place_of_a_stale_one_of_which_nothing_is_left(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    config = AgentConfig(
        model=str(artefact),
        node="pi",
        store=StoreConfig(path="agent.db"),
        broker=BrokerConfig(address=mosquitto.address),
        input=InputConfig(max_streams=2, stale_after_s=1.0),
        output=OutputConfig(scores=True, score_every_s=0.0, health_every_s=0.1),
    )
    ours = Agent(config, Engine.load(artefact), base=tmp_path, where="test")
    stop = threading.Event()
    thread = threading.Thread(target=ours.run, args=(stop,))
    with Listener(mosquitto) as listener, publisher(mosquitto) as say:
        thread.start()
        online(listener)
        say(OLD)
        say("young")
        health_when(listener, lambda h: h["samples"] == 2)
        say("new")
        health = health_when(listener, lambda h: h["messages"] == 3)
        assert (health["streams"], health["dropped"]) == (2, {"too_many_streams": 1})
        for _ in range(8):  # "young" goes on, "old" falls silent
            time.sleep(0.2)
            say("young")
        say("new")
        listener.wait_for(lambda: bool(listener.messages.get("edgernn/pi/new/state")), "not new")
        health = health_when(listener, lambda h: h["dropped"].get("made_room"))
        assert health["streams"] == 2
        listener.wait_for(lambda: listener.last(f"edgernn/pi/{OLD}/state") == "", "still retained")
        stop.set()
        thread.join(WAIT_S)
        left = [
            name
            for name, value in vars(ours).items()
            if OLD in repr(vars(value) if hasattr(value, "__dict__") else value)
        ]
        assert left == []
        assert set(ours._monitor.streams) == {"young", "new"}


def test_made_up_names_drive_nobody_out_and_do_not_fill_the_memory(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    few = "[input]\nmax_streams = 20\n"
    with (
        Listener(mosquitto) as listener,
        agent(tmp_path, artefact, mosquitto, more=few) as process,
        publisher(mosquitto) as say,
    ):
        online(listener)
        say("ours", LATER % 1_700_000_000)
        for number in range(5000):  # more than the messages that are remembered to know repeats
            say(f"{number}-{'x' * 100}")
        health_when(listener, lambda h: h["messages"] == 5001)
        statm = Path(f"/proc/{process.pid}/statm")
        before = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for number in range(10_000):
            say(f"{number}-{'y' * 100}")
        say("ours", LATER % 1_700_000_001)
        health = health_when(listener, lambda h: h["messages"] == 15_002)
        after = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert after - before < 5e6  # without the cap: 36
    assert health["streams"] == 20
    assert health["samples"] == 21
    assert health["dropped"] == {"too_many_streams": 15_002 - 21}


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_what_is_too_large_is_refused_and_with_mqtt_5_not_even_sent(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, protocol: str
) -> None:
    spoken = f'protocol = "{protocol}"\n[input]\nsubscribe = "sensors/{{stream}}/#"\n'
    with (
        Listener(mosquitto) as listener,
        agent(tmp_path, artefact, mosquitto, more=spoken),
        publisher(mosquitto) as say,
    ):
        online(listener)
        say("a", bytes(LARGEST_PAYLOAD + 1))
        say("a", bytes(2 * LARGEST_PAYLOAD))
        say(f"a/{'t' * LONGEST_TOPIC}")
        say("a")
        health = health_when(listener, lambda h: h.get("samples") == 1)
        too_large = {"3.1.1": 2, "5": 1}[protocol]  # the first still fits into a packet
        assert health["dropped"] == {"too_large": too_large, "topic_too_long": 1}
        assert health["reconnects"] == 0


def test_an_outage_leaves_one_health_report_and_a_stale_stream_stays_stale(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    quick = "[input]\nstale_after_s = 0.3\n"
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, more=quick):
        online(listener)
        play(mosquitto, healthy_csv, "a")
        states = "edgernn/pi/a/state"
        listener.wait_for(
            lambda: (listener.last(states) or {}).get("state") == "stale", "not stale"
        )
        mosquitto.stop()
        time.sleep(2.0)  # ten reports' time
        said = len(listener.messages[states])
        began_uptime_s = listener.last("edgernn/pi/health")["uptime_s"]
        mosquitto.start()
        listener.wait_for(lambda: len(listener.messages[states]) > said, "not said again")
        again = [state["state"] for state in listener.messages[states][said:]]
        assert set(again) == {"stale"}
        reports = [h["uptime_s"] for h in listener.messages["edgernn/pi/health"]]
        old = [s for s in reports if began_uptime_s < s < began_uptime_s + 1.5]
        assert len(old) <= 1


@contextmanager
def supervised(
    folder: Path, artefact: Path, address: str, *words: str
) -> Iterator[tuple["subprocess.Popen[bytes]", socket.socket]]:
    """An agent as systemd would start it, and the socket on which it reports."""
    name = f"edgernn-{os.getpid()}-{time.monotonic_ns()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(f"\0{name}")
    listener.settimeout(WAIT_S)
    (folder / "agent.toml").write_text(
        f'model = "{artefact}"\nnode = "pi"\n[output]\nhealth_every_s = 0.2\n'
        f'[broker]\naddress = "{address}"\n[store]\npath = "agent.db"\n'
    )
    program = Path(__file__).parents[1] / "agent_slowly.py"
    process = subprocess.Popen(
        [sys.executable, str(program), str(folder / "agent.toml"), "0", *words],
        env={**os.environ, "NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "600000"},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, listener
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        listener.close()


def heard(listener: socket.socket, *, for_s: float) -> list[str]:
    """What is said from now on."""
    found, until_s = [], time.monotonic() + for_s
    while (left_s := until_s - time.monotonic()) > 0:
        listener.settimeout(left_s)
        try:
            found.append(listener.recv(4096).decode())
        except TimeoutError:
            break
    return found


def test_systemd_hears_ready_then_that_all_is_well_also_without_a_broker_and_then_the_end(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    with supervised(tmp_path, artefact, mosquitto.address) as (process, systemd):
        assert systemd.recv(4096) == b"READY=1"
        said = heard(systemd, for_s=1.0)
        assert said.count("WATCHDOG=1") >= 3
        assert "STATUS=connected; 0 streams, 0 samples" in said
        mosquitto.stop()
        said = heard(systemd, for_s=1.5)
        assert said.count("WATCHDOG=1") >= 4
        assert any("nothing listens there" in line for line in said)
        process.terminate()
        assert "STOPPING=1" in heard(systemd, for_s=1.0)


@pytest.mark.parametrize("part", ["worker", "network"])
def test_systemd_hears_nothing_more_once_a_part_hangs(
    tmp_path: Path,
    mosquitto: Mosquitto,
    artefact: Path,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (f"stuck-{part}", "60")
    with supervised(tmp_path, artefact, mosquitto.address, *words) as (_, systemd):
        assert systemd.recv(4096) == b"READY=1"
        assert "WATCHDOG=1" in heard(systemd, for_s=1.0)
        with publisher(mosquitto) as say:
            say("stuck")
        heard(systemd, for_s=1.0 if part == "worker" else FRESH_S + 0.5)
        assert "WATCHDOG=1" not in heard(systemd, for_s=1.0)
