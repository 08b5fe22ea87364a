"""The link against a real Mosquitto: delivery, loss, last will, refusals, a thread that dies."""

import gc
import queue
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mosquitto import Mosquitto, free_port

from edgernn.errors import EdgernnError
from edgernn_device.address import Access, BrokerAddress, Credentials, find_credentials
from edgernn_device.link import Link, Message

WAIT_S = 10.0
AVAILABILITY = "edgernn/a/availability"
paho_leaves_a_socket_open_after_a_failed_handshake = pytest.mark.filterwarnings(
    "ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


class Inbox(queue.Queue[Message]):
    """Collects messages and acknowledges them on the way out."""

    link: Link

    def take(self, count: int = 1) -> list[Message]:
        messages = []
        for _ in range(count):
            messages.append(self.get(timeout=WAIT_S))
            self.link.ack(messages[-1])  # one by one: the broker sends no more than 20 ahead
        return messages


def access_to(broker: Mosquitto, **options: Any) -> Access:
    return Access(address=BrokerAddress.parse(broker.address), **options)


@contextmanager
def connected(broker: Mosquitto, name: str, *topics: str, **options: Any) -> Iterator[Inbox]:
    """A started link's inbox; the link is stopped at the end."""
    inbox = Inbox()
    access = options.pop("access", access_to(broker))
    wanted = [(topic, 1) for topic in topics]
    inbox.link = Link(access, client_id=name, subscriptions=wanted, on_message=inbox.put, **options)
    inbox.link.start(timeout_s=WAIT_S)
    try:
        yield inbox
    finally:
        inbox.link.stop(timeout_s=0)


@contextmanager
def scripted_broker(answer: Callable[[socket.socket], None]) -> Iterator[Access]:
    """Listens once and does what a real broker never would."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as peer:
                peer.settimeout(WAIT_S)
                with suppress(ConnectionError):
                    answer(peer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Access(address=BrokerAddress("127.0.0.1", server.getsockname()[1]))
        thread.join(WAIT_S)


def sentence_of(access: Access) -> str:
    """What `start` says when it fails."""
    link = Link(access, client_id="a", subscriptions=[("x", 1)], on_message=lambda _: None)
    with pytest.raises(EdgernnError) as caught:
        link.start(timeout_s=WAIT_S)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_qos_1_publishes_arrive_once_in_order_and_are_reported(
    mosquitto: Mosquitto, protocol: str
) -> None:
    delivered: list[str | int] = []
    access = access_to(mosquitto, protocol=protocol)
    with (
        connected(mosquitto, "in", "t", access=access) as inbox,
        connected(mosquitto, "out", access=access, on_delivered=delivered.append) as sender,
    ):
        for i in range(500):
            sender.link.publish("t", str(i).encode(), qos=1, parcel_id=i)
        assert [int(m.payload) for m in inbox.take(500)] == list(range(500))
        assert sender.link.wait_until_waiting(0, timeout_s=WAIT_S)
    assert delivered == list(range(500))


def test_qos_0_publishes_arrive_in_order(mosquitto: Mosquitto) -> None:
    with connected(mosquitto, "in", "t") as inbox, connected(mosquitto, "out") as sender:
        for i in range(200):
            sender.link.publish("t", str(i).encode())
        assert [int(m.payload) for m in inbox.take(200)] == list(range(200))
    assert sender.link.dropped == 0


def test_publishes_of_several_threads_arrive_whole(mosquitto: Mosquitto) -> None:
    letters = (b"a", b"b", b"c", b"d")
    with connected(mosquitto, "in", "t") as inbox, connected(mosquitto, "out") as sender:

        def publish(letter: bytes) -> None:
            for _ in range(50):
                sender.link.publish("t", letter * 60_000, qos=1)

        threads = [threading.Thread(target=publish, args=(c,)) for c in letters]
        for thread in threads:
            thread.start()
        payloads = [message.payload for message in inbox.take(200)]
        for thread in threads:
            thread.join()
    assert sorted(payloads) == [c * 60_000 for c in letters for _ in range(50)]


def test_a_qos_0_publish_without_a_connection_is_dropped_and_counted() -> None:
    access = Access(address=BrokerAddress("127.0.0.1", free_port()))
    link = Link(access, client_id="a")
    link.start(timeout_s=0)
    link.publish("t", b"now or never")
    assert link.dropped == 1
    link.stop(timeout_s=0)


def test_after_a_broker_restart_it_subscribes_again_and_sends_what_waited_in_order(
    mosquitto: Mosquitto,
) -> None:
    back = threading.Event()
    with connected(mosquitto, "a", "t", on_connect=back.set, availability=AVAILABILITY) as inbox:
        mosquitto.stop()
        back.clear()
        for i in range(100):
            inbox.link.publish("t", str(i).encode(), qos=1)
        mosquitto.start()
        assert back.wait(WAIT_S)
        assert [int(m.payload) for m in inbox.take(100)] == list(range(100))
        assert inbox.link.reconnects == 1
        with connected(mosquitto, "b", AVAILABILITY) as other:
            (word,) = other.take()
    assert (word.payload, word.retained) == (b"online", True)


def test_a_clean_stop_delivers_the_queue_and_says_offline(mosquitto: Mosquitto) -> None:
    with connected(mosquitto, "b", "t", AVAILABILITY) as inbox:
        with connected(mosquitto, "a", availability=AVAILABILITY) as sender:
            for i in range(300):
                sender.link.publish("t", str(i).encode(), qos=1)
            assert sender.link.stop(timeout_s=WAIT_S) == 0
        payloads = [message.payload for message in inbox.take(302)]
    assert payloads[0] == b"online"
    assert payloads[1:] == [*(str(i).encode() for i in range(300)), b"offline"]


def test_stop_without_a_broker_returns_in_time_with_what_is_left() -> None:
    link = Link(Access(address=BrokerAddress("127.0.0.1", free_port())), client_id="a")
    link.start(timeout_s=0)
    link.publish("t", b"", qos=1)
    assert link.stop(timeout_s=0.2) == 1


def test_the_last_will_says_offline_when_the_process_is_killed(mosquitto: Mosquitto) -> None:
    program = f"""
import time
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.link import Link
access = Access(address=BrokerAddress("127.0.0.1", {mosquitto.port}))
Link(access, client_id="a", availability="{AVAILABILITY}").start()
time.sleep(60)
"""
    with connected(mosquitto, "b", AVAILABILITY) as inbox:
        process = subprocess.Popen([sys.executable, "-c", program])
        assert inbox.take()[0].payload == b"online"
        process.kill()
        process.wait(WAIT_S)
        assert inbox.take()[0].payload == b"offline"


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_message_that_was_not_acknowledged_comes_again(
    mosquitto: Mosquitto, protocol: str
) -> None:
    options: dict[str, Any] = {
        "access": access_to(mosquitto, protocol=protocol),
        "keep_session": True,
    }
    with connected(mosquitto, "a", "t", **dict(options)) as inbox:
        inbox.link.publish("t", b"kept", qos=1)
        inbox.get(timeout=WAIT_S)
    with connected(mosquitto, "a", "t", **dict(options)) as again:
        assert again.take()[0].payload == b"kept"


def test_an_acknowledgement_of_an_older_connection_is_dropped(mosquitto: Mosquitto) -> None:
    back = threading.Event()
    with connected(mosquitto, "a", "t", on_connect=back.set) as inbox:
        inbox.link.publish("t", b"old", qos=1)
        old = inbox.get(timeout=WAIT_S)
        back.clear()
        mosquitto.restart()
        assert back.wait(WAIT_S)
        inbox.link.publish("t", b"new", qos=1)
        new = inbox.get(timeout=WAIT_S)
        assert (old.mid, old.epoch, new.mid, new.epoch) == (1, 1, 1, 2)
        inbox.link.ack(old)
        inbox.link.publish("t", b"later", qos=1)
        inbox.take()
        assert inbox.link.stale_acks == 1


@pytest.mark.parametrize("kind", [ZeroDivisionError, OSError])
def test_an_exception_in_a_callback_ends_the_link_is_told_and_fires_the_will(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    def fail(message: Message) -> None:
        raise kind("of the test")

    link = Link(
        access_to(mosquitto),
        client_id="a",
        subscriptions=[("t", 1)],
        on_message=fail,
        availability=AVAILABILITY,
    )
    link.start()
    with connected(mosquitto, "b", AVAILABILITY) as inbox:
        assert inbox.take()[0].payload == b"online"
        inbox.link.publish("t", b"", qos=1)
        assert inbox.take()[0].payload == b"offline"
    link.stop()
    assert not link.is_connected
    assert isinstance(link.failure, kind)
    with pytest.raises(RuntimeError, match="the network thread died"):
        link.raise_if_dead()
    assert "the network thread died" in caplog.text


def test_a_wrong_password_is_said_in_one_sentence_without_the_password(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, users={"pump": "right"}) as broker:
        with connected(
            broker, "a", access=access_to(broker, credentials=Credentials("pump", "right"))
        ) as inbox:
            assert inbox.link.is_connected
        said = sentence_of(access_to(broker, credentials=Credentials("pump", "wrong")))
        assert said == (
            f"{broker.address}: refused user 'pump': wrong user or password, or not allowed"
        )
        assert sentence_of(access_to(broker)).endswith("it wants a user and a password")


def test_an_unreachable_broker_is_said_in_one_sentence() -> None:
    port = free_port()
    assert sentence_of(Access(address=BrokerAddress("127.0.0.1", port))) == (
        f"mqtt://127.0.0.1:{port}: nothing listens there; is the broker running?"
    )
    unknown = Access(address=BrokerAddress("broker.invalid"))
    assert "mqtt://broker.invalid:1883: no such host" in sentence_of(unknown)


@paho_leaves_a_socket_open_after_a_failed_handshake
def test_tls_on_a_plain_port_is_said_in_one_sentence(mosquitto: Mosquitto) -> None:
    access = Access(address=BrokerAddress("127.0.0.1", mosquitto.port, tls=True))
    assert f"mqtts://127.0.0.1:{mosquitto.port}: " in sentence_of(access)


def test_a_server_that_is_no_broker_is_said_in_one_sentence() -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)
        peer.recv(1000)

    with scripted_broker(answer) as access:
        assert str(access.address) in sentence_of(access)


def test_a_server_that_hangs_up_is_said_in_one_sentence() -> None:
    with scripted_broker(lambda peer: None) as access:
        assert str(access.address) in sentence_of(access)


def test_a_refused_subscription_is_said_in_one_sentence() -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"\x20\x02\x00\x00")  # CONNACK: accepted
        peer.recv(1000)
        peer.sendall(b"\x90\x03\x00\x01\x80")  # SUBACK: failure
        peer.recv(1000)

    with scripted_broker(answer) as access:
        assert "refused the subscription 'x'" in sentence_of(access)


@paho_leaves_a_socket_open_after_a_failed_handshake
def test_a_refused_publish_is_given_up_and_told_so_that_nobody_keeps_it(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic write allowed\n")
    acl.chmod(0o600)
    delivered: list[str | int] = []
    dropped: list[str | int] = []
    with Mosquitto(tmp_path, options=(f"acl_file {acl}",)) as broker:
        link = Link(
            access_to(broker, protocol="5"),
            client_id="a",
            on_delivered=delivered.append,
            on_dropped=dropped.append,
        )
        link.start()
        for topic in ("allowed", "forbidden"):
            link.publish(topic, b"1", qos=1, parcel_id=topic)
        link.stop()
    assert (delivered, dropped, link.refused) == (["allowed"], ["forbidden"], 1)


@pytest.mark.filterwarnings("ignore:unclosed <ssl")  # paho, after a failed handshake
def test_tls_works_with_the_right_authority_and_is_refused_without(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    name = ("-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", *kind.split(), *name, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    with Mosquitto(tmp_path, options=(f"certfile {cert}", f"keyfile {key}")) as broker:
        address = BrokerAddress("127.0.0.1", broker.port, tls=True)
        access = Access(address=address, ca_file=cert)
        with connected(broker, "a", "t", access=access) as inbox:
            inbox.link.publish("t", b"x" * 100_000, qos=1)
            assert len(inbox.take()[0].payload) == 100_000
        assert "certificate is not trusted" in sentence_of(Access(address=address))
        plain = Access(address=BrokerAddress("127.0.0.1", broker.port))
        assert "closed without an answer" in sentence_of(plain)
    assert isinstance(access.tls_context(), ssl.SSLContext)
    gc.collect()  # here, and not in another test


def test_a_unix_socket_works(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path / "s"
    if len(str(path)) > 100:
        path = tmp_path_factory.getbasetemp() / "s"
    with Mosquitto(tmp_path, options=(f"listener 0 {path}",)) as broker:
        until_s = time.monotonic() + 10  # its port answers a little before the socket is there
        while not path.exists() and time.monotonic() < until_s:
            time.sleep(0.01)
        access = Access(address=BrokerAddress.parse(f"unix:{path}"))
        with connected(broker, "a", "t", access=access) as inbox:
            inbox.link.publish("t", b"x", qos=1)
            assert inbox.take()[0].payload == b"x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker", BrokerAddress("broker")),
        ("broker:1884", BrokerAddress("broker", 1884)),
        ("mqtt://broker", BrokerAddress("broker")),
        ("mqtts://broker", BrokerAddress("broker", 8883, tls=True)),
        ("mqtts://ann@10.0.0.1:99/", BrokerAddress("10.0.0.1", 99, tls=True, user="ann")),
        ("[::1]:1883", BrokerAddress("::1")),
        ("unix:/run/mqtt", BrokerAddress("/run/mqtt", 0)),
    ],
)
def test_addresses_are_understood(text: str, expected: BrokerAddress) -> None:
    parsed = BrokerAddress.parse(text)
    assert parsed == expected
    if not parsed.user:
        assert BrokerAddress.parse(str(parsed)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "host:0", "host:65536", "host:x", "http://host", "mqtt://host/path", "::1", "a b", "h?q"],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(EdgernnError, match="broker address"):
        BrokerAddress.parse(text)


def test_a_port_that_is_none_is_named() -> None:
    with pytest.raises(EdgernnError, match=r"^broker address: port: expected 1–65535, got 123456$"):
        BrokerAddress.parse("mqtt://localhost:123456")


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(EdgernnError, match="EDGERNN_MQTT_PASSWORD") as caught:
        BrokerAddress.parse("mqtt://ann:secret@host")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Credentials("ann", "secret"))


def test_a_password_comes_from_the_file_or_else_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGERNN_MQTT_PASSWORD", "from outside")
    file = tmp_path / "password"
    file.write_text("from file\n")
    assert find_credentials("ann") == Credentials("ann", "from outside")
    assert find_credentials("ann", password_file=file) == Credentials("ann", "from file")
    assert find_credentials() is None
    with pytest.raises(EdgernnError, match="needs a user"):
        find_credentials(password_file=file)
    file.write_text("")
    with pytest.raises(EdgernnError, match="one line"):
        find_credentials("ann", password_file=file)
