"""The broker for trials, both kinds: a real round trip, loopback only, and it ends."""

import queue
import socket
import threading

import pytest

from edgernn.errors import EdgernnError
from edgernn_device import broker as module
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.broker import Kind, TrialBroker
from edgernn_device.link import Link, Message

KINDS: list[Kind] = ["mosquitto", "iotcore"]


def started(kind: Kind, port: int = 0) -> TrialBroker:
    try:
        return TrialBroker(port, kind=kind)
    except EdgernnError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("kind", KINDS)
def test_it_delivers_qos_1_and_keeps_what_is_retained(kind: Kind) -> None:
    with started(kind) as broker:
        access = Access(address=BrokerAddress("127.0.0.1", broker.port))
        publisher = Link(access, client_id="publisher")
        publisher.start()
        publisher.publish("t", b"x" * 500_000, qos=1, retain=True)
        assert publisher.stop() == 0
        inbox: queue.Queue[Message] = queue.Queue()
        reader = Link(access, client_id="b", subscriptions=[("t", 1)], on_message=inbox.put)
        reader.start()
        message = inbox.get(timeout=10)
        reader.ack(message)
        reader.stop()
    assert (len(message.payload), message.qos, message.retained) == (500_000, 1, True)


@pytest.mark.parametrize("kind", KINDS)
def test_it_listens_on_loopback_only_and_frees_its_port(kind: Kind) -> None:
    with started(kind) as broker:
        port = broker.port
        assert f"mqtt://127.0.0.1:{port}: for trials" in broker.sentence
        with socket.socket() as probe, pytest.raises(OSError, match="refused"):
            probe.connect(("127.0.0.2", port))  # another address of this machine
    with socket.socket() as probe, pytest.raises(OSError, match="refused"):
        probe.connect(("127.0.0.1", port))


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_port_is_said_in_one_sentence(kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EdgernnError, match=f"port {port} on 127.0.0.1 is taken"):
            started(kind, port).start()


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_end_is_noticed(kind: Kind) -> None:
    with started(kind) as broker:
        assert broker._running is not None
        broker._running.stop()
        with pytest.raises(EdgernnError, match="has ended"):
            broker.wait(threading.Event())


def test_without_any_broker_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_find_mosquitto", lambda: None)
    monkeypatch.setattr(module, "_has_iotcore", lambda: False)
    with pytest.raises(EdgernnError, match=r"apt install mosquitto, or pip install 'edgernn\[bro"):
        TrialBroker()
    with pytest.raises(EdgernnError, match="mosquitto is not installed"):
        TrialBroker(kind="mosquitto")
    monkeypatch.setattr(module, "_has_iotcore", lambda: True)
    assert TrialBroker().kind == "iotcore"


def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(EdgernnError, match="expected 0–65535, got 65536"):
        TrialBroker(65536)
