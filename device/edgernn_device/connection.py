"""One connection to a broker, from CONNECT to its end. The only paho import of edgernn.

Belongs to the network thread of `link`, which makes a fresh one after each loss: so paho never
sends anything again by itself, and no message id is taken for one of an older connection.
"""

import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import msgspec
from paho.mqtt.client import MQTT_LOG_ERR, Client, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgernn_device.address import Access
from edgernn_device.outbox import Parcel

BURST = 64
"""Packets read before anything else gets its turn."""
CONNACK_TIMEOUT_S = 10.0
LARGEST_PACKET = (1 << 20) + (1 << 16)
"""Bytes. MQTT 5 only: the broker keeps larger ones from us. With 3.1.1 it must be told, in its own
file: paho reads a packet whole, whatever its size."""
LOST_AFTER = 1.25
"""Keepalives without a byte from the broker until the link is given up; at 1.5 the broker gives us
up."""
PINGREQ = b"\xc0\x00"
PINGS = 2
"""A keepalive, whatever else is sent: what is heard between two is proof enough of a link."""
SESSION_EXPIRY_S = 7 * 86400
"""MQTT 5 only: how long the broker keeps our session. 3.1.1 brokers have their own setting."""
TICK_S = 0.5
"""A step takes no longer than this when nothing happens."""
UNSENT_TIMEOUT_MS = 10_000
"""TCP_USER_TIMEOUT: with bytes unacknowledged this long the link is dead, or sooner if pings say
so."""
WRONG_LOGIN = (134, 135)
"""Reason codes "Bad user name or password" and "Not authorized"."""


class Terms(msgspec.Struct, frozen=True):
    """How to connect, the same each time."""

    access: Access
    client_id: str
    subscriptions: tuple[tuple[str, int], ...]
    """Topic filters and their QoS."""
    availability: str
    """Topic that says "online" and "offline"; "" for none."""
    keep_session: bool
    keepalive_s: int
    tls: ssl.SSLContext | None


class Message(NamedTuple):
    """One message from the broker, and what its acknowledgement needs."""

    topic: str
    payload: bytes
    received_s: float
    """time.monotonic() on arrival."""
    retained: bool
    qos: int
    mid: int
    epoch: int
    """Which connection it came over; message ids start again with each."""
    is_again: bool = False
    """MQTT's DUP: the broker has sent it before, and saw no acknowledgement."""


class OwnerError(Exception):
    """A method of the owner raised, which is its cause: not to be taken for a lost connection."""


class Owner(Protocol):
    """Whom a connection tells what happens. If a method raises, `step` raises OwnerError."""

    def take_connected(self) -> None: ...
    def take_subscribed(self) -> None: ...
    def take_message(self, message: Message) -> None: ...
    def take_confirmed(self, parcel_id: str | int, *, is_refused: bool) -> None: ...
    def say(self, why: str) -> None: ...
    def wants_more(self) -> bool: ...


class Connection:
    """Drives paho's public loop calls; `open`, then `step` until it returns False, then `close`."""

    def __init__(self, terms: Terms, owner: Owner, *, epoch: int) -> None:
        self.is_up = False
        """Whether the broker has accepted us."""
        self._terms = terms
        self._owner = owner
        self._epoch = epoch
        self._mids: dict[int, str | int | None] = {}  # None: the availability
        self._failure: Exception | None = None
        self._cut_by: OSError | None = None
        self._received = 0
        self._connack_by_s = self._heard_s = self._ping_at_s = 0.0
        self._client = self._new_client()

    def open(self) -> None:
        """Send CONNECT. Blocks as long as the resolver likes, and then for paho's `connect_timeout`
        of 5 s in each step of TCP and TLS; touches no owner. Raises OSError."""
        access, options = self._terms.access, cast("dict[str, Any]", {})
        if access.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
            properties.SessionExpiryInterval = SESSION_EXPIRY_S if self._terms.keep_session else 0
            properties.MaximumPacketSize = LARGEST_PACKET
            options = {"clean_start": not self._terms.keep_session, "properties": properties}
        host, port = access.address.host, access.address.port or 1
        self._client.connect(host, port, self._terms.keepalive_s, **options)
        self._heard_s = time.monotonic()
        self._connack_by_s = self._heard_s + CONNACK_TIMEOUT_S

    def step(self, wake: socket.socket) -> bool:
        """Wait for the socket or for `wake`, read and write; False once the connection is over.

        Reads only while the owner wants more; meanwhile nobody is given up for being silent.
        """
        client = self._client
        sock = cast("socket.socket | None", client.socket())
        if sock is None:
            return False
        is_reading = not self.is_up or self._owner.wants_more()  # CONNACK brings nothing to keep
        is_pending = is_reading and isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        is_ping_due = self.is_up and time.monotonic() >= self._ping_at_s
        writers = [sock] if client.want_write() or is_ping_due else []
        readers = [sock, wake] if is_reading else [wake]
        readable, writable, _ = select.select(
            readers, writers, [], 0.0 if is_pending else self._longest_wait_s()
        )
        if is_pending or sock in readable:
            self._heard_s = time.monotonic()
            self._read()
        if client.want_write():
            if writable:
                client.loop_write()
        elif writable and is_ping_due and client.socket() is not None:
            self._ping(sock)
        if self._failure is not None:
            raise OwnerError(str(self._failure)) from self._failure
        if self._cut_by is not None and client.socket() is None:
            raise self._cut_by
        return client.socket() is not None and self._is_answering(is_reading=is_reading)

    def _longest_wait_s(self) -> float:
        """Until something is due by the clock."""
        if not self.is_up:
            return TICK_S
        now_s = time.monotonic()
        due_s = min(self._ping_at_s if now_s < self._ping_at_s else now_s + TICK_S, self._lost_at_s)
        return min(TICK_S, max(0.0, due_s - now_s))

    @property
    def _lost_at_s(self) -> float:
        return self._heard_s + LOST_AFTER * self._terms.keepalive_s

    def _is_answering(self, *, is_reading: bool) -> bool:
        """Not, if CONNECT was not answered in time, or nothing was heard for too long."""
        now_s, address = time.monotonic(), self._terms.access.address
        if not is_reading:
            self._heard_s = now_s
        if not self.is_up and now_s > self._connack_by_s:
            self._owner.say(f"{address}: does not answer as an MQTT broker")
            return False
        if self.is_up and now_s > self._lost_at_s:
            self._owner.say(
                f"{address}: connection lost: silent for {now_s - self._heard_s:.1f} s, "
                "though it was asked"
            )
            return False
        return True

    def _ping(self, sock: socket.socket) -> None:
        """paho would ask only after a whole keepalive, and wait for another. Nothing of paho's is
        half written when this is called."""
        if sock.send(PINGREQ) != len(PINGREQ):
            raise ConnectionAbortedError("half a packet was sent")
        self._ping_at_s = time.monotonic() + self._terms.keepalive_s / PINGS

    def close(self) -> None:
        """Without a DISCONNECT: to the broker we have died, and it publishes the last will."""
        if (sock := self._client.socket()) is not None:
            sock.close()

    def leave(self) -> None:
        """With a DISCONNECT."""
        self._client.disconnect()
        self._client.loop_write()

    def ack(self, message: Message) -> None:
        self._client.ack(message.mid, message.qos)

    def send(self, parcel: Parcel) -> None:
        """QoS 1; `take_confirmed` follows."""
        info = self._client.publish(parcel.topic, parcel.payload, qos=1, retain=parcel.retain)
        self._mids[info.mid] = parcel.id

    def send_once(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """QoS 0."""
        self._client.publish(topic, payload, qos=0, retain=retain)

    def say_availability(self, word: str) -> None:
        info = self._client.publish(self._terms.availability, word, qos=1, retain=True)
        self._mids[info.mid] = None

    @property
    def has_said_availability(self) -> bool:
        """Whether the broker has confirmed all that was said of it."""
        return None not in self._mids.values()

    @property
    def is_congested(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._client.want_write()

    # ---- paho's callbacks. None of them raises: paho may forget or acknowledge what was at hand

    def _read(self) -> None:
        """A burst of packets. paho reads one a call; a select between them would cost more."""
        for _ in range(BURST):
            before = self._received
            try:
                self._client.loop_read()
            except (struct.error, IndexError, KeyError, TypeError, ValueError) as exc:
                raise ConnectionAbortedError(f"what arrives is not MQTT: {exc}") from exc
            if self._received == before or self._failure is not None:
                return
            if not self._owner.wants_more():
                return

    def _guard(self, function: Callable[..., None], *args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except Exception as exc:  # noqa: BLE001 - `step` tells of it
            self._failure = exc

    def _on_connack(self, reason: ReasonCode) -> None:
        terms = self._terms
        if reason.is_failure:
            self._owner.say(_refusal(terms.access, reason))
            return
        self.is_up = True
        self._client.on_log = None
        self._ping_at_s = time.monotonic() + terms.keepalive_s / PINGS
        self._owner.take_connected()
        if terms.subscriptions:
            is_5 = terms.access.protocol == "5"
            wanted: Any = [
                (f, SubscribeOptions(qos) if is_5 else qos) for f, qos in terms.subscriptions
            ]
            self._client.subscribe(wanted)
        else:
            self._owner.take_subscribed()
        if terms.availability:
            self.say_availability("online")

    def _on_suback(self, reasons: list[ReasonCode]) -> None:
        for (name, _), reason in zip(self._terms.subscriptions, reasons, strict=True):
            if reason.is_failure:
                address = self._terms.access.address
                self._owner.say(f"{address}: refused the subscription {name!r}: {reason}")
        self._owner.take_subscribed()

    def _on_puback(self, mid: int, reason: ReasonCode) -> None:
        parcel_id = self._mids.pop(mid, None)
        if reason.is_failure:
            self._owner.say(f"{self._terms.access.address}: refused a publish: {reason}")
        if parcel_id is not None:
            self._owner.take_confirmed(parcel_id, is_refused=reason.is_failure)

    def _on_message(self, client: Client, _: object, message: MQTTMessage) -> None:
        self._received += 1
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no broker should let it pass
            client.ack(message.mid, message.qos)
            return
        qos, mid, now_s = message.qos, message.mid, time.monotonic()
        taken = Message(
            topic,
            bytes(message.payload),
            now_s,
            message.retain,
            qos,
            mid,
            self._epoch,
            message.dup,
        )
        self._guard(self._owner.take_message, taken)

    def _on_log(self, _client: Client, _: object, level: int, _text: str) -> None:
        """Until the broker lets us in: TLS 1.3 refuses a client only after the handshake, and paho
        tells the reason to nobody else. Later it would cost a line of text for every packet."""
        exc = sys.exc_info()[1]
        if level == MQTT_LOG_ERR and isinstance(exc, ssl.SSLError):
            self._cut_by = exc

    def _on_disconnect(self, flags: DisconnectFlags, reason: ReasonCode) -> None:
        if flags.is_disconnect_packet_from_server:
            self._owner.say(f"{self._terms.access.address}: connection lost: {reason}")

    def _new_client(self) -> Client:
        terms, guard = self._terms, self._guard
        is_5 = terms.access.protocol == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=terms.client_id,
            clean_session=None if is_5 else not terms.keep_session,
            protocol=MQTTProtocolVersion.MQTTv5 if is_5 else MQTTProtocolVersion.MQTTv311,
            transport="unix" if terms.access.address.is_unix else "tcp",
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.on_connect = lambda _c, _u, _f, reason, _p: guard(self._on_connack, reason)
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: guard(self._on_suback, reasons)
        client.on_publish = lambda _c, _u, mid, reason, _p: guard(self._on_puback, mid, reason)
        client.on_disconnect = lambda _c, _u, flags, reason, _p: guard(
            self._on_disconnect, flags, reason
        )
        client.on_message = self._on_message
        client.on_log = self._on_log
        unsent_ms = min(UNSENT_TIMEOUT_MS, round(1000 * LOST_AFTER * terms.keepalive_s))
        client.on_socket_open = lambda _c, _u, sock: _tune_socket(sock, unsent_ms)
        if terms.tls is not None:
            client.tls_set_context(terms.tls)
        if (credentials := terms.access.credentials) is not None:
            client.username_pw_set(credentials.user, credentials.password or None)
        if terms.availability:
            client.will_set(terms.availability, "offline", qos=1, retain=True)
        return client


def _refusal(access: Access, reason: ReasonCode) -> str:
    if reason.value not in WRONG_LOGIN:
        return f"{access.address}: refused the connection: {reason}"
    if access.credentials is None:
        return f"{access.address}: refused the connection: it wants a user and a password"
    user = access.credentials.user
    return f"{access.address}: refused user {user!r}: wrong user or password, or not allowed"


def _tune_socket(sock: Any, unsent_ms: int) -> None:
    """What paho leaves alone: without NODELAY bursts wait 10–20 ms; with the other a link that is
    cut while something is sent is noticed without waiting for a ping."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unsent_ms)
