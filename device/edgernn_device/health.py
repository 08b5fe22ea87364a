"""How the agent is: what it counts, and the report of it. No clock, no broker."""

import bisect
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of latencies that are told apart."""

STATES = ("off", "pending", "on", "recovering", "running", "warming_up", "stale")
"""What a stream's state topic may say."""

Unit = Literal["messages", "samples", "values", "publishes", "events"]
"""What a count is of; an event is something that happened to a stream."""


class Irregular(NamedTuple):
    """Something that is counted because it should not happen."""

    unit: Unit
    meaning: str


IRREGULAR = {
    "not_json": Irregular("messages", "not JSON; refused"),
    "not_samples": Irregular("messages", "JSON, but neither an object nor a list of them; refused"),
    "bad_time": Irregular("messages", "a time that cannot be read; refused"),
    "bad_seq": Irregular("messages", "a running number that is none; refused"),
    "too_large": Irregular("messages", "more bytes than are read; refused"),
    "topic_too_long": Irregular("messages", "a topic of more bytes than are read; refused"),
    "bad_stream_name": Irregular("messages", "a stream name that no topic may have; refused"),
    "wrong_topic": Irregular("messages", "a topic that does not fit the pattern; refused"),
    "redelivered": Irregular("messages", "come again after they had their effect; passed over"),
    "poison": Irregular("messages", "failed twice; set aside and kept"),
    "inbox_full": Irregular("messages", "came while as many waited as may; dropped"),
    "inbox_replaced": Irregular("messages", "gave way to a newer one of their topic; dropped"),
    "not_a_number": Irregular("values", "text or such in a channel; taken as missing"),
    "ignored": Irregular("values", "text or such under a key that is no channel; left alone"),
    "unknown_channel": Irregular("values", "on a topic of no channel of the artefact; left alone"),
    "repeated_value": Irregular("values", "of the time of their channel's last; left out"),
    "late_value": Irregular("values", "older than their channel's last, or too old; left out"),
    "out_of_range": Irregular("values", "outside the range that the settings give; missing"),
    "far_off": Irregular("values", "many ranges of training outside it; scored"),
    "no_channel": Irregular("samples", "no key that is a channel of the artefact; refused"),
    "too_many_streams": Irregular("samples", "of a stream beyond the limit; refused"),
    "before_2000": Irregular("samples", "of a clock that was never set"),
    "late": Irregular("samples", "older than the stream's last; refused"),
    "repeated": Irregular("samples", "the stream's last time again; refused"),
    "retained": Irregular("samples", "of a retained message, and no news; refused"),
    "too_fast": Irregular("samples", "less than half a period after the last; scored"),
    "bridged": Irregular("samples", "missing, and filled in as such"),
    "lost": Irregular("samples", "never came, by the running number"),
    "gap": Irregular("events", "a gap too long to bridge; the stream starts afresh"),
    "off_period": Irregular("events", "32 samples that come in another period; scored"),
    "clock_stepped_back": Irregular("events", "a sender's clock was set back"),
    "clock_stepped_ahead": Irregular("events", "a sender's clock was set ahead"),
    "forgotten": Irregular("events", "a stream silent for too long is forgotten"),
    "made_room": Irregular("events", "a stream silent for long is forgotten for a new one"),
    "lost_memory": Irregular("events", "a state that is not finite; the stream starts afresh"),
    "publish_offline": Irregular("publishes", "of QoS 0, without a connection; lost"),
    "outbox_full": Irregular("publishes", "given up for newer or graver ones; lost"),
    "publish_refused": Irregular("publishes", "that the broker did not take; lost"),
}
"""Every reason on the health topic, in the log and in the metrics."""

TOLD_ELSEWHERE = frozenset(
    {"redelivered", "retained", "ignored", "bridged", "repeated", "forgotten"}
    | {"inbox_full", "inbox_replaced", "too_large", "topic_too_long"}
)
"""Reasons that are no news, as MQTT or the settings lead to them, and those that the inbox says."""


class Histogram:
    """How often a duration fell between two bounds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        """Of each bucket alone; the last is for all that is longer."""
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS_S, duration_s)] += 1
        self.sum_s += duration_s


class Counters:
    """What the worker has counted since the start; other threads look at none of it."""

    def __init__(self) -> None:
        self.messages = 0
        self.refused: Counter[str] = Counter()
        """Messages, by reason."""
        self.latency = Histogram()
        """From a batch's first message received to its effect published."""
        self.last_latency_s = 0.0

    def add_batch(self, messages: int, *, latency_s: float) -> None:
        self.messages += messages
        self.last_latency_s = latency_s
        self.latency.add(latency_s)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON on the health topic. Counts are since the start."""

    time: str
    """By the device's clock: the message is retained, this tells its age."""
    uptime_s: float
    version: str
    """Of edgernn."""
    model: str
    model_hash: str
    rss_mb: float
    """Resident memory now, in 10⁶ bytes."""
    streams: int
    """That have a state in memory."""
    stale: int
    """Of these, silent for too long."""
    states: dict[str, int]
    """Streams by what their state topic says."""
    alerts: dict[str, int]
    """Alarms that went on, by severity."""
    messages: int
    """Received and done with, refused ones included."""
    samples: int
    """Scored, bridged ones included."""
    samples_per_s: float
    """Since the last report."""
    latency_ms: float
    """From a batch's first message received to its effect published, the last batch."""
    inbox: int
    """Messages that wait to be scored."""
    outbox: int
    """Publishes that wait to be confirmed."""
    store: str
    """Why the last transaction failed; "" when all is well."""
    store_failures: int
    """Transactions that failed."""
    reconnects: int
    """Connections after the first."""
    dropped: dict[str, int]
    """What should not happen, by reason: `IRREGULAR` says the unit of each."""


class Report(NamedTuple):
    """A moment's health with what only the metrics show; nothing in it changes any more."""

    health: Health
    is_connected: bool
    latency_counts: tuple[int, ...]
    latency_sum_s: float


def unit_of(reason: str) -> Unit:
    """What a count of this reason is of; an event, where it is none of ours."""
    return IRREGULAR[reason].unit if reason in IRREGULAR else "events"


def describe(reason: str) -> str:
    """For the log: what is counted, and why it is."""
    if reason not in IRREGULAR:
        return "an event"
    unit, meaning = IRREGULAR[reason]
    return meaning if unit == "events" else f"{unit} {meaning}"


def by_unit(dropped: Mapping[str, int]) -> dict[Unit, dict[str, int]]:
    """Unit → reason → count, with the zeros: a rate needs a first value."""
    found: dict[Unit, dict[str, int]] = {}
    for reason in dict.fromkeys([*IRREGULAR, *dropped]):
        found.setdefault(unit_of(reason), {})[reason] = dropped.get(reason, 0)
    return found


def resident_bytes() -> int:
    """From Linux; `ru_maxrss` would count what the parent process had when it forked."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
