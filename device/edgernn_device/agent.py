"""The agent: link → inbox → monitor → link. Threads and clocks live here, and nothing else does."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgernn.errors import Exit, MissingExtraError, ending_with
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.health import Counters
from edgernn_device.inbox import Inbox
from edgernn_device.keeper import Keeper
from edgernn_device.link import Link, Message
from edgernn_device.loading import first_words, make_parts
from edgernn_device.logs import fields
from edgernn_device.memories import Memories
from edgernn_device.monitor import Outcome
from edgernn_device.outbox import Outbox
from edgernn_device.payload import PayloadError, RawSample
from edgernn_device.reporter import Reporter
from edgernn_device.silence import Hearing
from edgernn_device.voice import Voice
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

logger = logging.getLogger(__name__)


class Agent:
    """Runs until stopped. `run` is the worker; the link has its own thread."""

    def __init__(self, config: AgentConfig, engine: Engine, *, base: Path, where: str) -> None:
        """`base`: folder that files named in `config` are relative to. `where` opens sentences."""
        self._config = config
        self._topics = config.topics
        self._pattern = config.pattern
        self._intake, self._monitor = make_parts(config, engine, where=where)
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
        self._voice = Voice(self._link, self._monitor, self._topics, config.output)
        self._period_s = engine.card.period_s
        self._counters = Counters()
        self._notifier = Notifier()
        self._beat_s = self._health_s = time.monotonic()
        self._reporter = Reporter(
            counters=self._counters,
            inbox=self._inbox,
            intake=self._intake,
            keeper=self._keeper,
            link=self._link,
            monitor=self._monitor,
            outbox=self._outbox,
            voice=self._voice,
            began_s=self._beat_s,
        )
        self._hearing = Hearing(self._beat_s)
        self._at_hand: set[str] = set()
        """Streams of the batch that is being taken."""
        self._failed_in_a_row = 0
        """Messages that could not be handled since one could."""
        self._metrics = _open_metrics(config)
        self._metrics_s = float("-inf")

    def run(
        self,
        stop: threading.Event,
        *,
        is_replaced: Callable[[], bool] = lambda: False,
        must_reach_broker: bool = True,
    ) -> None:
        """Connect, then score and publish until `stop`, or until another takes its place.

        Raises EdgernnError if the broker cannot be reached at first, unless it need not: then it is
        tried again as after a lost connection. Raises RuntimeError if the network thread died. Ends
        the process if that or this thread hangs.
        """
        self._recall()
        patience_s = self._config.broker.start_timeout_s if must_reach_broker else 0.0
        try:
            self._link.start(timeout_s=patience_s)
            self._work(stop, is_replaced)
        finally:
            self._keeper.close(time.monotonic())

    def _recall(self) -> None:
        """Go on where the last process ended."""
        for parcel in self._keeper.recall():
            self._voice.send(parcel)
        names = list(self._monitor.streams)
        self._monitor.begin_silence(self._hearing_s())
        for name in names:
            self._voice.say_state(name)
        if names:
            logger.info("%d stream(s) go on where they ended", len(names))

    def _work(self, stop: threading.Event, is_replaced: Callable[[], bool]) -> None:
        logger.info(
            "%s: %s, %s, samples from %s",
            self._topics.node,
            self._monitor.engine.card.name,
            self._monitor.task,
            self._pattern.filter,
        )
        for sentence in first_words(self._config, self._monitor.engine):
            logger.info("%s", sentence)
        self._notifier.ready()
        beats = {"the worker": lambda: self._beat_s, "the network": lambda: self._link.beat_s}
        goes_on = False
        try:
            self._say_health()
            with Supervisor(beats):
                while not stop.is_set() and not (goes_on := is_replaced()):
                    self._beat_s = time.monotonic()
                    self._look_at_link()
                    if messages := self._drain():
                        self._handle(messages)
                    if not len(self._inbox):
                        self._take_due()
                    self._look_at_clocks()
        finally:
            if not goes_on:
                self._notifier.stopping()
            self._say_health()
            left = self._link.stop()
            if self._metrics is not None:
                self._metrics.close()
            logger.info(
                "stopped: %d messages, %d samples, %d unsent; %s",
                self._counters.messages,
                self._monitor.samples,
                left,
                ", ".join(f"{n} {why}" for why, n in self._reporter.counts().items())
                or "nothing irregular",
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
        before = self._tally()
        try:
            self._take(fresh)
        except Exception:
            logger.exception("a batch of %d messages failed", len(fresh))
            self._undo(before)
            self._take_one_by_one(fresh)
        for message in messages:
            self._link.ack(message)
        self._counters.add_batch(len(messages), latency_s=time.monotonic() - messages[0].received_s)

    def _take(self, messages: list[Message]) -> None:
        """Decode, score, keep, publish."""
        samples: list[tuple[str, RawSample]] = []
        self._at_hand = set()
        for message in messages:
            samples += self._decode(message)
        self._at_hand = {name for name, _ in samples}
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
            names = {name for name, _ in samples}
            self._keeper.roll_back(names)
            self._intake.forget_streams(names)
            self._make_effective(self._monitor.partings(), (), ())

    def _score(self, samples: list[tuple[str, RawSample]], messages: list[Message]) -> None:
        """Score, keep, publish."""
        outcome = self._monitor.take(samples, now_s=self._hearing_s())
        for reason, remark in self._monitor.remarks:
            if not reason or self._reporter.is_first(reason):
                logger.warning("%.500s", remark)
        self._monitor.remarks.clear()
        changed = [name for name, _ in samples] + self._intake.touched()
        self._make_effective(outcome, changed, messages)

    def _make_effective(
        self, outcome: Outcome, changed: Iterable[str], messages: Sequence[Message]
    ) -> None:
        """Keep it first, then publish it."""
        alerts = [(alert.stream, self._voice.parcel(alert)) for alert in outcome.alerts]
        for name in outcome.forgotten:
            self._keeper.forget(name)
        self._intake.forget_streams(outcome.forgotten)
        self._keeper.keep(changed, alerts, messages)
        self._voice.note(outcome.alerts)
        for _, parcel in alerts:
            self._voice.send(parcel)
        self._voice.publish(outcome)

    def _take_one_by_one(self, messages: list[Message]) -> None:
        """From what was written of their streams, so that what fails again is known: it is set
        aside. Each is written before the next is tried, so that no other is set back by it."""
        for message in messages:
            self._beat_s = time.monotonic()
            before = self._tally()
            try:
                self._take([message])
                self._keeper.write()
                self._failed_in_a_row = 0
            except Exception as exc:
                self._failed_in_a_row += 1
                if self._failed_in_a_row > MOST_POISON:
                    raise
                self._undo(before)
                self._intake.forget(message.topic)
                self._keeper.set_poison_aside(message, repr(exc))
                self._refuse("poison", message, f"failed twice, set aside: {exc!r}")

    @property
    def _counts(self) -> Sequence[Counter[str]]:
        """What the worker counts, by reason."""
        return (self._counters.refused, self._monitor.counts, self._intake.counts)

    def _tally(self) -> tuple[int, list[Counter[str]]]:
        """What it has counted so far."""
        return self._monitor.samples, [counter.copy() for counter in self._counts]

    def _undo(self, before: tuple[int, list[Counter[str]]]) -> None:
        """The batch at hand failed: all is as it was before, its streams as they were written. But
        who was let go for it is gone."""
        self._monitor.samples, counts = before
        for counter, then in zip(self._counts, counts, strict=True):
            counter.clear()
            counter.update(then)
        self._keeper.roll_back(self._at_hand.union(self._intake.touched()))
        self._make_effective(self._monitor.partings(), (), ())

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
        if self._reporter.is_first(reason):
            logger.warning(
                "%r: %s: %.200s (said once, then counted)",
                message.topic[:200],
                reason,
                detail,
                extra=fields(topic=message.topic[:200], reason=reason),
            )

    def _look_at_link(self) -> None:
        self._link.raise_if_dead()
        now_s = time.monotonic()
        if now_s - self._link.beat_s < FRESH_S:
            self._notifier.feed(now_s)
        if self._must_say_all.is_set():  # a broker that was restarted has forgotten it
            self._must_say_all.clear()
            self._voice.say_all_again()
            self._say_health()
        self._voice.go_on()

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
            self._metrics.show(self._reporter.report(now_s, time.time()))

    def _hearing_s(self) -> float:
        """On the clock of silence: a stream is not silent because the broker is away."""
        return self._hearing.look(time.monotonic(), can_hear=self._link.is_connected)

    def _say_health(self) -> None:
        for sentence in self._reporter.news():
            logger.warning("%s", sentence)
        self._health_s = time.monotonic()
        health = self._reporter.next_health(self._health_s, time.time())
        self._voice.retain(self._topics.health, health)
        where = "connected" if self._link.is_connected else self._link.problem or "connecting"
        self._notifier.status(f"{where}; {health.streams} streams, {health.samples} samples")


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
