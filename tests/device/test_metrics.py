"""Metrics: a running agent is scraped, and what comes is as Prometheus wants it."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import PATIENCE_S, Listener, agent, online, play
from mosquitto import Mosquitto, free_port

from edgernn.errors import EdgernnError
from edgernn.settings import to_settings
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.config import AgentConfig
from edgernn_device.link import Link

if TYPE_CHECKING:
    from prometheus_client import Metric

BASE_UNITS = ("_seconds", "_bytes", "_info")
UNITLESS = {
    "process_open_fds",
    "process_max_fds",
    "edgernn_broker_connected",
    "edgernn_inbox_messages",
    "edgernn_outbox_publishes",
    "edgernn_store_failing",
    "edgernn_streams",
}
"""Numbers of things, which have no unit."""
LABELS = {"state", "severity", "reason", "le", "version", "model", "model_hash"}
MOST_SERIES = 120


def metrics_of(config: str) -> AgentConfig:
    """An agent's file with such a [metrics] table."""
    listen, _, remote = config.partition(" ")
    table = {"listen": listen} | ({"allow_remote": True} if remote else {})
    return to_settings({"model": "a.onnx", "metrics": table}, AgentConfig, where="agent.toml")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:9108", ("127.0.0.1", 9108)),
        ("127.8.9.1:1", ("127.8.9.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("0.0.0.0:9108 remote", ("0.0.0.0", 9108)),
        ("192.168.1.7:9108 remote", ("192.168.1.7", 9108)),
    ],
)
def test_an_address_and_a_port_are_understood(text: str, endpoint: tuple[str, int]) -> None:
    assert metrics_of(text).metrics.endpoint == endpoint


@pytest.mark.parametrize("listen", ["0.0.0.0:9108", "192.168.1.7:9108", "[::]:9108"])
def test_an_address_that_others_reach_is_refused_unless_allowed(listen: str) -> None:
    with pytest.raises(EdgernnError, match=r"metrics\.listen: .* lets anybody .* allow_remote"):
        metrics_of(listen)


@pytest.mark.parametrize(
    "listen", ["9108", ":9108", "localhost:9108", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536"]
)
def test_what_is_no_address_and_port_is_refused(listen: str) -> None:
    with pytest.raises(EdgernnError, match=r"metrics\.listen: expected an IP address and a port"):
        metrics_of(listen)


def test_a_running_agent_is_scraped_and_says_what_happened(
    tmp_path: Path, mosquitto: Mosquitto, artefact: Path, faulty_csv: Path
) -> None:
    pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
    port = free_port()
    more = f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
    with Listener(mosquitto) as listener, agent(tmp_path, artefact, mosquitto, more=more):
        online(listener)
        publish(mosquitto, b"no json", b"[{}]")
        played = play(mosquitto, faulty_csv, "a", "b")
        listener.wait_until_scored(played)
        until_s = time.monotonic() + PATIENCE_S
        while value(found := scrape(port), "edgernn_samples_total") < played:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        health = listener.last("edgernn/pi/health")
    assert value(found, "edgernn_messages_total") == played + 2
    assert value(found, "edgernn_broker_connected") == 1
    assert value(found, "edgernn_batch_latency_seconds_count") > 0
    assert 0 <= value(found, "edgernn_report_age_seconds") < 30
    assert value(found, "edgernn_irregular_messages_total", reason="not_json") == 1
    assert value(found, "edgernn_irregular_samples_total", reason="no_channel") == 1
    assert value(found, "edgernn_irregular_samples_total", reason="late") == 0
    assert sum(values(found, "edgernn_alerts_total").values()) == sum(health["alerts"].values()) > 0
    assert sum(values(found, "edgernn_streams").values()) == 2
    assert faults(found) == []


def test_the_checks_of_names_and_units_find_what_is_wrong() -> None:
    pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
    text = (
        "# TYPE edgernn_lag_ms gauge\nedgernn_lag_ms 1\n"
        "# HELP edgernn_a Says a\n# TYPE edgernn_a gauge\n"
        'edgernn_a{stream="x"} 1\n'
        "# HELP edgernnTwo Says b.\n# TYPE edgernnTwo counter\nedgernnTwo 1\n"
    )
    assert faults(parse(text)) == [
        "edgernn_lag_ms: help",
        "edgernn_lag_ms: unit",
        "edgernn_a: help",
        "edgernn_a: unit",
        "edgernn_a: labels",
        "edgernnTwo: name",
    ]


def test_a_port_in_use_ends_the_agent_with_a_sentence(tmp_path: Path, artefact: Path) -> None:
    pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = start(tmp_path, artefact, listen)
    assert done.returncode == 2
    assert f"metrics.listen: {listen}: cannot listen: Address already in use" in done.stderr


def test_without_the_extra_the_agent_says_what_to_install(tmp_path: Path, artefact: Path) -> None:
    done = start(tmp_path, artefact, "127.0.0.1:9108", is_hidden=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "edgernn: metrics.listen needs prometheus_client, which this installation has not: "
        "pip install 'edgernn[metrics]'",
    )


def start(
    folder: Path, artefact: Path, listen: str, *, is_hidden: bool = False
) -> "subprocess.CompletedProcess[str]":
    path = folder / "agent.toml"
    path.write_text(f'model = "{artefact}"\n[metrics]\nlisten = "{listen}"\n')
    hide = "sys.modules['prometheus_client'] = None;" if is_hidden else ""  # as on the base install
    code = f"import sys; {hide} from edgernn.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "agent", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def publish(broker: Mosquitto, *payloads: bytes) -> None:
    link = Link(Access(address=BrokerAddress.parse(broker.address)), client_id="sensor")
    link.start()
    for payload in payloads:
        link.publish("sensors/a/telemetry", payload, qos=1)
    assert link.stop() == 0


def scrape(port: int) -> "list[Metric]":
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return parse(answer.read().decode())


def parse(text: str) -> "list[Metric]":
    from prometheus_client.parser import text_string_to_metric_families

    return list(text_string_to_metric_families(text))


def values(found: "list[Metric]", name: str) -> dict[tuple[str, ...], float]:
    """Label values → value."""
    samples = [sample for family in found for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in samples}


def value(found: "list[Metric]", name: str, **labels: str) -> float:
    return values(found, name).get(tuple(labels.values()), -1.0)


def faults(found: "list[Metric]") -> list[str]:
    """What `promtool check metrics` would say, and that labels are few and bounded."""
    said = []
    for family in found:
        name = family.name
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
            said.append(f"{name}: name")
        if not family.documentation.endswith("."):
            said += [f"{name}: help"] if name.startswith("edgernn") else []
        if family.type == "gauge" and name not in UNITLESS and not name.endswith(BASE_UNITS):
            said.append(f"{name}: unit")
        if {label for one in family.samples for label in one.labels} - LABELS:
            said.append(f"{name}: labels")
    if sum(len(family.samples) for family in found) > MOST_SERIES:
        said.append("too many series")
    return said
