"""Which broker, and how to get in: address, user, password, certificates. Connects to nothing."""

import logging
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from edgernn.errors import EdgernnError
from edgernn.settings import read_text

PASSWORD_VARIABLE = "EDGERNN_MQTT_PASSWORD"
"""Environment variable with the password; it is never an argument, where `ps` would show it."""
PORTS = {"mqtt": 1883, "mqtts": 8883}
"""Schemes and their usual ports."""
PROTOCOLS = ("3.1.1", "5")

LONGEST_HOST = 253
"""Bytes of a name in the DNS, without the dot at its end."""
LONGEST_UNIX = 107
"""Bytes of a socket's path on Linux, which ends it with another."""

logger = logging.getLogger(__name__)


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where a broker listens."""

    host: str
    """Name or IP address; a path for a Unix socket."""
    port: int = PORTS["mqtt"]
    """0 for a Unix socket."""
    tls: bool = False
    user: str = ""
    """The user named in the address, if any."""

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "BrokerAddress":
        """ "host", "host:port", "mqtt://user@host:1883", "mqtts://host" or "unix:/path".

        Raises EdgernnError for anything else, and for a password in the address.
        """
        if text.startswith("unix:/"):
            return cls(host=_socket_path(text), port=0)
        shape = "expected host, host:port, mqtt://host:port, mqtts://host:port or unix:/path"
        try:
            parts = urlsplit(text if "://" in text else f"mqtt://{text}")
            host = parts.hostname or ""
        except ValueError as exc:
            raise EdgernnError(f"broker address: {shape}: {exc}") from exc
        if parts.password is not None:
            raise EdgernnError(
                f"broker address: a password does not belong in it; put it into the environment "
                f"variable {PASSWORD_VARIABLE} or into a password file"
            )
        has_more = parts.path not in ("", "/") or parts.query or parts.fragment
        if parts.scheme not in PORTS or has_more or not _is_host(host):
            raise EdgernnError(f"broker address: {shape}, got {text!r}")
        return cls(
            host=host,
            port=_port(parts),
            tls=parts.scheme == "mqtts",
            user=unquote(parts.username or ""),
        )


class Credentials(msgspec.Struct, frozen=True):
    """A user and a password. Does not show the password when printed."""

    user: str
    password: str = ""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """All that it takes to connect to a broker."""

    address: BrokerAddress
    credentials: Credentials | None = None
    ca_file: Path | None = None
    """The authority that signed the broker's certificate; None = those the system trusts."""
    cert_file: Path | None = None
    key_file: Path | None = None
    protocol: str = "3.1.1"
    """ "3.1.1", or "5", which halves what a client can receive."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise EdgernnError(f"MQTT protocol: expected 3.1.1 or 5, got {self.protocol!r}")
        if not self.address.tls and (self.ca_file or self.cert_file or self.key_file):
            raise EdgernnError(f"certificates need TLS: write mqtts:// instead of {self.address}")
        if self.key_file and not self.cert_file:
            raise EdgernnError("a key file needs its certificate file")

    def tls_context(self) -> ssl.SSLContext:
        """Certificate and host name are always checked, and TLS is 1.2 or later. Raises
        EdgernnError for unusable files."""
        wanted = [path for path in (self.ca_file, self.cert_file, self.key_file) if path]
        for path in wanted:
            if not path.is_file():
                raise EdgernnError(f"{path}: no such certificate or key file")
        texts = {path: _pem(path) for path in wanted}
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError as exc:
            raise EdgernnError(f"{self.ca_file}: expected certificates in PEM") from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file:
            self._load_own(context, self.cert_file, texts)
        return context

    def _load_own(
        self, context: ssl.SSLContext, cert_file: Path, texts: Mapping[Path, str]
    ) -> None:
        secret = self.key_file or cert_file
        _warn_if_open(secret)
        try:
            context.load_cert_chain(cert_file, secret, password=lambda: _refuse_passphrase(secret))
        except ssl.SSLError as exc:
            if "BEGIN CERTIFICATE" not in texts[cert_file]:
                raise EdgernnError(f"{cert_file}: expected a certificate in PEM") from exc
            if "PRIVATE KEY" not in texts[secret]:
                what = "expected a private key in PEM"
                hint = "" if self.key_file else "; give key_file if that is another file"
                raise EdgernnError(f"{secret}: {what}{hint}") from exc
            if exc.reason == "KEY_VALUES_MISMATCH":
                raise EdgernnError(f"{secret}: is not the key of {cert_file}") from exc
            raise EdgernnError(f"{cert_file}, {secret}: not usable for TLS: {exc}") from exc


def find_credentials(user: str = "", *, password_file: Path | None = None) -> Credentials | None:
    """The user with a password from the file, else from EDGERNN_MQTT_PASSWORD; None = anonymous.

    Raises EdgernnError for a password file that is missing or empty, or that has no user.
    """
    if not user:
        if password_file:
            raise EdgernnError(f"{password_file}: a password needs a user: mqtt://user@host")
        return None
    if password_file is None:
        return Credentials(user=user, password=os.environ.get(PASSWORD_VARIABLE, ""))
    _warn_if_open(password_file)
    password = read_text(password_file).removesuffix("\n").removesuffix("\r")
    if not password or "\n" in password:
        raise EdgernnError(f"{password_file}: expected one line with the password")
    return Credentials(user=user, password=password)


def _pem(path: Path) -> str:
    """What is in a certificate or key file, comments in any encoding included."""
    try:
        return path.read_text(errors="replace")
    except OSError as exc:
        raise EdgernnError(f"{path}: cannot be read: {exc.strerror}") from exc


def _warn_if_open(secret: Path) -> None:
    if secret.is_file() and secret.stat().st_mode & 0o007:
        logger.warning("%s: any user of this machine may read it: chmod o=", secret)


def _refuse_passphrase(key_file: Path) -> bytes:
    """Without it OpenSSL would ask at the terminal, and a service would wait for ever."""
    raise EdgernnError(f"{key_file}: is under a passphrase, which nobody is there to type")


def _port(parts: SplitResult) -> int:
    """The one that is named, else the scheme's."""
    with suppress(ValueError):
        if (port := parts.port) != 0:
            return port or PORTS[parts.scheme]
    said = parts.netloc.rpartition(":")[2]
    raise EdgernnError(f"broker address: port: expected 1–65535, got {said}")


def _is_host(host: str) -> bool:
    """Whether it could be looked up: what IDNA cannot encode would raise where it is."""
    if not host.isprintable() or set(host) & set(" \\\"'<>@"):
        return False
    if len(host) > LONGEST_HOST + 1:
        return False
    try:  # labels of 1–63 bytes; none is empty but after a dot at the end
        name = host.encode("idna")
    except UnicodeError:
        return False
    return 0 < len(name.removesuffix(b".")) <= LONGEST_HOST


def _socket_path(text: str) -> str:
    path = "/" + text.removeprefix("unix:").lstrip("/")
    if "\0" in path:
        raise EdgernnError(f"broker address: a path has no NUL in it, got {text!r}")
    if (size := len(os.fsencode(path))) > LONGEST_UNIX:
        raise EdgernnError(
            f"broker address: unix: expected a path of at most {LONGEST_UNIX} bytes, got {size}"
        )
    return path
