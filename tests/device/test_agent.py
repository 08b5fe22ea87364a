"""The agent as a process of its own, on a real Mosquitto."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import PATIENCE_S, Listener, agent, online, play
from mosquitto import Mosquitto, find_mosquitto

from edgernn.errors import Exit
from edgernn_device.address import Access, BrokerAddress, Credentials
from edgernn_device.link import Link


def test_a_planted_fault_is_alerted_on_every_stream_and_a_healthy_one_stays_quiet(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path, faulty_csv: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto):
        online(listener)
        played = play(mosquitto, faulty_csv, "a", "b") + play(mosquitto, healthy_csv, "c")
        listener.wait_until_scored(played)
        found = {name: bool(listener.alerts(name)) for name in ("a", "b", "c")}
        assert found == {"a": True, "b": True, "c": False}


def test_two_streams_with_the_same_samples_get_the_same_alerts(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, faulty_csv: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto):
        online(listener)
        listener.wait_until_scored(play(mosquitto, faulty_csv, "a", "b"))
        edges = [[(x["edge"], x["time"], x["score"]) for x in listener.alerts(n)] for n in "ab"]
        assert edges[0] == edges[1]


def test_alerts_still_arrive_after_the_broker_was_restarted(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, faulty_csv: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto) as process:
        online(listener)
        mosquitto.restart()
        listener.wait_for(
            lambda: listener.messages["edgernn/pi/availability"].count("online") >= 2, "not back"
        )
        listener.wait_until_scored(play(mosquitto, faulty_csv, "a"))
        assert (process.poll(), bool(listener.alerts("a"))) == (None, True)


def test_sigterm_ends_the_agent_with_exit_code_0_and_availability_offline(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto) as process:
        online(listener)
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
        listener.wait_for(
            lambda: listener.last("edgernn/pi/availability") == "offline", "still online"
        )
        assert code == 0


def test_a_killed_agent_is_reported_offline_by_its_last_will(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto) as process:
        online(listener)
        process.kill()
        listener.wait_for(
            lambda: listener.last("edgernn/pi/availability") == "offline", "still online"
        )


def test_garbage_is_counted_by_reason_and_good_samples_go_on(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto):
        online(listener)
        link = Link(Access(address=BrokerAddress.parse(mosquitto.address)), client_id="garbage")
        link.start()
        for payload in (b"\xff\x00", b"[]", b'{"pressure": "high"}', b'{"colour": 3}', b"{" * 9999):
            link.publish("sensors/b/telemetry", payload, qos=1)
        link.stop()
        listener.wait_until_scored(play(mosquitto, healthy_csv, "a"))
        dropped = listener.last("edgernn/pi/health")["dropped"]
        expected = {"not_json": 2, "not_samples": 1, "not_a_number": 1, "no_channel": 1}
        assert dropped.items() >= expected.items()


def test_a_silent_stream_becomes_stale(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    quick = "[input]\nstale_after_s = 0.5\n"
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, more=quick):
        online(listener)
        play(mosquitto, healthy_csv, "a")
        listener.wait_for(
            lambda: (listener.last("edgernn/pi/a/state") or {}).get("state") == "stale", "not stale"
        )


def test_a_state_is_published_when_it_changes_and_not_with_every_sample(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto) as process:
        online(listener)
        listener.wait_until_scored(play(mosquitto, healthy_csv, "a"))
        process.terminate()
        assert process.wait(30) == 0
        said = [(one["state"], one["since"]) for one in listener.messages["edgernn/pi/a/state"]]
    assert {state for state, _ in said} >= {"warming_up", "off"}
    assert all(a != b for a, b in itertools.pairwise(said))
    assert all(a[0] != b[0] for a, b in itertools.pairwise(said))


def test_what_begins_to_be_counted_is_said_once(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto) as process:
        online(listener)
        listener.wait_until_scored(samples := play(mosquitto, healthy_csv, "a"))
        for times in (2, 3):
            play(mosquitto, healthy_csv, "a")
            listener.wait_for(
                lambda n=times * samples: listener.last("edgernn/pi/health")["messages"] == n,  # type: ignore[misc]
                "not taken",
            )
        process.terminate()
        _, said = process.communicate(timeout=30)
    lines = [line for line in said.splitlines() if "WARNING" in line and "late: " in line]
    assert len(lines) == 1
    assert "late: samples older than the stream's last; refused (said once" in lines[0]


def test_scores_are_published_on_request_and_no_more_often_than_asked(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    wanted = "scores = true\nscore_every_s = 60.0"
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, output=wanted):
        online(listener)
        played = play(mosquitto, healthy_csv, "a")
        listener.wait_until_scored(played)
        assert 1 <= len(listener.messages["edgernn/pi/a/score"]) <= played // 60 + 1


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that lets only "agent" in, with the password "right"."""
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    with Mosquitto(tmp_path, users={"agent": "right"}) as broker:
        yield broker


def guest(broker: Mosquitto, artefact: Path, password: str) -> "subprocess.Popen[str]":
    words = ("agent", str(artefact), "--node", "pi", "--broker", broker.address, "--user", "agent")
    return subprocess.Popen(
        [sys.executable, "-m", "edgernn", *words],
        env={**os.environ, "EDGERNN_MQTT_PASSWORD": password},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_password_from_the_environment_lets_the_agent_in(
    guarded: Mosquitto, artefact: Path
) -> None:
    process = guest(guarded, artefact, "right")
    with Listener(guarded, Credentials(user="agent", password="right")) as listener:
        online(listener)
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_a_wrong_password_is_said_in_one_line_with_the_brokers_exit_code(
    guarded: Mosquitto, artefact: Path
) -> None:
    process = guest(guarded, artefact, "wrong")
    _, said = process.communicate(timeout=PATIENCE_S)
    ours = [line for line in said.splitlines() if line.startswith("edgernn:")]
    assert (process.returncode, len(ours), "password" in ours[0]) == (Exit.BROKER, 1, True)


def test_faults_of_sensors_are_alerts_of_their_own_kind_and_stand_in_the_state(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    header, *rows = healthy_csv.read_text().splitlines()
    flow = header.split(",").index("flow [l/min]")
    cells = [row.split(",") for row in rows[:600]]
    for t, row in enumerate(cells):
        row[flow] = (
            cells[100][flow] if 100 <= t < 300 else "6553.5" if t in (400, 401) else row[flow]
        )
    recording = tmp_path / "faulty.csv"
    recording.write_text("\n".join([header, *map(",".join, cells)]))
    known = (
        "[sensors]\nrange_after = 2\n[channels.flow]\nhigh = 500\n[input]\nstale_after_s = 1.0\n"
    )
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, more=known):
        online(listener)
        listener.wait_until_scored(play(mosquitto, recording, "a"))
        listener.wait_for(lambda: len(sensor_alerts(listener)) == 5, "not five alerts of sensors")
        assert [(x["kind"], x["edge"]) for x in sensor_alerts(listener)] == [
            ("stuck", "on"),
            ("stuck", "off"),
            ("range", "on"),
            ("range", "off"),
            ("silent", "on"),
        ]
        assert len({x["id"] for x in sensor_alerts(listener)}) == 5
        faults = [state["faults"] for state in listener.messages["edgernn/pi/a/state"]]
        assert ["flow: stuck"] in faults
        listener.wait_for(
            lambda: listener.last("edgernn/pi/a/state")["state"] == "stale", "not stale"
        )
        listener.wait_for(
            lambda: listener.last("edgernn/pi/health")["dropped"] == {"out_of_range": 2}, "counts"
        )


def sensor_alerts(listener: Listener) -> list[dict[str, Any]]:
    return [one for one in listener.alerts("a") if one["kind"] != "anomaly"]


def test_a_stream_silent_for_long_leaves_nothing_retained(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    quick = "[input]\nstale_after_s = 0.3\nforget_after_s = 1.0\n"
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, more=quick):
        online(listener)
        play(mosquitto, healthy_csv, "a")
        listener.wait_for(lambda: listener.last("edgernn/pi/a/state") == "", "still retained")
        listener.wait_for(lambda: listener.last("edgernn/pi/health")["streams"] == 0, "still there")
        edges = [(x["kind"], x["edge"]) for x in listener.alerts("a")]
        assert edges == [("silent", "on"), ("silent", "off")]
