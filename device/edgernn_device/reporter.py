"""The agent's reports of itself: the health topic's JSON, and what a scrape of metrics sees."""

from collections import Counter

from edgernn import __version__
from edgernn.times import format_time
from edgernn_device.health import (
    TOLD_ELSEWHERE,
    Counters,
    Health,
    Report,
    describe,
    resident_bytes,
)
from edgernn_device.inbox import Inbox
from edgernn_device.intake import Intake
from edgernn_device.keeper import Keeper
from edgernn_device.link import Link, Message
from edgernn_device.monitor import Monitor
from edgernn_device.outbox import Outbox
from edgernn_device.voice import Voice


class Reporter:
    """Asks every part how it is. No clock of its own."""

    def __init__(
        self,
        *,
        counters: Counters,
        inbox: Inbox[Message],
        intake: Intake,
        keeper: Keeper,
        link: Link,
        monitor: Monitor,
        outbox: Outbox,
        voice: Voice,
        began_s: float,
    ) -> None:
        """`began_s`, and below `now_s`: monotonic."""
        self._counters = counters
        self._inbox = inbox
        self._intake = intake
        self._keeper = keeper
        self._link = link
        self._monitor = monitor
        self._outbox = outbox
        self._voice = voice
        self._began_s = self._last_s = began_s
        self._last_samples = 0
        self._told = set(TOLD_ELSEWHERE)
        """Reasons that need no word any more."""

    def is_first(self, reason: str) -> bool:
        """Whether a reason is to be said, by who knows more of it than `news`."""
        if reason in self._told:
            return False
        self._told.add(reason)
        return True

    def counts(self) -> Counter[str]:
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

    def news(self) -> list[str]:
        """Sentences for the operator about what was counted for the first time."""
        new = [reason for reason, n in self.counts().items() if n and self.is_first(reason)]
        return [f"{reason}: {describe(reason)} (said once, then counted)" for reason in new]

    def next_health(self, now_s: float, wall_s: float) -> Health:
        """For the health topic: its rate is that since the last one. `wall_s`: since 1970."""
        health = self.health(now_s, wall_s)
        self._last_s, self._last_samples = now_s, self._monitor.samples
        return health

    def report(self, now_s: float, wall_s: float) -> Report:
        """For the metrics."""
        return Report(
            health=self.health(now_s, wall_s),
            is_connected=self._link.is_connected,
            latency_counts=tuple(self._counters.latency.counts),
            latency_sum_s=self._counters.latency.sum_s,
        )

    def health(self, now_s: float, wall_s: float) -> Health:
        monitor = self._monitor
        return Health(
            time=format_time(wall_s),
            uptime_s=round(now_s - self._began_s, 1),
            version=__version__,
            model=monitor.engine.card.name,
            model_hash=monitor.engine.hash,
            rss_mb=round(resident_bytes() / 1e6, 1),
            streams=len(monitor.streams),
            stale=sum(one.silent_since_s is not None for one in monitor.streams.values()),
            states=dict(self._voice.states),
            alerts=dict(self._voice.alerts),
            messages=self._counters.messages,
            samples=monitor.samples,
            samples_per_s=round(
                (monitor.samples - self._last_samples) / max(now_s - self._last_s, 1e-3), 1
            ),
            latency_ms=round(self._counters.last_latency_s * 1e3, 2),
            inbox=len(self._inbox),
            outbox=self._link.waiting,
            store=self._keeper.problem,
            store_failures=self._keeper.failures,
            reconnects=self._link.reconnects,
            dropped=dict(self.counts()),
        )
