"""The agent: link → inbox → monitor → link. Threads and clocks live here, and nothing else does."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgernn import __version__
from edgernn.errors import Exit, MissingExtraError, ending_with
from edgernn.times import format_time
from edgernn_device.alert import Alert
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.health import Counters, Health, Report, resident_bytes
from edgernn_device.inbox import Inbox
from edgernn_device.keeper import Keeper
from edgernn_device.link import Link, Message
from edgernn_device.logs import fields
from edgernn_device.memories import Memories
from edgernn_device.monitor import Monitor, Outcome
from edgernn_device.outbox import Outbox, Parcel
from edgernn_device.payload import PayloadError, RawSample
from edgernn_device.retained import Retained
from edgernn_device.silence import Hearing
from edgernn_device.tasks import make_task
from edgernn_device.topics import NOTICES
from edgernn_device.watchdog import FRESH_S, Notifier, Supervisor

if TYPE_CHECKING:  # the extra `metrics`
    from edgernn_device.metrics import Metrics

LARGEST_BATCH = 2000
"""Messages drained in one go: bounds the time until they are acknowledged."""
LARGEST_BATCH_BYTES = 4_000_000
"""The same in bytes, for messages of many samples: seconds on a slow device, so that a worker at
work is not taken for one that hangs."""
IDLE_S = 0.2
"""Longest wait for a message before the clocks are looked at."""
METRICS_EVERY_S = 1.0
"""How old what a scrape sees may be."""
MOST_POISON = 20
"""Messages in a row that cannot be handled: then it is not the messages."""
SEVERITY = {"warning": 1, "critical": 2}
"""Order in which a full outbox gives alerts up."""

logger = logging.getLogger(__name__)


class Agent:
    """Runs until stopped. `run` is the worker; the link has its own thread."""

    def __init__(self, config: AgentConfig, engine: Engine, *, base: Path, where: str) -> None:
        """`base`: folder that files named in `config` are relative to. `where` opens sentences."""
        card = engine.card
        self._config = config
        self._topics = config.topics
        self._pattern = config.pattern
        self._intake = config.intake(card, where=where)
        self._monitor = Monitor(
            engine,
            make_task(config, engine, where=where),
            rule=config.stream_rule(card),
            max_streams=config.input.max_streams,
            node=self._topics.node,
            silence=config.silence(card),
            odd=config.input.not_a_number,
            before_2000=config.input.before_2000,
        )
        store = config.store
        with ending_with(Exit.STATE):
            self._keeper = Keeper(
                store.file(base, node=self._topics.node),
                Memories(self._monitor, self._intake.join),
                durability=store.durability,
                checkpoint_s=store.checkpoint_s,
                now_s=time.monotonic(),
            )
        self._outbox = Outbox(store.outbox_alerts, round(1e6 * store.outbox_mb))
        self._inbox: Inbox[Message] = Inbox(
            messages=config.input.inbox,
            size_bytes=round(1e6 * config.input.inbox_mb),
            when_full=config.input.when_full,
            on_room=self._wake_link,
        )
        self._must_say_all = threading.Event()
        self._link = Link(
            config.broker.access(base),
            client_id=f"edgernn-{self._topics.node}",
            subscriptions=[(self._pattern.filter, config.input.qos)],
            on_message=self._enqueue,
            on_connect=self._must_say_all.set,
            on_delivered=self._keeper.done_with,
            on_dropped=self._keeper.done_with,
            wants_more=lambda: self._inbox.wants_more,
            availability=self._topics.availability,
            outbox=self._outbox,
            keep_session=config.broker.keep_session,
            keepalive_s=config.broker.keepalive_s,
        )
        self._said: dict[str, tuple[str, tuple[str, ...]]] = {}
        """Stream → state and faults last published."""
        self._retained = Retained(self._publish_retained)
        self._period_s = card.period_s
        self._score_said_s: dict[str, float] = {}
        """Stream → sample time of the score last published."""
        self._counters = Counters()
        self._notifier = Notifier()
        self._began_s = self._beat_s = time.monotonic()
        self._health_s = self._began_s
        self._hearing = Hearing(self._began_s)
        self._health_samples = 0
        self._metrics = _open_metrics(config)
        self._metrics_s = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Connect, then score and publish until `stop`.

        Raises EdgernnError if the broker cannot be reached at first, RuntimeError if the network
        thread died. Ends the process if that or this thread hangs.
        """
        self._recall()
        try:
            self._link.start(timeout_s=self._config.broker.start_timeout_s)
            self._work(stop)
        finally:
            self._keeper.close(time.monotonic())

    def _recall(self) -> None:
        """Go on where the last process ended."""
        for parcel in self._keeper.recall():
            self._send(parcel)
        names = list(self._monitor.streams)
        self._monitor.begin_silence(self._hearing_s())
        for name in names:
            self._say_state(name)
        if names:
            logger.info("%d stream(s) go on where they ended", len(names))

    def _work(self, stop: threading.Event) -> None:
        logger.info(
            "%s: %s, %s, listening on %s",
            self._topics.node,
            self._monitor.engine.card.name,
            self._monitor.task,
            self._pattern.filter,
        )
        self._notifier.ready()
        beats = {"the worker": lambda: self._beat_s, "the network": lambda: self._link.beat_s}
        try:
            self._say_health()
            with Supervisor(beats):
                while not stop.is_set():
                    self._beat_s = time.monotonic()
                    self._look_at_link()
                    if messages := self._drain():
                        self._handle(messages)
                    if not len(self._inbox):
                        self._take_due()
                    self._look_at_clocks()
        finally:
            self._notifier.stopping()
            self._say_health()
            left = self._link.stop()
            if self._metrics is not None:
                self._metrics.close()
            logger.info(
                "stopped: %d messages, %d samples, %d unsent, dropped %s",
                self._counters.messages,
                self._monitor.samples,
                left,
                dict(self._counts()) or "nothing",
            )

    def _enqueue(self, message: Message) -> None:
        """In the network thread: nothing but this."""
        for given_up in self._inbox.put(message):
            self._link.ack(given_up)

    def _wake_link(self) -> None:
        self._link.wake()

    def _drain(self) -> list[Message]:
        """Everything that waits, or what comes within `IDLE_S`."""
        return self._inbox.take(LARGEST_BATCH, size_bytes=LARGEST_BATCH_BYTES, timeout_s=IDLE_S)

    def _handle(self, messages: list[Message]) -> None:
        """One batch; acknowledged only when its effect is safe."""
        fresh = self._keeper.without_repeats(messages)
        if len(fresh) < len(messages):
            self._counters.refused["redelivered"] += len(messages) - len(fresh)
        try:
            self._take(fresh)
        except Exception:
            logger.exception("a batch of %d messages failed", len(fresh))
            self._take_one_by_one(fresh)
        for message in messages:
            self._link.ack(message)
        self._counters.add_batch(len(messages), latency_s=time.monotonic() - messages[0].received_s)

    def _take(self, messages: list[Message]) -> None:
        """Decode, score, keep, publish."""
        samples: list[tuple[str, RawSample]] = []
        for message in messages:
            samples += self._decode(message)
        self._score(samples, messages)

    def _take_due(self) -> None:
        """Samples that were joined and whose time is over, with nothing more to come."""
        if not (samples := self._intake.due(time.monotonic())):
            return
        try:
            self._score(samples, [])
        except Exception:
            logger.exception("%d joined samples failed: left out", len(samples))
            self._counters.refused["poison"] += len(samples)
            self._keeper.roll_back()
            self._intake.forget_streams({name for name, _ in samples})

    def _score(self, samples: list[tuple[str, RawSample]], messages: list[Message]) -> None:
        """Score, keep, publish."""
        outcome = self._monitor.take(samples, now_s=self._hearing_s())
        for remark in self._monitor.remarks:
            logger.warning("%.500s", remark)
        self._monitor.remarks.clear()
        changed = [name for name, _ in samples] + self._intake.touched()
        self._make_effective(outcome, changed, messages)

    def _make_effective(
        self, outcome: Outcome, changed: Iterable[str], messages: Sequence[Message]
    ) -> None:
        """Keep it first, then publish it."""
        alerts = [(alert.stream, self._parcel(alert)) for alert in outcome.alerts]
        for name in outcome.forgotten:
            self._keeper.forget(name)
        self._intake.forget_streams(outcome.forgotten)
        self._keeper.keep(changed, alerts, messages)
        for alert in outcome.alerts:
            self._note(alert)
        for _, parcel in alerts:
            self._send(parcel)
        self._publish(outcome)

    def _take_one_by_one(self, messages: list[Message]) -> None:
        """From the last that was kept, so that what fails again is known: it is set aside."""
        self._keeper.roll_back()
        in_a_row = 0
        for message in messages:
            self._beat_s = time.monotonic()
            try:
                self._take([message])
                in_a_row = 0
            except Exception as exc:
                in_a_row += 1
                if in_a_row > MOST_POISON:
                    raise
                self._keeper.roll_back()
                self._intake.forget(message.topic)
                self._keeper.set_poison_aside(message, repr(exc))
                self._refuse("poison", message, f"failed twice, set aside: {exc!r}")

    def _decode(self, message: Message) -> list[tuple[str, RawSample]]:
        try:
            waited_s = time.monotonic() - message.received_s
            found = self._intake.take(
                message.topic,
                message.payload,
                received_s=time.time() - waited_s,
                now_s=message.received_s,
                period_s=self._period_s,
                is_again=message.is_again,
            )
        except PayloadError as exc:
            self._refuse(exc.reason, message, exc.detail)
            return []
        is_old = message.retained and not self._pattern.has_channel
        return self._news(found) if is_old else found

    def _news(self, found: list[tuple[str, RawSample]]) -> list[tuple[str, RawSample]]:
        """A retained message comes with every new subscription, however old it is: only samples
        that say when they were taken, later than all before, are new."""
        streams = self._monitor.streams
        news = [
            (name, sample)
            for name, sample in found
            if not sample.is_stamped
            and (name not in streams or sample.time_s > streams[name].last_s)
        ]
        if len(news) < len(found):
            self._counters.refused["retained"] += len(found) - len(news)
        return news

    def _refuse(self, reason: str, message: Message, detail: str) -> None:
        """Count it; say the first of each kind, so that a flood does not fill the log."""
        self._counters.refused[reason] += 1
        if self._counters.refused[reason] == 1:
            logger.warning(
                "%r: %s: %.200s (said once, then counted)",
                message.topic[:200],
                reason,
                detail,
                extra=fields(topic=message.topic[:200], reason=reason),
            )

    def _parcel(self, alert: Alert) -> Parcel:
        topic, payload = self._topics.alert(alert.stream), msgspec.json.encode(alert)
        return Parcel(alert.id, topic, payload, SEVERITY[alert.severity])

    def _note(self, alert: Alert) -> None:
        self._counters.alerts[alert.severity] += alert.edge == "on"
        logger.info(
            "alert %s: %s",
            alert.edge,
            alert.sentence,
            extra=fields(
                id=alert.id,
                stream=alert.stream,
                edge=alert.edge,
                severity=alert.severity,
                sample_time=alert.time,
                score=alert.score,
            ),
        )

    def _send(self, parcel: Parcel) -> None:
        self._link.publish(
            parcel.topic,
            parcel.payload,
            qos=1,
            severity=parcel.severity,
            parcel_id=parcel.id,
            retain=parcel.retain,
        )

    def _publish(self, outcome: Outcome) -> None:
        for name in outcome.forgotten:  # first: it may be back
            self._unsay(name)
        for notice in outcome.notices:
            self._retain(self._topics.notice(notice.stream, notice.kind), notice.content)
        for name in outcome.streams:
            self._say_state(name)
        if self._config.output.scores:
            for name, scored in outcome.scores.items():
                if self._is_score_due(name):
                    self._link.publish(self._topics.score(name), msgspec.json.encode(scored))

    def _retain(self, topic: str, content: msgspec.Struct) -> None:
        payload = msgspec.json.encode(content)
        self._retained.say(topic, payload, is_connected=self._link.is_connected)

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        self._link.publish(topic, payload, qos=1, retain=True, is_report=True)

    def _is_score_due(self, name: str) -> bool:
        now_s = self._monitor.streams[name].last_s
        due = now_s - self._score_said_s.get(name, float("-inf"))
        if 0 <= due < self._config.output.score_every_s:
            return False
        self._score_said_s[name] = now_s
        return True

    def _unsay(self, name: str) -> None:
        """A stream that was forgotten: nothing retained speaks of it."""
        self._said.pop(name, None)
        self._score_said_s.pop(name, None)
        for topic in (self._topics.state(name), *(self._topics.notice(name, k) for k in NOTICES)):
            self._retained.forget(topic)

    def _say_state(self, name: str) -> None:
        """Publish a stream's state if it changed."""
        state = self._monitor.state_of(name)
        said = (state.state, state.faults)
        if self._said.get(name) != said:
            self._said[name] = said
            self._retain(self._topics.state(name), state)

    def _look_at_link(self) -> None:
        self._link.raise_if_dead()
        now_s = time.monotonic()
        if now_s - self._link.beat_s < FRESH_S:
            self._notifier.feed(now_s)
        if self._must_say_all.is_set():  # a broker that was restarted has forgotten it
            self._must_say_all.clear()
            self._retained.say_all_again()
            self._say_health()
        self._retained.go_on(waiting=self._link.waiting)

    def _look_at_clocks(self) -> None:
        now_s = time.monotonic()
        self._keeper.tick(now_s)
        outcome = self._monitor.look_at_clock(self._hearing_s())
        if outcome.streams or outcome.forgotten:
            self._make_effective(outcome, outcome.streams, ())
        if now_s - self._health_s >= self._config.output.health_every_s:
            self._say_health()
        if self._metrics is not None and now_s - self._metrics_s >= METRICS_EVERY_S:
            self._metrics_s = now_s
            self._metrics.show(self._report(now_s))

    def _hearing_s(self) -> float:
        """On the clock of silence: a stream is not silent because the broker is away."""
        return self._hearing.look(time.monotonic(), can_hear=self._link.is_connected)

    def _counts(self) -> Counter[str]:
        """Everything refused, bridged or lost so far, by reason."""
        return (
            self._counters.refused
            + self._monitor.counts
            + self._intake.counts
            + self._inbox.counts
            + Counter(
                publish_offline=self._link.dropped,
                publish_refused=self._link.refused,
                outbox_full=self._outbox.dropped,
            )
        )

    def _say_health(self) -> None:
        now_s = time.monotonic()
        health = self._health(now_s)
        self._health_s, self._health_samples = now_s, self._monitor.samples
        self._retain(self._topics.health, health)
        where = "connected" if self._link.is_connected else self._link.problem or "connecting"
        self._notifier.status(f"{where}; {health.streams} streams, {health.samples} samples")

    def _report(self, now_s: float) -> Report:
        return Report(
            health=self._health(now_s),
            is_connected=self._link.is_connected,
            latency_counts=tuple(self._counters.latency.counts),
            latency_sum_s=self._counters.latency.sum_s,
        )

    def _health(self, now_s: float) -> Health:
        monitor = self._monitor
        states = Counter(state for state, _ in self._said.values() if state)
        return Health(
            time=format_time(time.time()),
            uptime_s=round(now_s - self._began_s, 1),
            version=__version__,
            model=monitor.engine.card.name,
            model_hash=monitor.engine.hash,
            rss_mb=round(resident_bytes() / 1e6, 1),
            streams=len(monitor.streams),
            stale=sum(one.silent_since_s is not None for one in monitor.streams.values()),
            states=dict(states),
            alerts=dict(self._counters.alerts),
            messages=self._counters.messages,
            samples=monitor.samples,
            samples_per_s=round(
                (monitor.samples - self._health_samples) / max(now_s - self._health_s, 1e-3), 1
            ),
            latency_ms=round(self._counters.last_latency_s * 1e3, 2),
            inbox=len(self._inbox),
            outbox=self._link.waiting,
            store=self._keeper.problem,
            store_failures=self._keeper.failures,
            reconnects=self._link.reconnects,
            dropped=dict(self._counts()),
        )


def _open_metrics(config: AgentConfig) -> "Metrics | None":
    if not config.metrics.listen:
        return None
    try:
        from edgernn_device.metrics import Metrics  # noqa: PLC0415 - the extra `metrics`
    except ModuleNotFoundError as exc:
        raise MissingExtraError(
            f"metrics.listen needs {exc.name}, which this installation has not: "
            "pip install 'edgernn[metrics]'"
        ) from exc
    metrics = Metrics(*config.metrics.endpoint)
    logger.info("metrics at http://%s/metrics", config.metrics.listen)
    return metrics
