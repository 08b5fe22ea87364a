"""Links that die without a word: frozen brokers, silent networks, resolvers that never answer."""

import gc
import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mosquitto import Mosquitto, find_mosquitto

from edgernn_device.address import Access, BrokerAddress
from edgernn_device.link import Link, Message

WAIT_S = 20.0
KEEPALIVE_S = 2
AVAILABILITY = "edgernn/a/availability"


def in_own_network(script: str, *, timeout_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run a shell script as root of a network and mounts of its own, with loopback up."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    if subprocess.run(["unshare", "-rmn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not have a network namespace of its own")
    words = ["unshare", "-rmn", "sh", "-ec", f"ip link set lo up\n{script}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)


def link_to(broker: Mosquitto, name: str = "a", **options: Any) -> Link:
    access = Access(address=BrokerAddress.parse(broker.address))
    return Link(access, client_id=name, keepalive_s=KEEPALIVE_S, **options)


def wait_until(is_so: Any) -> float:
    """When it was so, on the monotonic clock."""
    until_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.005)
    return time.monotonic()


def word_of(broker: Mosquitto) -> str:
    """The retained availability, as a client that comes now is told."""
    found: list[Message] = []
    access = Access(address=BrokerAddress.parse(broker.address))
    link = Link(access, client_id="w", subscriptions=[(AVAILABILITY, 1)], on_message=found.append)
    link.start()
    try:
        wait_until(lambda: found)
    finally:
        link.stop(timeout_s=0)
    return found[0].payload.decode()


def test_a_broker_that_freezes_is_noticed_within_one_and_a_half_keepalives(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    link = link_to(mosquitto)
    link.start()
    try:
        with mosquitto.frozen():
            began_s = time.monotonic()
            noticed_s = wait_until(lambda: not link.is_connected) - began_s
        assert noticed_s <= 1.5 * KEEPALIVE_S
        wait_until(lambda: link.is_connected)
    finally:
        link.stop()
    assert "connection lost: silent for" in caplog.text


def test_a_quiet_connection_is_not_given_up(mosquitto: Mosquitto) -> None:
    link = link_to(mosquitto, subscriptions=[("t", 1)], on_message=lambda _: None)
    link.start()
    try:
        time.sleep(2.2 * KEEPALIVE_S)
        assert (link.is_connected, link.connects) == (True, 1)
    finally:
        link.stop()


def test_a_frozen_broker_that_comes_back_in_time_keeps_its_connection(
    mosquitto: Mosquitto,
) -> None:
    link = link_to(mosquitto)
    link.start()
    try:
        with mosquitto.frozen():
            time.sleep(0.6 * KEEPALIVE_S)
        time.sleep(KEEPALIVE_S)
        assert link.connects == 1
    finally:
        link.stop()


def test_a_socket_left_unread_on_purpose_is_no_lost_connection_and_pings_go_on(
    mosquitto: Mosquitto,
) -> None:
    found: list[Message] = []
    is_open = threading.Event()
    is_open.set()
    link = link_to(
        mosquitto, subscriptions=[("t", 0)], on_message=found.append, wants_more=is_open.is_set
    )
    sender = link_to(mosquitto, "b")
    link.start()
    sender.start()
    try:
        is_open.clear()
        link.wake()
        time.sleep(0.1)
        for number in range(300):
            sender.publish("t", b"%d" % number)
        time.sleep(2.2 * KEEPALIVE_S)
        before = len(found)
        is_open.set()
        link.wake()
        wait_until(lambda: len(found) == 300)
        assert before == 0
        assert (link.is_connected, link.connects) == (True, 1)
    finally:
        link.stop()
        sender.stop()


def test_a_full_inbox_does_not_keep_a_link_from_being_let_in_again(mosquitto: Mosquitto) -> None:
    """The broker restarts while the worker is behind: its CONNACK is no message that waits."""
    is_open = threading.Event()
    is_open.set()
    link = link_to(mosquitto, subscriptions=[("t", 1)], wants_more=is_open.is_set)
    link.start()
    try:
        is_open.clear()
        mosquitto.restart()
        wait_until(lambda: link.connects == 2 and link.is_connected)
        time.sleep(1.5 * KEEPALIVE_S)
        assert (link.connects, link.is_connected) == (2, True)
    finally:
        link.stop()


def test_a_link_stops_though_its_inbox_is_full(mosquitto: Mosquitto) -> None:
    link = link_to(mosquitto, wants_more=lambda: False, availability=AVAILABILITY)
    link.start(timeout_s=0)
    link.publish("t", b"", qos=1)
    began_s = time.monotonic()
    assert link.stop(timeout_s=WAIT_S) == 0
    assert time.monotonic() - began_s < 5
    assert word_of(mosquitto) == "offline"


SILENT = """
import subprocess, sys, time
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.link import Link
access = Access(address=BrokerAddress("127.0.0.1", 1883))
link = Link(access, client_id="a", keepalive_s=keepalive_s)
link.start()
subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
began_s = time.monotonic()
while link.is_connected:
    if is_publishing:
        link.publish("t", b"", qos=1)
    time.sleep(0.01)
print(time.monotonic() - began_s)
"""


@pytest.mark.parametrize("is_publishing", [False, True])
def test_a_network_that_falls_silent_is_noticed_within_one_and_a_half_keepalives(
    tmp_path: Path, is_publishing: bool
) -> None:
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    program = tmp_path / "silent.py"
    program.write_text(f"is_publishing, keepalive_s = {is_publishing}, {KEEPALIVE_S}\n{SILENT}")
    config = tmp_path / "m.conf"
    config.write_text("listener 1883 127.0.0.1\nallow_anonymous true\nuser root\n")
    done = in_own_network(
        f"{find_mosquitto()} -c {config} >{tmp_path}/log 2>&1 & broker=$!\n"
        "trap 'kill $broker' EXIT\n"
        "sleep 0.5\n"
        f"{sys.executable} {program}\n"
    )
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) <= 1.5 * KEEPALIVE_S


def test_a_resolver_that_never_answers_does_not_keep_a_link_from_stopping(
    tmp_path: Path,
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    program = tmp_path / "resolve.py"
    program.write_text(
        textwrap.dedent("""
        import json, socket, time
        from edgernn_device.address import Access, BrokerAddress
        from edgernn_device.link import Link
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 53))
        link = Link(Access(address=BrokerAddress("broker.example")), client_id="a")
        link.start(timeout_s=0)
        asked = len(silent.recv(512))
        time.sleep(1)
        beat_age_s = time.monotonic() - link.beat_s
        began_s = time.monotonic()
        link.stop(timeout_s=0.2)
        print(json.dumps([asked, beat_age_s, time.monotonic() - began_s]))
        """)
    )
    done = in_own_network(
        f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf\n{sys.executable} {program}\n",
        timeout_s=25,  # the whole process ends too, though the resolver still hangs
    )
    assert done.returncode == 0, done.stderr
    asked, beat_age_s, stopped_s = json.loads(done.stdout)
    assert asked > 0
    assert beat_age_s < 1
    assert stopped_s < 1


@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_takes_the_connection_and_says_nothing_does_not_stop_the_stop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        access = Access(address=BrokerAddress("127.0.0.1", server.getsockname()[1], tls=True))
        link = Link(access, client_id="a")
        link.start(timeout_s=0)
        peer, _ = server.accept()
        peer.recv(1)
        began_s = time.monotonic()
        link.stop(timeout_s=0)
        assert time.monotonic() - began_s < 1
        peer.close()
    for thread in threading.enumerate():
        if thread.name == "edgernn-opening":
            thread.join(WAIT_S)
    gc.collect()  # paho leaves a socket open after a failed handshake


def test_a_second_wake_left_in_the_pipe_does_not_keep_the_thread_awake(
    mosquitto: Mosquitto,
) -> None:
    link = link_to(mosquitto)
    link.start()
    try:
        link._wake_in.send(b"\0")  # the byte of a thread that was interrupted inside `wake`
        time.sleep(0.1)
        began_s = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - began_s < 0.1
    finally:
        link.stop()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_availability_is_right_again_after_the_broker_itself_was_restarted(
    tmp_path: Path, end: str
) -> None:
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    with Mosquitto(tmp_path, is_persistent=True) as broker:
        link = link_to(broker, availability=AVAILABILITY)
        link.start()
        assert word_of(broker) == "online"
        getattr(broker, end)()
        wait_until(lambda: not link.is_connected)
        broker.start()
        wait_until(lambda: link.is_connected)
        wait_until(lambda: word_of(broker) == "online")
        link.stop()
        assert word_of(broker) == "offline"


@pytest.mark.parametrize(("end", "word"), [("stop", "offline"), ("kill", "online")])
def test_an_agent_that_ends_while_the_broker_is_away_leaves_what_the_broker_had_on_disk(
    tmp_path: Path, end: str, word: str
) -> None:
    """An orderly end of Mosquitto publishes the wills first; a killed one loses them, which is a
    limit that docs/mosquitto.md names."""
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    with Mosquitto(tmp_path, is_persistent=True) as broker:
        link = link_to(broker, availability=AVAILABILITY)
        link.start()
        assert word_of(broker) == "online"
        time.sleep(1.1)  # autosave
        getattr(broker, end)()
        wait_until(lambda: not link.is_connected)
        link.stop(timeout_s=0)
        broker.start()
        assert word_of(broker) == word
