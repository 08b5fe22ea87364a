"""Nobody in: least rights at a real broker, a password that shows nowhere, no code from data."""

import ast
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import PATIENCE_S, Listener, command
from mosquitto import Mosquitto, find_mosquitto

import edgernn_device
from edgernn_device.address import Access, BrokerAddress, Credentials, find_credentials
from edgernn_device.engine import Engine
from edgernn_device.link import Link
from edgernn_device.replay import replay

PAGE = Path(__file__).parents[2] / "docs" / "mosquitto.md"
NODE, SENSOR, READER = "pi-hall-3", "pump-3", "dashboard"
SECRET = "s3cr3t-Wört"
USERS = {NODE: SECRET, SENSOR: "b", READER: "c"}


def block(kind: str) -> list[str]:
    """The lines of the page's only code block of a kind."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found).splitlines()


@contextmanager
def as_documented(folder: Path) -> Iterator[Mosquitto]:
    """A broker with the page's files; its listener and paths are the test's, and no TLS."""
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    acl = folder / "acl"
    acl.write_text("\n".join(block("acl")) + "\n")
    acl.chmod(0o600)
    ours = ("listener", "cafile", "certfile", "keyfile", "tls_version", "persistence")
    theirs = ("allow_anonymous", "password_file", "acl_file", "max_queued_messages", "set_tcp")
    options = [line for line in block("conf") if line and not line.startswith((*ours, *theirs))]
    assert any(line.startswith("message_size_limit") for line in options)
    with Mosquitto(folder, users=USERS, options=(*options, f"acl_file {acl}")) as broker:
        yield broker


def access_as(broker: Mosquitto, user: str, *, protocol: str = "3.1.1") -> Access:
    credentials = Credentials(user=user, password=USERS[user])
    address = BrokerAddress.parse(broker.address)
    return Access(address=address, credentials=credentials, protocol=protocol)


@contextmanager
def agent_as_service(
    folder: Path, artefact: Path, broker: Mosquitto, *, by: str
) -> Iterator["subprocess.Popen[str]"]:
    """With the password in the environment or in a file beside the agent's, started elsewhere."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    line = ""
    if by == "file":
        (folder / "mqtt-password").write_text(SECRET + "\n", encoding="utf-8")
        (folder / "mqtt-password").chmod(0o600)
        line = 'password_file = "mqtt-password"'
    else:
        environment["EDGERNN_MQTT_PASSWORD"] = SECRET
    (folder / "agent.toml").write_text(
        f'model = "{artefact}"\nnode = "{NODE}"\n[store]\npath = "agent.db"\n'
        "[output]\nhealth_every_s = 0.2\n"
        f'[broker]\naddress = "{broker.address}"\nuser = "{NODE}"\n{line}\n'
    )
    words = ("agent", str(folder / "agent.toml"))
    with command(*words, python=("-X", "dev"), env=environment, cwd="/") as process:
        yield process


@pytest.mark.parametrize("by", ["environment", "file"])
def test_with_the_documented_rights_alerts_flow_and_the_password_shows_nowhere(
    tmp_path: Path, artefact: Path, faulty_csv: Path, by: str
) -> None:
    reader = Credentials(user=READER, password=USERS[READER])
    with (
        as_documented(tmp_path) as broker,
        Listener(broker, reader) as listener,
        agent_as_service(tmp_path, artefact, broker, by=by) as process,
    ):
        listener.wait_for(lambda: f"edgernn/{NODE}/health" in listener.messages, "no health")
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        replay(faulty_csv, access_as(broker, SENSOR), streams=[SENSOR], speed=0)
        alert = f"edgernn/{NODE}/{SENSOR}/alert"
        listener.wait_for(lambda: alert in listener.messages, "no alert")
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert listener.last(f"edgernn/{NODE}/availability") == "offline"
        shown = [log, words.decode(), repr(listener.messages), str(Engine.load(artefact).card)]
        shown.append((tmp_path / "mosquitto.log").read_text())
        assert "connected to" in log
        assert not any(SECRET in one or SECRET.encode().hex() in one for one in shown)


def test_nobody_may_say_what_is_not_theirs(tmp_path: Path) -> None:
    """Each user tries every topic; only what the list allows arrives at one who reads all."""
    topics = (
        f"sensors/{SENSOR}/telemetry",
        "sensors/other/telemetry",
        f"edgernn/{NODE}/x/alert",
        "edgernn/other/x/alert",
        "edgernn/other/availability",
    )
    found: list[tuple[str, str]] = []
    with as_documented(tmp_path) as broker:
        links = {
            user: Link(
                access_as(broker, user, protocol="5"),
                client_id=user,
                subscriptions=[("#", 1)],
                on_message=lambda m, user=user: found.append(  # type: ignore[misc]
                    (user, f"{m.payload.decode()}: {m.topic}")
                ),
            )
            for user in USERS
        }
        for link in links.values():
            link.start()
        for user, link in links.items():
            for topic in topics:
                link.publish(topic, user.encode(), qos=1)
            assert link.wait_until_waiting(0, timeout_s=10)
        time.sleep(0.3)
        refused = {user: link.refused for user, link in links.items()}
        for link in links.values():
            link.stop()
    assert sorted(found) == [
        (READER, f"{NODE}: edgernn/{NODE}/x/alert"),
        (NODE, f"{SENSOR}: sensors/{SENSOR}/telemetry"),
    ]
    assert refused == {NODE: 4, SENSOR: 4, READER: 5}


def test_a_password_file_is_relative_to_the_file_that_names_it_or_to_where_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    import edgernn_device.cli
    from edgernn_device.config import AgentConfig, BrokerConfig

    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "password").write_text(folder.name)
    config = AgentConfig(model="m", broker=BrokerConfig(user="u", password_file="password"))
    found = config.broker.access(there).credentials
    assert found is not None
    assert found.password == "there"

    monkeypatch.chdir(here)
    seen: list[Any] = []

    def stop_here(_config: AgentConfig, said: Any) -> None:
        seen.append(said)
        raise KeyboardInterrupt

    monkeypatch.setattr(edgernn_device.cli, "_override", stop_here)
    (there / "agent.toml").write_text('model = "m.onnx"\n')
    words = [str(there / "agent.toml"), "--password-file", "password"]
    CliRunner().invoke(edgernn_device.cli.agent, words)
    assert seen[0]["broker"]["password_file"] == str(here / "password")


def test_a_password_file_that_others_can_read_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    file.chmod(0o644)
    find_credentials("u", password_file=file)
    assert f"{file}: any user of this machine may read it" in caplog.text
    assert SECRET not in caplog.text


# ---- no code from data

FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "dill", "joblib", "yaml", "code", "runpy"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
STARTS_PROCESSES = {"broker.py", "verify.py"}
"""The trial broker, and the proof of an artefact: words of ours, never of a message."""


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def sins(path: Path) -> list[str]:
    """What a file does that could run somebody else's code."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        roots = {name.partition(".")[0] for name in names}
        found += sorted(roots & FORBIDDEN_IMPORTS)
        if "subprocess" in roots and path.name not in STARTS_PROCESSES:
            found.append("subprocess")
        if isinstance(node, ast.Call):
            if dotted(node.func) in FORBIDDEN_CALLS or dotted(node.func).startswith("os.exec"):
                found.append(dotted(node.func))
            for word in node.keywords:
                if word.arg in ("shell", "allow_pickle") and not (
                    isinstance(word.value, ast.Constant) and word.value.value is False
                ):
                    found.append(f"{word.arg}=")
    return found


def test_no_file_of_the_device_unpickles_evaluates_or_calls_a_shell() -> None:
    files = sorted(Path(edgernn_device.__file__).parent.rglob("*.py"))
    assert len(files) > 30
    assert {path.name: sins(path) for path in files if sins(path)} == {}


@pytest.mark.parametrize(
    ("line", "sin"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import yaml.nodes", "yaml"),
        ("import subprocess", "subprocess"),
        ("eval('1')", "eval"),
        ("os.system('ls')", "os.system"),
        ("run('ls', shell=True)", "shell="),
        ("np.load(path, allow_pickle=True)", "allow_pickle="),
    ],
)
def test_each_of_these_would_be_found(tmp_path: Path, line: str, sin: str) -> None:
    (tmp_path / "a.py").write_text(line)
    assert sins(tmp_path / "a.py") == [sin]
