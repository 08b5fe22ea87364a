"""`edgernn agent --check`: a line for each thing an agent needs, and the first failure's code."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from agents import Listener, agent, online
from mosquitto import Mosquitto, find_mosquitto, free_port

from edgernn.errors import Exit
from edgernn_device.address import Access, BrokerAddress, Credentials
from edgernn_device.broker import TrialBroker
from edgernn_device.link import Link
from edgernn_device.shipped import GENERAL

ACL = """
user agent
topic read sensors/#
topic write edgernn/pi/#

user mute
topic read sensors/#

user deaf
topic write edgernn/pi/#

user sensor
topic write sensors/#
"""
CHANNELS = ("vibration", "pressure", "flow", "current", "temperature", "speed")
APART = '[input]\nsubscribe = "home/{stream}/{channel}"\n'
SAMPLE = json.dumps({"time": "2026-01-05T05:00:00Z"} | dict.fromkeys(CHANNELS, 1)).encode()


class Checked(NamedTuple):
    code: int
    lines: list[list[str]]
    """Level, what, sentence."""
    stderr: str

    def of(self, what: str) -> list[tuple[str, str]]:
        return [(level, sentence) for level, name, sentence in self.lines if name == what]

    @property
    def failed(self) -> list[str]:
        return [name for level, name, _ in self.lines if level == "FAIL"]


def check(
    folder: Path,
    artefact: Path,
    address: str,
    *,
    more: str = "",
    head: str = "",
    password: str = "",
) -> Checked:
    path = folder / "agent.toml"
    path.write_text(
        f'model = "{artefact}"\nnode = "pi"\n{head}\n[broker]\naddress = "{address}"\n{more}'
    )
    path.chmod(0o644)
    return check_file(path, password=password)


def check_file(path: Path, *, password: str = "") -> Checked:
    done = subprocess.run(
        [sys.executable, "-m", "edgernn", "agent", "--check", str(path)],
        env={**os.environ, "EDGERNN_MQTT_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [[line[:4].strip(), line[6:15].strip(), line[16:]] for line in done.stdout.splitlines()]
    return Checked(done.returncode, lines, done.stderr)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with an agent's least rights, and users that lack one of them."""
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    acl = tmp_path / "acl"
    acl.write_text(ACL)
    acl.chmod(0o600)
    users = dict.fromkeys(("agent", "mute", "deaf", "sensor"), "right")
    with Mosquitto(tmp_path, users=users, options=(f"acl_file {acl}",)) as broker:
        sense(broker.address, Credentials(user="sensor", password="right"))
        yield broker


@pytest.fixture
def sensed(mosquitto: Mosquitto) -> Mosquitto:
    """An open broker with a sample on it, so that nobody waits for one."""
    sense(mosquitto.address)
    return mosquitto


def sense(address: str, credentials: Credentials | None = None) -> None:
    access = Access(address=BrokerAddress.parse(address), credentials=credentials)
    link = Link(access, client_id="sensor")
    link.start()
    link.publish("sensors/p7/telemetry", SAMPLE, qos=1, retain=True)
    assert link.stop() == 0


def test_a_whole_setup_passes_and_each_part_has_its_line(
    tmp_path: Path, sensed: Mosquitto, artefact: Path
) -> None:
    found = check(tmp_path, artefact, sensed.address)
    assert (found.code, found.failed, found.stderr) == (0, [], "")
    assert [what for _, what, _ in found.lines] == [
        *("config", "artefact", "artefact", "state", "rights", "broker", "publish", "samples")
    ]
    heard = f"sensors/+/telemetry: heard stream 'p7', retained, all of {len(CHANNELS)} channels"
    assert found.of("samples") == [("ok", heard)]
    assert not (tmp_path / "state").exists()  # it proves that it can be made, and leaves it
    assert "golden samples" in found.of("artefact")[1][1]


@pytest.mark.parametrize(
    ("more", "level", "sentence"),
    [
        ('map = { flow = "data.flow" }', "warn", "without flow"),
        ('map = { flwo = "data.flow" }', "FAIL", "input.map.flwo: no such channel"),
    ],
)
def test_a_map_that_does_not_fit_what_comes_is_found_out(
    tmp_path: Path, sensed: Mosquitto, artefact: Path, more: str, level: str, sentence: str
) -> None:
    found = check(tmp_path, artefact, sensed.address, more=f"[input]\n{more}\n")
    said = found.of("samples" if level == "warn" else "artefact")
    assert any(one == level and sentence in text for one, text in said), said


def test_channels_that_were_mistyped_are_named_with_those_that_came(
    tmp_path: Path, sensed: Mosquitto
) -> None:
    told = f"channels = {[*CHANNELS[:-2], 'sped']}\nperiod_s = 1.0\n"
    found = check(tmp_path, Path(GENERAL), sensed.address, more=f"[input]\n{told}")
    ((level, said),) = found.of("samples")
    assert (level, said.partition("retained")[2]) == (
        "warn",
        ", without sped; speed, temperature came, which no channel is called",
    )
    assert found.of("artefact")[0][0] == "ok"
    assert found.of("artefact")[0][1].endswith("; comes with edgernn")


@pytest.mark.parametrize(
    ("more", "topic", "payload", "sentence"),
    [
        (APART, "home/p7/flwo", b"1", "of 'flwo', which is no channel; expected vibration"),
        ("", "sensors/p7/telemetry", b'{"flow": 1}', "old news, which the agent refuses"),
        ("", "sensors/p7/telemetry", b"bananas", "refused as not_json: "),
        (
            '[input]\nbefore_2000 = "refuse"\n',
            "sensors/p7/telemetry",
            b'{"time": 5, "flow": 1}',
            "before_2000: the sender's clock seems not to be set",
        ),
        ("", "sensors/p7/telemetry", b'{"\\nok    fine": 1, "time": 1767591600}', "no_channel"),
    ],
    ids=["channel", "retained", "json", "clock", "forged"],
)
def test_what_the_agent_would_refuse_the_check_does_not_pass(
    tmp_path: Path,
    mosquitto: Mosquitto,
    artefact: Path,
    more: str,
    topic: str,
    payload: bytes,
    sentence: str,
) -> None:
    link = Link(Access(address=BrokerAddress.parse(mosquitto.address)), client_id="sensor")
    link.start()
    link.publish(topic, payload, qos=1, retain=True)
    assert link.stop() == 0
    found = check(tmp_path, artefact, mosquitto.address, more=more)
    ((level, said),) = found.of("samples")
    assert (level, sentence in said) == ("warn", True), said
    assert len(said) < 400


def test_a_port_for_metrics_that_is_taken_is_said(
    tmp_path: Path, sensed: Mosquitto, artefact: Path
) -> None:
    pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f'[metrics]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'
        found = check(tmp_path, artefact, sensed.address, more=listen)
    assert (found.code, found.of("config")[0][0]) == (0, "warn")
    assert "Address already in use; by this agent, if it runs already" in found.of("config")[0][1]


def test_a_fault_that_meets_several_parts_is_said_once(tmp_path: Path, artefact: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'model = "{artefact}"\nnode = "a/b"\n')
    found = check_file(path)
    assert len([one for one in found.lines if one[0] == "FAIL"]) == 1


def test_a_running_agent_is_not_disturbed(
    tmp_path: Path, sensed: Mosquitto, artefact: Path
) -> None:
    with Listener(sensed) as listener, agent(tmp_path, artefact, sensed) as process:
        online(listener)
        assert check_file(tmp_path / "agent.toml").code == 0
        assert process.poll() is None
        assert listener.last("edgernn/pi/health")["reconnects"] == 0
        assert listener.messages["edgernn/pi/availability"] == ["online"]
        listener.wait_for(lambda: bool(listener.last("edgernn/pi/check")), "no check")


def test_a_wrong_file_ends_the_check_with_2(tmp_path: Path, artefact: Path) -> None:
    found = check(tmp_path, artefact, "mqtt://localhost", more="keepalive_s = 1\n")
    assert (found.code, len(found.lines), found.failed) == (Exit.SETTINGS, 1, ["config"])
    assert "keepalive_s: expected 2–65535, got 1" in found.of("config")[0][1]


def test_every_fault_is_said_and_the_first_gives_the_code(tmp_path: Path) -> None:
    found = check(tmp_path, tmp_path / "no.onnx", f"mqtt://127.0.0.1:{free_port()}")
    assert (found.code, found.failed) == (Exit.ARTEFACT, ["artefact", "broker"])


def test_an_artefact_of_a_wrong_task_is_a_fault_of_the_file(
    tmp_path: Path, sensed: Mosquitto, artefact: Path
) -> None:
    found = check(tmp_path, artefact, sensed.address, more="[forecast]\nevery_s = 5.0\n")
    assert (found.code, found.failed) == (Exit.SETTINGS, ["artefact"])


def test_an_unsigned_artefact_fails_where_keys_are_trusted(
    tmp_path: Path, sensed: Mosquitto, artefact: Path
) -> None:
    pytest.importorskip("cryptography", reason="the extra sign is not installed")
    key = 'trusted_keys = ["ed25519:CsYpDJ69SNwll/QPn1+9sMOMQmy9rpNlwYfB2UVziA8="]'
    found = check(tmp_path, artefact, sensed.address, head=key)
    assert (found.code, found.failed) == (Exit.ARTEFACT, ["artefact"])
    assert "not signed" in found.of("artefact")[0][1]


@pytest.mark.parametrize(
    ("mode", "code"), [(0o600, Exit.DONE), (0o640, Exit.DONE), (0o644, Exit.STATE)]
)
def test_a_password_that_others_may_read_is_a_fault(
    tmp_path: Path, guarded: Mosquitto, artefact: Path, mode: int, code: Exit
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("right\n")
    secret.chmod(mode)
    found = check(
        tmp_path, artefact, guarded.address, more='user = "agent"\npassword_file = "secret"\n'
    )
    assert (found.code, found.failed) == (code, ["rights"] if code else [])
    assert "right" not in str(found.lines).replace("rights", "")


def test_a_file_that_anybody_may_change_is_a_fault(
    tmp_path: Path, sensed: Mosquitto, artefact: Path
) -> None:
    check(tmp_path, artefact, sensed.address)
    path = tmp_path / "agent.toml"
    path.chmod(0o666)
    found = check_file(path)
    assert (found.code, found.failed) == (Exit.STATE, ["rights"])
    assert f"{path}: anybody may write it (mode 666)" in found.of("rights")[0][1]


def test_a_state_folder_that_cannot_be_written_is_a_fault(
    tmp_path: Path, sensed: Mosquitto, artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # root may write where nobody else may
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file" / "state"))
    found = check(tmp_path, artefact, sensed.address)
    assert (found.code, found.failed) == (Exit.STATE, ["state"])


def test_the_least_rights_are_enough(tmp_path: Path, guarded: Mosquitto, artefact: Path) -> None:
    found = check(tmp_path, artefact, guarded.address, more='user = "agent"\n', password="right")
    assert (found.code, found.failed) == (0, [])


def test_a_wrong_password_is_the_brokers_refusal(
    tmp_path: Path, guarded: Mosquitto, artefact: Path
) -> None:
    found = check(tmp_path, artefact, guarded.address, more='user = "agent"\n', password="wrong")
    assert (found.code, found.failed) == (Exit.BROKER, ["broker"])
    assert found.of("broker")[0][1].endswith("wrong user or password, or not allowed")


def test_a_user_that_may_not_publish_is_found_out(
    tmp_path: Path, guarded: Mosquitto, artefact: Path
) -> None:
    found = check(tmp_path, artefact, guarded.address, more='user = "mute"\n', password="right")
    assert (found.code, found.failed) == (Exit.BROKER, ["publish"])
    assert found.of("publish")[0][1].startswith("edgernn/pi/check: ")
    assert found.of("publish")[0][1].endswith("refused a publish: Not authorized")


def test_a_broker_of_mqtt_3_cannot_prove_that_it_takes_publishes(
    tmp_path: Path, artefact: Path
) -> None:
    pytest.importorskip("iotcore", reason="the extra broker is not installed")
    with TrialBroker(0, kind="iotcore") as broker:
        address = f"mqtt://127.0.0.1:{broker.port}"
        sense(address)
        found = check(tmp_path, artefact, address)
    assert (found.code, found.failed) == (0, [])
    assert found.of("broker")[0][1].endswith("connected, MQTT 3.1.1")
    assert found.of("publish")[0][0] == "warn"


def test_a_user_that_may_not_read_hears_nothing_and_that_is_said(
    tmp_path: Path, guarded: Mosquitto, artefact: Path
) -> None:
    found = check(tmp_path, artefact, guarded.address, more='user = "deaf"\n', password="right")
    assert (found.code, found.of("samples")[0][0]) == (0, "warn")
    assert "nothing heard in 2 s" in found.of("samples")[0][1]
