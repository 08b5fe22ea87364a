"""TLS: who is let in and who is not, each refusal in one clear sentence."""

import datetime
import gc
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from mosquitto import Mosquitto, find_mosquitto

from edgernn.errors import EdgernnError
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.link import Link

trustme = pytest.importorskip("trustme", reason="needs trustme, which the base install has not")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


class Files:
    """Certificates of one authority, and of a stranger, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authorities = {"ours": trustme.CA(), "strange": trustme.CA()}
        for name, authority in self._authorities.items():
            authority.cert_pem.write_to_path(folder / f"{name}-ca.pem")

    def ca(self, authority: str = "ours") -> Path:
        return self.folder / f"{authority}-ca.pem"

    def issue(
        self, name: str, *, authority: str = "ours", is_expired: bool = False
    ) -> tuple[Path, Path]:
        """Certificate and key for a host or, as the common name, a client."""
        until = datetime.datetime(2020, 1, 1) if is_expired else None
        made = self._authorities[authority].issue_cert(name, common_name=name, not_after=until)
        stem = f"{name}-{authority}-{is_expired}"
        cert, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return cert, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def _swept() -> Iterator[None]:
    """paho leaves a socket open after a failed handshake: let it go in the test that made it."""
    yield
    gc.collect()


def serving(folder: Path, cert: Path, key: Path, *options: str) -> Mosquitto:
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    return Mosquitto(folder, options=(f"certfile {cert}", f"keyfile {key}", *options))


def access_to(
    broker: Mosquitto,
    ca: Path | None,
    cert: Path | None = None,
    key: Path | None = None,
    *,
    protocol: str = "3.1.1",
) -> Access:
    address = BrokerAddress("localhost", broker.port, tls=True)
    return Access(address=address, ca_file=ca, cert_file=cert, key_file=key, protocol=protocol)


def refusal(access: Access) -> str:
    link = Link(access, client_id="a")
    with pytest.raises(EdgernnError) as caught:
        link.start(timeout_s=10)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{access.address}: ")


def test_a_certificate_of_our_authority_for_this_host_is_accepted(
    tmp_path: Path, files: Files
) -> None:
    with serving(tmp_path, *files.issue("localhost")) as broker:
        link = Link(access_to(broker, files.ca()), client_id="a")
        link.start()
        assert link.is_connected
        link.stop()


def test_a_certificate_of_a_strange_authority_is_refused(tmp_path: Path, files: Files) -> None:
    with serving(tmp_path, *files.issue("localhost", authority="strange")) as broker:
        assert refusal(access_to(broker, files.ca())) == (
            "the broker's certificate is not trusted: unable to get local issuer certificate; "
            "give the authority that signed it as CA file"
        )


def test_a_certificate_for_another_host_is_refused(tmp_path: Path, files: Files) -> None:
    with serving(tmp_path, *files.issue("other.example")) as broker:
        assert refusal(access_to(broker, files.ca())) == (
            "the broker's certificate is for another host: Hostname mismatch, certificate is not "
            "valid for 'localhost'"
        )


def test_an_expired_certificate_is_refused(tmp_path: Path, files: Files) -> None:
    with serving(tmp_path, *files.issue("localhost", is_expired=True)) as broker:
        assert refusal(access_to(broker, files.ca())) == (
            "the broker's certificate is out of date, or this device's clock is wrong: "
            "certificate has expired"
        )


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_client_certificate_lets_in_and_without_one_nobody_comes_in(
    tmp_path: Path, files: Files, protocol: str
) -> None:
    options = (f"cafile {files.ca()}", "require_certificate true", "use_identity_as_username true")
    with serving(tmp_path, *files.issue("localhost"), *options) as broker:
        ours = access_to(broker, files.ca(), *files.issue("agent"), protocol=protocol)
        link = Link(ours, client_id="a")
        link.start()
        link.stop()
        # each in two forms: the broker's reason may be lost when it resets the connection
        said = refusal(access_to(broker, files.ca(), protocol=protocol))
        assert said in (
            "the broker wants a client certificate: give cert_file and key_file",
            "closed without an answer; does it want a client certificate (cert_file, key_file)?",
        )
        strange = files.issue("agent", authority="strange")
        assert refusal(access_to(broker, files.ca(), *strange, protocol=protocol)) in (
            "the broker does not trust this client's certificate",
            "closed without an answer; does it trust this client's certificate?",
        )


def test_the_documented_lines_of_mosquitto_conf_serve_tls(tmp_path: Path, files: Files) -> None:
    page = Path(__file__).parents[2] / "docs" / "mosquitto.md"
    lines = page.read_text(encoding="utf-8").split("```conf\n")[1].split("```")[0].splitlines()
    cert, key = files.issue("localhost")
    for source, name in ((files.ca(), "ca.crt"), (cert, "broker.crt"), (key, "broker.key")):
        (tmp_path / name).write_bytes(source.read_bytes())
    ours = ("cafile", "certfile", "keyfile", "tls_version")
    options = [
        x.replace("/etc/mosquitto/certs", str(tmp_path)) for x in lines if x.startswith(ours)
    ]
    assert len(options) == 4
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    with Mosquitto(tmp_path, options=tuple(options)) as broker:
        link = Link(access_to(broker, files.ca()), client_id="a")
        link.start()
        link.stop()


def test_a_key_of_another_certificate_is_refused(files: Files) -> None:
    cert, _ = files.issue("agent")
    _, key = files.issue("other")
    access = Access(
        address=BrokerAddress("h", 1, tls=True), ca_file=files.ca(), cert_file=cert, key_file=key
    )
    with pytest.raises(EdgernnError, match=r"other\S*: is not the key of \S*agent"):
        access.tls_context()


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("ca_file", "expected certificates in PEM"),
        ("cert_file", "expected a certificate in PEM"),
        ("key_file", "expected a private key in PEM"),
    ],
)
def test_a_file_of_something_else_is_refused_by_its_name(
    files: Files, tmp_path: Path, which: str, sentence: str
) -> None:
    cert, key = files.issue("agent")
    other = tmp_path / "other.txt"
    other.write_text("no PEM\n")
    access = Access(
        address=BrokerAddress("h", 1, tls=True), ca_file=files.ca(), cert_file=cert, key_file=key
    )
    access = msgspec.structs.replace(access, **{which: other})
    with pytest.raises(EdgernnError, match=f"other.txt: {sentence}"):
        access.tls_context()


def test_a_certificate_without_its_key_asks_for_the_key_file(files: Files) -> None:
    cert, _ = files.issue("agent")
    access = Access(address=BrokerAddress("h", 1, tls=True), ca_file=files.ca(), cert_file=cert)
    with pytest.raises(EdgernnError, match="expected a private key in PEM; give key_file"):
        access.tls_context()


def test_a_key_under_a_passphrase_is_refused_instead_of_waiting_for_one(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization as ser

    cert, key = files.issue("agent")
    secret = ser.load_pem_private_key(key.read_bytes(), None).private_bytes(
        ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.BestAvailableEncryption(b"secret")
    )
    locked = files.folder / "locked.key"
    locked.write_bytes(secret)
    access = Access(address=BrokerAddress("h", 1, tls=True), cert_file=cert, key_file=locked)
    with pytest.raises(EdgernnError, match=r"locked\.key: is under a passphrase"):
        access.tls_context()


def test_nothing_older_than_tls_1_2_is_spoken(files: Files) -> None:
    """A server that knows TLS 1.1 at most."""
    context = Access(address=BrokerAddress("h", 1, tls=True), ca_file=files.ca()).tls_context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*files.issue("localhost"))
    server.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        server.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning):
        server.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_server(("localhost", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as peer, suppress(OSError):
                server.wrap_socket(peer, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        access = Access(address=BrokerAddress("localhost", port, tls=True), ca_file=files.ca())
        assert refusal(access) == "the broker speaks no TLS 1.2 or later"
        thread.join()
