"""SIGHUP: a new artefact or file takes the place of the old, or is refused while that goes on."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from agents import PATIENCE_S, Listener, command, online, play
from mosquitto import Mosquitto, free_port

from edgernn.errors import EdgernnError
from edgernn_device.config import AgentConfig, MetricsConfig, StoreConfig
from edgernn_device.engine import Engine
from edgernn_device.rehearsal import rehearse
from edgernn_device.reload import Loaded, Reload
from edgernn_device.store import Store

PRODUCER = b"\x12\x01x"
"""Field 2 of an ONNX file once more: the same artefact, and another hash."""


@contextmanager
def service(folder: Path, artefact: Path, broker: Mosquitto) -> Iterator["subprocess.Popen[str]"]:
    """An agent as systemd runs it: no terminal, files that can be put in place of others."""
    (folder / "pump.onnx").write_bytes(artefact.read_bytes())
    settings(folder, broker.address)
    words = ("agent", str(folder / "agent.toml"))
    with command(*words, stdin=subprocess.DEVNULL) as process:
        yield process


def settings(folder: Path, address: str, *, store: str = "agent.db", more: str = "") -> None:
    (folder / "agent.toml").write_text(
        'model = "pump.onnx"\nnode = "pi"\n[output]\nhealth_every_s = 0.2\n'
        f'[store]\npath = "{store}"\n[broker]\naddress = "{address}"\n{more}'
    )


def model_hash(listener: Listener) -> str:
    return str(listener.last("edgernn/pi/health")["model_hash"])


def test_a_new_artefact_takes_the_place_of_the_old_in_the_same_process(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    with Listener(mosquitto) as listener, service(tmp_path, artefact, mosquitto) as process:
        online(listener)
        old = model_hash(listener)
        samples = play(mosquitto, healthy_csv, "a")
        listener.wait_until_scored(samples)
        (tmp_path / "pump.onnx").write_bytes(artefact.read_bytes() + PRODUCER)
        process.send_signal(signal.SIGHUP)
        listener.wait_for(lambda: model_hash(listener) != old, "the old one still runs")
        listener.wait_for(
            lambda: listener.last("edgernn/pi/availability") == "online", "not online again"
        )
        assert play(mosquitto, healthy_csv, "b") == samples
        listener.wait_until_scored(samples)  # from 0 on: it counts anew
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert len(list(tmp_path.glob("agent.db.of-*"))) == 1


def why_not_taken(process: "subprocess.Popen[str]") -> str:
    """The one line that says so, of an agent that is told to stop now and ends well."""
    process.terminate()
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    (line,) = (line for line in said.splitlines() if "the old one keeps running" in line)
    return line


@pytest.mark.parametrize(
    ("artefact_end", "more", "sentence"),
    [
        (None, "", "pump.onnx: "),
        (b"", "keepalive_s = 1\n", "keepalive_s: expected 2–65535, got 1"),
        (b"", f"x = {'[' * 3000}{']' * 3000}\n", "agent.toml: tables or lists are nested too"),
        (b"", '[input]\nmap = { flwo = "a.b" }\n', "input.map.flwo: no such channel"),
    ],
    ids=["torn artefact", "wrong file", "nested file", "file of another artefact"],
)
def test_what_is_wrong_is_said_and_the_old_one_keeps_running(
    tmp_path: Path,
    mosquitto: Mosquitto,
    artefact: Path,
    healthy_csv: Path,
    artefact_end: bytes | None,
    more: str,
    sentence: str,
) -> None:
    with Listener(mosquitto) as listener, service(tmp_path, artefact, mosquitto) as process:
        online(listener)
        old = model_hash(listener)
        whole = artefact.read_bytes()
        torn = whole[: len(whole) // 2] if artefact_end is None else whole + artefact_end
        (tmp_path / "pump.onnx").write_bytes(torn)
        settings(tmp_path, mosquitto.address, more=more)
        process.send_signal(signal.SIGHUP)
        samples = play(mosquitto, healthy_csv, "a")
        listener.wait_until_scored(samples)
        assert model_hash(listener) == old
        assert listener.messages["edgernn/pi/availability"] == ["online"]
        assert sentence in why_not_taken(process)


@pytest.mark.parametrize(
    ("address", "store", "more", "sentence"),
    [
        ("mqtt://localhost:123456", "agent.db", "", "port: expected 1–65535, got 123456"),
        ("mqtts://localhost", "agent.db", 'ca_file = "ca.pem"\n', "ca.pem: no such certificate"),
        ("", "pump.onnx/agent.db", "", "agent.db: File exists"),
        ("", "of-another.db", "", "of-another.db: another process holds it"),
        ("", "agent.db", '[metrics]\nlisten = "127.0.0.1:{taken}"\n', "Address already in use"),
    ],
    ids=["port", "certificate", "no folder for the store", "store in use", "metrics port in use"],
)
def test_what_the_next_one_could_not_begin_with_leaves_the_old_one_running(
    tmp_path: Path,
    mosquitto: Mosquitto,
    artefact: Path,
    healthy_csv: Path,
    address: str,
    store: str,
    more: str,
    sentence: str,
) -> None:
    if "[metrics]" in more:
        pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        closing(Store(tmp_path / "of-another.db", model="m")),
        Listener(mosquitto) as listener,
        service(tmp_path, artefact, mosquitto) as process,
    ):
        online(listener)
        more = more.format(taken=taken.getsockname()[1])
        settings(tmp_path, address or mosquitto.address, store=store, more=more)
        process.send_signal(signal.SIGHUP)
        listener.wait_until_scored(play(mosquitto, healthy_csv, "a"))
        assert listener.messages["edgernn/pi/availability"] == ["online"]
        assert sentence in why_not_taken(process)


def test_a_broker_that_is_not_there_after_a_reload_is_tried_again_and_again(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path
) -> None:
    with Listener(mosquitto) as listener, service(tmp_path, artefact, mosquitto) as process:
        online(listener)
        settings(tmp_path, f"mqtt://127.0.0.1:{free_port()}")
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        said = ""
        while "nothing listens there" not in said:
            said = process.stderr.readline()
            assert said, "the agent ended"
        settings(tmp_path, mosquitto.address)
        process.send_signal(signal.SIGHUP)
        listener.wait_for(
            lambda: listener.messages["edgernn/pi/availability"] == ["online", "offline", "online"],
            "not back",
        )
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_streams_go_on_where_only_the_file_has_changed(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, healthy_csv: Path
) -> None:
    with Listener(mosquitto) as listener, service(tmp_path, artefact, mosquitto) as process:
        online(listener)
        listener.wait_until_scored(play(mosquitto, healthy_csv, "a"))
        settings(tmp_path, mosquitto.address, more='[alarm]\nfalse_alarms = "1/day"\n')
        process.send_signal(signal.SIGHUP)
        listener.wait_for(
            lambda: listener.last("edgernn/pi/health")["samples"] == 0, "not begun again"
        )
        assert listener.last("edgernn/pi/health")["streams"] == 1
        process.send_signal(signal.SIGHUP)
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_S)
    assert "1 stream(s) go on where they ended" in said


def test_a_defect_while_it_is_read_again_is_told_and_the_old_one_keeps_running(
    artefact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = [Loaded(AgentConfig(model="a"), Engine(artefact.read_bytes()))]
    reload = Reload(found.pop, rehearse=lambda *_: None)
    reload.ask()
    assert not reload.is_due()  # nothing is left to pop: IndexError
    assert "not taken, the old one keeps running" in caplog.text
    assert "IndexError" in caplog.text


@pytest.mark.parametrize("name", ["link/agent.db", "state/../state/agent.db", "state/hard.db"])
def test_another_name_of_the_store_in_use_is_taken_and_it_stays_held(
    tmp_path: Path, name: str
) -> None:
    running = AgentConfig(model="a", store=StoreConfig(path="state/agent.db"))
    program = (
        "import sys; from pathlib import Path; from edgernn_device.store import Store\n"
        "Store(Path(sys.argv[1]), model='m')"
    )
    path = tmp_path / "state" / "agent.db"
    with closing(Store(path, model="m")):
        (tmp_path / "link").symlink_to("state")
        (tmp_path / "state" / "hard.db").hardlink_to(path)
        rehearse(AgentConfig(model="a", store=StoreConfig(path=name)), running, base=tmp_path)
        command_line = [sys.executable, "-c", program, str(path)]
        second = subprocess.run(command_line, capture_output=True, text=True, check=False)
        assert "another process holds it" in second.stderr


def test_the_port_that_the_running_one_serves_metrics_at_may_be_served_at_another_address(
    tmp_path: Path,
) -> None:
    pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")

    def config(listen: str) -> AgentConfig:
        metrics = MetricsConfig(listen=listen, allow_remote=True)
        return AgentConfig(model="a", store=StoreConfig(path="agent.db"), metrics=metrics)

    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        running = config(f"127.0.0.1:{port}")
        rehearse(config(f"0.0.0.0:{port}"), running, base=tmp_path)
        with pytest.raises(EdgernnError, match="Cannot assign requested address"):
            rehearse(config(f"192.0.2.1:{port}"), running, base=tmp_path)
        with pytest.raises(EdgernnError, match="Address already in use"):
            rehearse(running, config(f"127.0.0.1:{port % 65_535 + 1}"), base=tmp_path)
