"""What the agent says: alerts, states, notices and scores, each on its topic, by the link."""

import logging
from collections import Counter
from collections.abc import Iterable

import msgspec

from edgernn_device.alert import Alert
from edgernn_device.config import OutputConfig
from edgernn_device.link import Link
from edgernn_device.logs import fields
from edgernn_device.monitor import Monitor, Outcome
from edgernn_device.outbox import Parcel
from edgernn_device.retained import Retained
from edgernn_device.topics import NOTICES, NodeTopics

SEVERITY = {"warning": 1, "critical": 2}
"""Order in which a full outbox gives alerts up."""

logger = logging.getLogger(__name__)


class Voice:
    """Says what is new, and all that is retained again to a broker that forgot it."""

    def __init__(
        self, link: Link, monitor: Monitor, topics: NodeTopics, output: OutputConfig
    ) -> None:
        self.alerts: Counter[str] = Counter()
        """Alarms that went on, by severity."""
        self._link = link
        self._monitor = monitor
        self._topics = topics
        self._output = output
        self._retained = Retained(self._publish_retained)
        self._said: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        """Stream → state, its beginning and the faults last published."""
        self._score_said_s: dict[str, float] = {}
        """Stream → sample time of the score last published."""

    @property
    def states(self) -> Counter[str]:
        """Streams by the state last published."""
        return Counter(state for state, *_ in self._said.values())

    def parcel(self, alert: Alert) -> Parcel:
        """An alert as it is kept, and sent when that is safe."""
        topic, payload = self._topics.alert(alert.stream), msgspec.json.encode(alert)
        return Parcel(alert.id, topic, payload, SEVERITY[alert.severity])

    def send(self, parcel: Parcel) -> None:
        """An alert that is kept."""
        self._link.publish(
            parcel.topic,
            parcel.payload,
            qos=1,
            severity=parcel.severity,
            parcel_id=parcel.id,
            retain=parcel.retain,
        )

    def note(self, alerts: Iterable[Alert]) -> None:
        """In the log, and counted."""
        for alert in alerts:
            self.alerts[alert.severity] += alert.edge == "on"
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

    def publish(self, outcome: Outcome) -> None:
        """All of it but the alerts."""
        for name in outcome.forgotten:  # first: it may be back
            self._unsay(name)
        for notice in outcome.notices:
            self.retain(self._topics.notice(notice.stream, notice.kind), notice.content)
        for name in outcome.streams:
            self.say_state(name)
        if self._output.scores:
            for name, scored in outcome.scores.items():
                if self._is_score_due(name):
                    self._link.publish(self._topics.score(name), msgspec.json.encode(scored))

    def say_state(self, name: str) -> None:
        """Publish a stream's state if it changed."""
        state = self._monitor.state_of(name)
        since = "" if state.state == "warming_up" else state.since  # it may be the last sample
        said = (state.state, since, state.faults)
        if self._said.get(name) != said:
            self._said[name] = said
            self.retain(self._topics.state(name), state)

    def retain(self, topic: str, content: msgspec.Struct) -> None:
        """Publish what the broker is to keep."""
        payload = msgspec.json.encode(content)
        self._retained.say(topic, payload, is_connected=self._link.is_connected)

    def say_all_again(self) -> None:
        """All that is retained: the broker may be another one. `go_on` does it."""
        self._retained.say_all_again()

    def go_on(self) -> None:
        """Say some of what is to be said again."""
        self._retained.go_on(waiting=self._link.waiting)

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        is_report = topic.rpartition("/")[2] not in NOTICES  # of classes and forecasts each counts
        self._link.publish(topic, payload, qos=1, retain=True, is_report=is_report)

    def _is_score_due(self, name: str) -> bool:
        now_s = self._monitor.streams[name].last_s
        due = now_s - self._score_said_s.get(name, float("-inf"))
        if 0 <= due < self._output.score_every_s:
            return False
        self._score_said_s[name] = now_s
        return True

    def _unsay(self, name: str) -> None:
        """A stream that was forgotten: nothing retained speaks of it."""
        self._said.pop(name, None)
        self._score_said_s.pop(name, None)
        for topic in (self._topics.state(name), *(self._topics.notice(name, k) for k in NOTICES)):
            self._retained.forget(topic)
