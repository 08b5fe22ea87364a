"""Stays connected to the broker: a network thread, back-off, publishes and acknowledgements.

Other threads leave work and wake the network thread, which alone touches the connection. paho's own
loops are not used: an exception ends them unseen while `is_connected()` stays True.
"""

import logging
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from edgernn.errors import EdgernnError, Exit, ending_with
from edgernn_device.address import Access
from edgernn_device.attempt import Attempt
from edgernn_device.connection import TICK_S, Connection, Message, OwnerError, Terms
from edgernn_device.explain import explain
from edgernn_device.outbox import Outbox, Parcel

__all__ = ["Link", "Message"]

BACK_OFF_S = (0.25, 30.0)
"""First and longest wait between two attempts; each is shortened by up to half, at random."""
FAREWELL_S = 1.0
"""How long "offline" may take to be confirmed, beyond the time to stop."""
IN_FLIGHT = 19
"""Unconfirmed publishes on the wire: paho's window of 20, less one for the availability."""
LONGEST_OPENING_S = 300.0
"""A resolver, connect or handshake that takes longer hangs, and so, to whoever looks, does the
network thread."""
LOOSE_LIMIT = 1000
"""QoS 0 publishes that wait for the socket; a further one is dropped and counted."""
POLL_S = 0.05
"""How often an attempt to connect is looked at."""
SHORT_SESSION_S = 5.0
"""A connection lost sooner does not end the back-off; three in a row are suspicious."""

SLOW_OPENING_S = 15.0
"""An attempt to connect that takes longer is a problem, though it goes on."""

logger = logging.getLogger(__name__)


class Link:
    """Connected until stopped. All callbacks run in the network thread and must not block.

    An exception in a callback ends the thread, without a DISCONNECT, so that the last will is sent;
    `failure` and `raise_if_dead` tell.
    """

    def __init__(
        self,
        access: Access,
        *,
        client_id: str,
        subscriptions: Sequence[tuple[str, int]] = (),
        on_message: Callable[[Message], None] | None = None,
        on_connect: Callable[[], None] | None = None,
        on_delivered: Callable[[str | int], None] | None = None,
        on_dropped: Callable[[str | int], None] | None = None,
        wants_more: Callable[[], bool] = lambda: True,
        availability: str = "",
        outbox: Outbox | None = None,
        keep_session: bool = False,
        keepalive_s: int = 15,
    ) -> None:
        """`availability` is a topic: retained "online" while connected, "offline" otherwise.

        Every message must lead to `ack(message)`: a QoS 1 message that was not acknowledged comes
        again; one that arrives after `stop` was called is not handed on. `keep_session` asks the
        broker to queue for us while we are away. While `wants_more` says no, the socket is not
        read, so that the broker queues; `wake` tells that it says yes again.
        `on_dropped(parcel_id)`: given up for others, in the thread that publishes, or refused.
        """
        self.is_connected = False
        self.failure: BaseException | None = None
        """What ended the network thread, if anything did."""
        self.problem = ""
        """Why there is no connection, or what the broker refused; empty when all is well."""
        self.beat_s = time.monotonic()
        """When the network thread last came round; many seconds old: it hangs."""
        self.connects = 0
        self.dropped = 0
        """QoS 0 publishes given up: no connection, or the socket too slow."""
        self.refused = 0
        """Publishes the broker did not accept; not sent again. MQTT 3.1.1 brokers cannot say so."""
        self.stale_acks = 0
        """Acknowledgements dropped because their connection is over; the message comes again."""

        self._terms = Terms(
            access=access,
            client_id=client_id,
            subscriptions=tuple(subscriptions),
            availability=availability,
            keep_session=keep_session,
            keepalive_s=keepalive_s,
            tls=access.tls_context() if access.address.tls else None,
        )
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_delivered = on_delivered
        self._on_dropped = on_dropped
        self._wants_more = wants_more
        self._changed = threading.Condition()  # guards the outbox; told of every change
        self._outbox = Outbox() if outbox is None else outbox
        self._loose: deque[tuple[str, bytes, bool]] = deque()
        self._acks: deque[Message] = deque()  # the broker's window bounds it
        self._numbers = 0
        self._is_ready = self._has_failed_once = self._is_starting = False
        self._has_said_why = self._has_said_goodbye = False
        self._stop_at_s: float | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._is_woken = False
        self._thread = threading.Thread(target=self._run, name="edgernn-link", daemon=True)

    @property
    def reconnects(self) -> int:
        return max(0, self.connects - 1)

    @property
    def waiting(self) -> int:
        """Publishes not yet confirmed (QoS 1) or written (QoS 0)."""
        return len(self._outbox) + len(self._loose)

    @ending_with(Exit.BROKER)
    def start(self, *, timeout_s: float = 10.0) -> None:
        """Connect and subscribe; 0 = go on trying in the background.

        Raises EdgernnError with the reason if the first attempt fails or takes longer.
        """
        self._is_starting = bool(timeout_s)  # what is raised need not be logged
        self._thread.start()
        if not timeout_s:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready or self._has_failed_once, timeout_s)
        self._is_starting = False
        if self.failure is not None or not self._is_ready or self.problem:
            why = self.problem or f"{self._terms.access.address}: no answer within {timeout_s:g} s"
            self.stop(timeout_s=0)
            self.raise_if_dead()
            raise EdgernnError(why)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: Literal[0, 1] = 0,
        retain: bool = False,
        severity: int = 0,
        parcel_id: str | int | None = None,
        is_report: bool = False,
    ) -> None:
        """QoS 1: kept until confirmed, then `on_delivered(parcel_id)`. QoS 0: now or never.
        `is_report`: of those that wait, only the newest of a topic is sent."""
        if not topic or "+" in topic or "#" in topic:
            raise ValueError(f"not a topic to publish to: {topic!r}")
        dropped: list[Parcel] = []
        with self._changed:
            if qos == 1:
                self._numbers += 1
                key = f"#{self._numbers}" if parcel_id is None else parcel_id
                dropped = self._outbox.put(Parcel(key, topic, payload, severity, retain, is_report))
            elif self.is_connected and len(self._loose) < LOOSE_LIMIT:
                self._loose.append((topic, payload, retain))
            else:
                self.dropped += 1
        self.wake()
        if self._on_dropped is not None:
            for parcel in dropped:
                self._on_dropped(parcel.id)

    def ack(self, message: Message) -> None:
        """The effect of `message` is safe: the broker may forget it."""
        if message.qos:
            self._acks.append(message)
            self.wake()

    def wake(self) -> None:
        """Let the network thread look at its queues now."""
        if not self._is_woken:
            self._is_woken = True
            with suppress(OSError):  # stopped meanwhile, or as many bytes wait as it takes
                self._wake_in.send(b"\0")

    def wait_until_waiting(self, at_most: int = 0, *, timeout_s: float) -> bool:
        """Block until no more than `at_most` publishes wait; False if that took too long."""
        with self._changed:
            is_so = self._changed.wait_for(
                lambda: self.waiting <= at_most or self.failure, timeout_s
            )
        self.raise_if_dead()
        return bool(is_so)

    def raise_if_dead(self) -> None:
        """Raises RuntimeError, from its cause, if an exception ended the network thread."""
        if self.failure is not None:
            raise RuntimeError("the network thread died") from self.failure

    def stop(self, *, timeout_s: float = 5.0) -> int:
        """Deliver what waits, say "offline", disconnect. Returns how many were not delivered."""
        if self._thread.is_alive():
            self._stop_at_s = time.monotonic() + timeout_s
            self.wake()
            self._thread.join(timeout_s + FAREWELL_S + 2 * TICK_S)
        if not self._thread.is_alive():
            self._wake_in.close()
            self._wake_out.close()
        if self._outbox:
            logger.warning("%d publishes were not confirmed at the end", len(self._outbox))
        return len(self._outbox)

    # ---- the network thread

    def _run(self) -> None:
        try:
            self._stay_connected()
        except Exception as exc:
            self.failure = exc.__cause__ if isinstance(exc, OwnerError) else exc
            logger.critical("the network thread died", exc_info=self.failure)
        finally:
            self._tell_failed()

    def _stay_connected(self) -> None:
        attempt = short_sessions = 0
        while not self._may_end():
            began_s, connects = time.monotonic(), self.connects
            self._serve()
            if self._may_end():
                return
            was_connected = self.connects > connects
            is_long = was_connected and time.monotonic() - began_s > SHORT_SESSION_S
            short_sessions = short_sessions + 1 if was_connected and not is_long else 0
            self._say_why_lost(was_connected, short_sessions)
            self._tell_failed()
            self._wait(min(BACK_OFF_S[1], BACK_OFF_S[0] * 2 ** min(attempt, 16)))
            attempt = 0 if is_long else attempt + 1

    def _serve(self) -> None:
        """One connection, from its beginning to its end."""
        self._has_said_why = False
        connection = Connection(self._terms, self, epoch=self.connects + 1)
        try:
            if not self._has_opened(connection):
                return
            self._hand_over(connection)
            while connection.step(self._wake_out) and not self._has_left(connection):
                self.beat_s = time.monotonic()
                self._fall_asleep()
                self._hand_over(connection)
        except OSError as exc:
            self.say(explain(exc, self._terms.access.address))
        finally:
            connection.close()
            self._end_connection()

    def _has_opened(self, connection: Connection) -> bool:
        """False if asked to stop before it came about. Raises OSError."""
        opening = Attempt(connection.open, undo=connection.close, name="edgernn-opening")
        began_s = time.monotonic()
        while not opening.is_done(within_s=POLL_S):
            now_s = time.monotonic()
            if now_s - began_s < LONGEST_OPENING_S:
                self.beat_s = now_s
            if self._may_end():
                opening.abandon()
                return False
            if now_s - began_s > SLOW_OPENING_S and not self._has_said_why:
                self.say(f"{self._terms.access.address}: no answer from the resolver or the host")
                self._tell_failed()
        return True

    def _hand_over(self, connection: Connection) -> None:
        """Acknowledgements, then publishes, as other threads left them."""
        while self._acks:
            message = self._acks.popleft()
            if connection.is_up and message.epoch == self.connects:
                connection.ack(message)
            else:
                self.stale_acks += 1
        if not connection.is_up:
            return
        with self._changed:
            for parcel in self._outbox.next_to_send(IN_FLIGHT):
                connection.send(parcel)
            while self._loose and not connection.is_congested:
                topic, payload, retain = self._loose.popleft()
                connection.send_once(topic, payload, retain=retain)
            self._changed.notify_all()

    def _has_left(self, connection: Connection) -> bool:
        """Asked to stop, and nothing waits or time is up: "offline" and, confirmed, DISCONNECT."""
        if self._stop_at_s is None or not self._may_end():
            return False
        if not connection.is_up:
            return True
        if self._terms.availability and not self._has_said_goodbye:
            self._has_said_goodbye = True
            connection.say_availability("offline")
        is_late = time.monotonic() > self._stop_at_s + FAREWELL_S
        if not (connection.has_said_availability or is_late):
            return False
        connection.leave()
        return True

    def _may_end(self) -> bool:
        stop_at_s = self._stop_at_s
        return stop_at_s is not None and (not self.waiting or time.monotonic() > stop_at_s)

    def _end_connection(self) -> None:
        with self._changed:
            self.is_connected = self._is_ready = False
            self._outbox.connection_lost()
            self.dropped += len(self._loose)
            self._loose.clear()
            self._changed.notify_all()

    def _tell_failed(self) -> None:
        """After the reason is known: `start` passes it on."""
        with self._changed:
            self._has_failed_once = True
            self._changed.notify_all()

    def _wait(self, longest_s: float) -> None:
        until_s = time.monotonic() + longest_s * random.uniform(0.5, 1.0)
        while (left_s := until_s - time.monotonic()) > 0 and not self._may_end():
            select.select([self._wake_out], [], [], min(left_s, TICK_S))
            self._fall_asleep()
            self.beat_s = time.monotonic()

    def _fall_asleep(self) -> None:
        """From here on `wake` wakes again; before any look at the queues, so nothing is missed.

        In this order, and whatever the flag says: of two threads that wake at once, one may send
        its byte after the other's was taken, and a byte left behind would end every sleep at once.
        """
        with suppress(BlockingIOError):
            self._wake_out.recv(64)
        self._is_woken = False

    def _say_why_lost(self, was_connected: bool, short_sessions: int) -> None:
        address, name = self._terms.access.address, self._terms.client_id
        if short_sessions >= 3:
            self.say(f"{address}: cut off again and again; is another client called {name!r}?")
        elif not self._has_said_why and was_connected:
            self.say(f"{address}: connection lost")
        elif not self._has_said_why:
            self.say(f"{address}: closed without an answer; {self._guess()}")

    def _guess(self) -> str:
        access = self._terms.access
        if not access.address.tls:
            return "does it expect TLS (mqtts://)?"
        if access.cert_file is None:
            return "does it want a client certificate (cert_file, key_file)?"
        return "does it trust this client's certificate?"

    # ---- what the connection tells: see `connection.Owner`

    def say(self, why: str) -> None:
        """Remember a problem, and log it unless it is the same as before."""
        self._has_said_why = True
        if why != self.problem and not self._is_starting:
            logger.warning("%s", why)
        self.problem = why

    def take_connected(self) -> None:
        logger.info("connected to %s as %s", self._terms.access.address, self._terms.client_id)
        with self._changed:
            self.connects += 1
            self.is_connected = True
            self.problem = ""
        if self._on_connect is not None:
            self._on_connect()

    def take_subscribed(self) -> None:
        with self._changed:
            self._is_ready = True
            self._changed.notify_all()

    def wants_more(self) -> bool:
        """When stopping, what is confirmed to us must be read, full or not."""
        return self._stop_at_s is not None or self._wants_more()

    def take_message(self, message: Message) -> None:
        if self._on_message is not None and self._stop_at_s is None:
            self._on_message(message)

    def take_confirmed(self, parcel_id: str | int, *, is_refused: bool) -> None:
        with self._changed:
            self.refused += is_refused
            self._outbox.confirm(parcel_id)
            self._changed.notify_all()
        tell = self._on_dropped if is_refused else self._on_delivered
        if tell is not None:
            tell(parcel_id)
