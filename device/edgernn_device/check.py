"""`edgernn agent --check`: all that an agent needs, proven one by one, without starting it."""

import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from edgernn.card import Card
from edgernn.errors import EdgernnError, Exit, ending_with
from edgernn.settings import check_is_writable
from edgernn.times import format_time
from edgernn_device.address import Access
from edgernn_device.config import AgentConfig
from edgernn_device.health import describe
from edgernn_device.intake import Intake
from edgernn_device.lines import printable
from edgernn_device.link import Link, Message
from edgernn_device.loading import make_parts, prove_engine
from edgernn_device.monitor import Monitor
from edgernn_device.payload import PayloadError
from edgernn_device.rehearsal import PortTakenError, check_can_listen
from edgernn_device.shipped import GENERAL, artefact_path
from edgernn_device.topics import TopicError

LISTEN_S = 2.0
"""How long a first sample is waited for."""
ANSWER_S = 5.0
"""How long the broker may take to answer a publish."""
LEAST_FREE_BYTES = 16_000_000
"""Of the disk with the state."""


Level = Literal["ok", "warn", "FAIL"]


class Finding(NamedTuple):
    """One line of the check."""

    level: Level
    what: str
    sentence: str
    code: Exit = Exit.DONE

    def __str__(self) -> str:
        return f"{self.level:4}  {self.what:9} {self.sentence}"


def check(config: AgentConfig, *, base: Path, where: str) -> Iterator[Finding]:
    """Findings as they are made: each part is looked at whatever came of those before it, and the
    same fault is said once.

    `base`: folder that files named in `config` are relative to. `where`: its name in sentences.
    """
    heard = _Heard(config)
    said: set[str] = set()
    for finding in chain(
        _found("config", lambda: _check_config(config, base, where)),
        _found("artefact", lambda: _check_artefact(config, base, where, heard)),
        _found("state", lambda: _check_state(config, base), Exit.STATE),
        _found("rights", lambda: _check_rights(config, base, where), Exit.STATE),
        _found("broker", lambda: _check_broker(config, base, heard), Exit.BROKER),
    ):
        if finding.sentence not in said:
            yield finding
        said.add(finding.sentence)


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
    if config.metrics.listen:
        try:
            check_can_listen(*config.metrics.endpoint)
        except PortTakenError as exc:
            yield Finding("warn", "config", f"{exc}; by this agent, if it runs already")
    yield Finding("ok", "config", f"{where}: node {node!r}, samples from {pattern.filter}")


def _check_artefact(
    config: AgentConfig, base: Path, where: str, heard: "_Heard"
) -> Iterator[Finding]:
    engine, found = prove_engine(config, base=base, where=where)
    card = engine.card
    with ending_with(Exit.SETTINGS):
        intake, monitor = make_parts(config, engine, where=where)
        heard.expect(intake, monitor)
    if config.trusted_keys:
        signed = f"signed by key {engine.signed_by}, which is trusted"
    elif config.model == GENERAL:
        signed = "comes with edgernn"
    else:
        signed = "trusted_keys is empty, so anybody may have made it"
    yield Finding(
        "ok" if config.trusted_keys or config.model == GENERAL else "warn",
        "artefact",
        f"{config.model}: {card.name}, {len(card.channels)} channels, {monitor.task}; {signed}",
    )
    yield Finding("ok" if found.samples else "warn", "artefact", str(found))
    if never := _never_stuck(config, card):
        why = f"{', '.join(never)}: never said to be stuck, as it does not say how long they stand"
        yield Finding("warn", "artefact", f"{why}; channels.<name>.stuck_after would")


def _never_stuck(config: AgentConfig, card: Card) -> list[str]:
    """Channels of which neither the artefact nor the file says how long they may stand still."""
    return [
        one.name
        for one in card.channels
        if not one.longest_still
        and (one.name not in config.channels or config.channels[one.name].stuck_after is None)
    ]


def _check_state(config: AgentConfig, base: Path) -> Iterator[Finding]:
    file = config.store.file(base, node=config.topics.node)
    folder = file.parent
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if not there.is_dir():
            raise EdgernnError(f"{folder}: cannot be made a folder: {there} is a file")
        check_is_writable(there)
        if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
            raise EdgernnError(f"{file}: cannot be read and written")
        free = shutil.disk_usage(there).free
    except OSError as exc:  # a folder of another user's
        raise EdgernnError(f"{folder}: cannot be looked at: {exc.strerror}") from exc
    if free < LEAST_FREE_BYTES:
        raise EdgernnError(f"{folder}: {free / 1e6:.1f} MB free, expected 16 MB or more")
    can = "can be written" if there == folder else "can be made"
    yield Finding("ok", "state", f"{folder}: {can}, {free / 1e6:,.0f} MB free")


def _check_rights(config: AgentConfig, base: Path, where: str) -> Iterator[Finding]:
    """Nobody else reads a secret, or writes what decides who is trusted."""
    broker = config.broker
    named = [name for name in (broker.password_file, broker.key_file) if name]
    faults = [
        f"{base / name}: others may read it (mode {_mode(base / name):o}); expected chmod o="
        for name in named
        if _mode(base / name) & stat.S_IRWXO
    ]
    deciding = dict.fromkeys((Path(where), artefact_path(config.model, base)))
    faults += [
        f"{path}: anybody may write it (mode {_mode(path):o}); expected chmod o-w"
        for path in deciding
        if _mode(path) & stat.S_IWOTH
    ]
    if faults:
        raise EdgernnError("; ".join(faults))
    secret = ", ".join(named) or "no password or key file"
    files = " or ".join(str(path) for path in deciding)
    yield Finding("ok", "rights", f"{secret}; nobody else writes {files}")


def _mode(path: Path) -> int:
    """Permission bits; 0 where there is nothing, which is said elsewhere."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _check_broker(config: AgentConfig, base: Path, heard: "_Heard") -> Iterator[Finding]:
    """With a client id of its own, so that an agent that runs is not cut off."""
    access = config.broker.access(base)
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
    """The first sample that comes while the check listens, treated as the agent would; the network
    thread takes it."""

    def __init__(self, config: AgentConfig) -> None:
        self.first = threading.Event()
        """Something was heard that is no old news."""
        self._config = config
        self._parts: tuple[Intake, Monitor] | None = None
        self._finding: Finding | None = None

    def expect(self, intake: Intake, monitor: Monitor) -> None:
        """What samples are for, once the artefact is known."""
        self._parts = intake, monitor

    def take(self, message: Message) -> None:
        if self.first.is_set() or (finding := self._of(message)) is None:
            return
        if message.retained and self._finding is not None:
            return
        self._finding = finding
        if not message.retained:
            self.first.set()

    def finding(self) -> Finding:
        if self._finding is not None:
            return self._finding
        return Finding(
            "warn",
            "samples",
            f"{self._config.pattern.filter}: nothing heard in {LISTEN_S:g} s: nobody publishes, or "
            "the broker does not let us read, which Mosquitto does not say",
        )

    def _of(self, message: Message) -> Finding | None:
        """None for a topic that is not of this pattern."""
        try:
            source = self._config.pattern.source_of(message.topic)
        except TopicError:
            return None
        if source is None:
            return None
        heard = f"{self._config.pattern.filter}: heard stream {source.stream!r}"
        if message.retained:
            heard += ", retained"
        level, why = self._judge(message, source.channel)
        return Finding(level, "samples", heard + printable(why, longest=200))

    def _judge(self, message: Message, channel: str | None) -> tuple[Level, str]:
        if self._parts is None:
            return "ok", ""
        intake, monitor = self._parts
        channels = monitor.engine.card.channel_names
        if channel and channel not in channels:
            return "warn", f", of {channel!r}, which is no channel; expected {', '.join(channels)}"
        try:
            samples = intake.take(
                message.topic,
                message.payload,
                received_s=time.time(),
                now_s=message.received_s,
                period_s=monitor.engine.card.period_s,
            )
        except PayloadError as exc:
            return "warn", f", refused as {exc}"
        if channel:
            return "ok", f", channel {channel!r}"
        if message.retained and any(sample.is_stamped for _, sample in samples):
            return "warn", " without a time: old news, which the agent refuses"
        monitor.take(samples)
        if monitor.counts:
            said = [sentence for _, sentence in monitor.remarks]
            return "warn", f", {'; '.join(said or map(describe, monitor.counts))}"
        came = {name for _, one in samples for name, value in one.values.items() if value == value}
        missing = [name for name in channels if name not in came]
        if missing:
            unknown = sorted({name for _, one in samples for name in one.values} - {*channels})
            other = f"; {', '.join(unknown)} came, which no channel is called" if unknown else ""
            return "warn", f", without {', '.join(missing)}{other}"
        return "ok", f", all of {len(channels)} channels"
