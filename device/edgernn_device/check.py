"""`edgernn agent --check`: all that an agent needs, proven one by one, without starting it."""

import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from edgernn.errors import EdgernnError, Exit, MissingExtraError, ending_with
from edgernn.settings import check_is_writable, make_folder
from edgernn.times import format_time
from edgernn_device.address import Access
from edgernn_device.config import AgentConfig
from edgernn_device.link import Link, Message
from edgernn_device.loading import prove_engine
from edgernn_device.tasks import make_task
from edgernn_device.topics import TopicError

LISTEN_S = 2.0
"""How long a first sample is waited for."""
ANSWER_S = 5.0
"""How long the broker may take to answer a publish."""
LEAST_FREE_BYTES = 16_000_000
"""Of the disk with the state."""


class Finding(NamedTuple):
    """One line of the check."""

    level: Literal["ok", "warn", "FAIL"]
    what: str
    sentence: str
    code: Exit = Exit.DONE

    def __str__(self) -> str:
        return f"{self.level:4}  {self.what:9} {self.sentence}"


def check(config: AgentConfig, *, base: Path, where: str) -> Iterator[Finding]:
    """Findings as they are made: each part is looked at whatever came of those before it.

    `base`: folder that files named in `config` are relative to. `where`: its name in sentences.
    """
    yield from _found("config", lambda: _check_config(config, base, where))
    yield from _found("artefact", lambda: _check_artefact(config, base, where))
    yield from _found("state", lambda: _check_state(config, base), Exit.STATE)
    yield from _found("rights", lambda: _check_rights(config, base, where), Exit.STATE)
    yield from _found("broker", lambda: _check_broker(config, base), Exit.BROKER)


def _found(
    what: str, look: Callable[[], Iterator[Finding]], code: Exit | None = None
) -> Iterator[Finding]:
    """A failure's code is `code`, or the error's own."""
    try:
        yield from look()
    except EdgernnError as exc:
        yield Finding("FAIL", what, str(exc), code or exc.exit_code)


def _check_config(config: AgentConfig, base: Path, where: str) -> Iterator[Finding]:
    node, pattern = config.topics.node, config.pattern
    access = config.broker.access(base)
    if access.address.tls:
        access.tls_context()
    if config.metrics.listen and find_spec("prometheus_client") is None:
        raise MissingExtraError("metrics.listen needs pip install 'edgernn[metrics]'")
    yield Finding("ok", "config", f"{where}: node {node!r}, samples from {pattern.filter}")


def _check_artefact(config: AgentConfig, base: Path, where: str) -> Iterator[Finding]:
    engine, found = prove_engine(config, base=base, where=where)
    card = engine.card
    with ending_with(Exit.SETTINGS):
        config.stream_rule(card)
        task = make_task(config, engine, where=where)
    signed = (
        f"signed by key {engine.signed_by}, which is trusted"
        if config.trusted_keys
        else "whoever signed it, as trusted_keys is empty"
    )
    yield Finding(
        "ok" if config.trusted_keys else "warn",
        "artefact",
        f"{config.model}: {card.name}, {len(card.channels)} channels, {task}; {signed}",
    )
    if found.samples:
        yield Finding(
            "ok",
            "artefact",
            f"says the same here of {found.samples} golden samples, largest difference "
            f"{found.largest:.1e}",
        )
    else:
        yield Finding("warn", "artefact", "holds no golden samples: not proven on this CPU")


def _check_state(config: AgentConfig, base: Path) -> Iterator[Finding]:
    file = config.store.file(base, node=config.topics.node)
    folder = make_folder(file.parent)
    check_is_writable(folder)
    if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
        raise EdgernnError(f"{file}: cannot be read and written")
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise EdgernnError(f"{folder}: {free / 1e6:.1f} MB free, expected 16 MB or more")
    yield Finding("ok", "state", f"{folder}: can be written, {free / 1e6:,.0f} MB free")


def _check_rights(config: AgentConfig, base: Path, where: str) -> Iterator[Finding]:
    """Nobody else reads a secret, or writes what decides who is trusted."""
    broker = config.broker
    named = [name for name in (broker.password_file, broker.key_file) if name]
    faults = [
        f"{base / name}: others may read it (mode {_mode(base / name):o}); expected "
        f"chmod {_mode(base / name) & ~stat.S_IRWXO:o}"
        for name in named
        if _mode(base / name) & stat.S_IRWXO
    ]
    faults += [
        f"{path}: anybody may write it (mode {_mode(path):o}); expected chmod o-w"
        for path in (Path(where), base / config.model)
        if _mode(path) & stat.S_IWOTH
    ]
    if faults:
        raise EdgernnError("; ".join(faults))
    secret = ", ".join(named) or "no password or key file"
    yield Finding("ok", "rights", f"{secret}; nobody else writes {where} or {config.model}")


def _mode(path: Path) -> int:
    """Permission bits; 0 where there is nothing, which is said elsewhere."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _check_broker(config: AgentConfig, base: Path) -> Iterator[Finding]:
    """With a client id of its own, so that an agent that runs is not cut off."""
    access = config.broker.access(base)
    heard = _Heard(config)
    link, protocol = _connect(config, access, heard)
    try:
        yield Finding("ok", "broker", f"{access.address}: connected, MQTT {protocol}")
        yield _check_publish(link, config.topics.check, protocol)
        heard.first.wait(LISTEN_S)
        yield heard.finding()
    finally:
        link.stop(timeout_s=1.0)


def _check_publish(link: Link, topic: str, protocol: str) -> Finding:
    content = {"time": format_time(time.time()), "says": "edgernn agent --check"}
    link.publish(topic, msgspec.json.encode(content), qos=1)
    if not link.wait_until_waiting(0, timeout_s=ANSWER_S):
        why = f"{topic}: not confirmed within {ANSWER_S:g} s"
        return Finding("FAIL", "publish", why, Exit.BROKER)
    if link.refused:
        return Finding("FAIL", "publish", f"{topic}: {link.problem}", Exit.BROKER)
    if protocol == "5":
        return Finding("ok", "publish", f"{topic}: the broker took it")
    why = f"{topic}: confirmed, which MQTT 3.1.1 brokers do even of what they refuse"
    return Finding("warn", "publish", why)


def _connect(config: AgentConfig, access: Access, heard: "_Heard") -> tuple[Link, str]:
    """By MQTT 5 if the broker speaks it: only there it says that a publish was refused."""

    def connect(protocol: str) -> Link:
        link = Link(
            msgspec.structs.replace(access, protocol=protocol),
            client_id=f"edgernn-{config.topics.node}-check-{secrets.token_hex(2)}",
            subscriptions=[(config.pattern.filter, 0)],
            on_message=heard.take,
            keepalive_s=config.broker.keepalive_s,
        )
        link.start(timeout_s=config.broker.start_timeout_s or ANSWER_S)
        return link

    try:
        return connect("5"), "5"
    except EdgernnError:
        if config.broker.protocol == "5":
            raise
    return connect(config.broker.protocol), config.broker.protocol


class _Heard:
    """Samples that come while the check listens; the network thread takes them."""

    def __init__(self, config: AgentConfig) -> None:
        self.first = threading.Event()
        self._pattern = config.pattern
        self._stream = ""

    def take(self, message: Message) -> None:
        try:
            source = self._pattern.source_of(message.topic)
        except TopicError:
            return
        if source is not None:
            self._stream = source.stream
            self.first.set()

    def finding(self) -> Finding:
        name = self._pattern.filter
        if self.first.is_set():
            return Finding("ok", "samples", f"{name}: heard stream {self._stream!r}")
        return Finding(
            "warn",
            "samples",
            f"{name}: nothing heard in {LISTEN_S:g} s: nobody publishes, or the broker does not "
            "let us read, which Mosquitto does not say",
        )
