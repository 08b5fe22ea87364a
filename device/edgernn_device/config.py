"""The agent's file: every key with its default and its allowed values."""

import ipaddress
import math
import socket
from contextlib import suppress
from pathlib import Path

import msgspec

from edgernn.alarm import Limits
from edgernn.card import AlarmConfig, Binding, Card, Channel
from edgernn.errors import EdgernnError
from edgernn_device.address import Access, BrokerAddress, find_credentials
from edgernn_device.folders import state_folder
from edgernn_device.inbox import WHEN_FULL
from edgernn_device.intake import Intake
from edgernn_device.join import Join, JoinRule
from edgernn_device.mapping import WORDS, Mapping, Said
from edgernn_device.payload import RESERVED, SEQ_KEY
from edgernn_device.resample import RULES
from edgernn_device.sensors import ChannelRule, SensorRule
from edgernn_device.silence import Silence
from edgernn_device.stream import StreamRule
from edgernn_device.topics import CHANNEL, DEFAULT_PATTERN, DEFAULT_PREFIX, NodeTopics, TopicPattern
from edgernn_device.trust import Trust

DURABILITIES = ("checkpoint", "sample")
LONGEST_BRIDGE = 10_000
"""Missing samples that one gap may be filled with: a wrong clock must not fill the memory."""


def _check_path(key: str, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"{key}: a path has no NUL in it, got {text!r}")


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[broker]`. Secrets come from the environment (EDGERNN_MQTT_PASSWORD) or a file."""

    address: str = "mqtt://localhost:1883"
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    protocol: str = "3.1.1"
    keepalive_s: int = 15
    keep_session: bool = True
    """The broker keeps what comes while we are away, as far as it does."""
    start_timeout_s: float = 10.0
    """0 = keep trying for ever."""

    def __post_init__(self) -> None:
        BrokerAddress.parse(self.address)
        for name in ("password_file", "ca_file", "cert_file", "key_file"):
            _check_path(name, getattr(self, name))

    def access(self, base: Path) -> Access:
        """Files are relative to `base`. Raises EdgernnError for what cannot be used."""
        address = BrokerAddress.parse(self.address)
        return Access(
            address=address,
            credentials=find_credentials(
                self.user or address.user, password_file=_path(base, self.password_file)
            ),
            ca_file=_path(base, self.ca_file),
            cert_file=_path(base, self.cert_file),
            key_file=_path(base, self.key_file),
            protocol=self.protocol,
        )


class InputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[input]`."""

    channels: tuple[str, ...] = ()
    """Of an artefact that takes any: their names, in an order that stays. Others name their own."""
    period_s: float | None = None
    """Of such an artefact: seconds between samples."""
    subscribe: str = DEFAULT_PATTERN
    qos: int = 1
    inbox: int = 10_000
    """Messages that may wait for the detector."""
    inbox_mb: float = 32.0
    """Memory that they may take."""
    when_full: str = "stop-reading"
    """More wait, by number or size: leave them to the broker, or give up and count."""
    max_streams: int = 1000
    """A further stream takes the place of a stale one, the longest silent, or is refused and
    counted: nobody can fill the memory with names, nor drive others out with them."""
    max_gap_s: float | None = None
    """Up to this, missing samples are bridged; None = as the artefact says."""
    stale_after_s: float | None = None
    """Silent for so long, a stream is reported stale; None = 30 periods, at least 10 s."""
    forget_after_s: float = 86_400.0
    """Silent for so long, a stream is forgotten."""
    resample: str = "off"
    """How samples are brought onto the period: "off", "last" or "mean"."""
    hold_s: float | None = None
    """How long a last value stands where no newer one comes; None = 2 periods, and 5 where
    `subscribe` has {channel}."""
    not_a_number: str = "missing"
    """What text in a channel is: "missing", or "refuse" the sample."""
    before_2000: str = "keep"
    """Samples of a clock that was never set: "keep" or "refuse"."""
    wait_s: float | None = None
    """Where `subscribe` has {channel}: a sample waits so long for values that come late; None =
    half a period, at most 2 s."""
    samples: Said = ""
    """Where in a message the sample, or the list of samples, stands; "" = the message is it."""
    map: dict[str, Said] = {}
    """Channel → where its value stands in a sample, for nested fields and other names."""
    words: dict[str, float] = msgspec.field(default_factory=lambda: dict(WORDS))
    """What text in place of a number is worth."""


class SensorsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[sensors]`: when a sensor is said to be faulty. 0 = never."""

    stuck_factor: float = 10.0
    """A value stands this many times longer than it ever did while training ..."""
    stuck_after: int = 60
    """... and at least for so many samples, and as many periods."""
    range_margin: float = 10.0
    """A value is this many times the range of training outside it. Of 59,000 samples of SKAB and
    SMD, healthy and faulty, 10 said nothing; 4 took closing valves for bad sensors ..."""
    range_after: int = 3
    """... for so many samples; impossible values too are said only then."""
    range_recover: int = 30
    """Samples in range until that is over."""
    silent_after: int = 60
    """For so many periods the stream's samples came without this channel."""


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[channels.NAME]`: what is known of one sensor; None = as `[sensors]` says."""

    low: float | None = None
    """Below it a value cannot be, and is missing; None = any can."""
    high: float | None = None
    stuck_after: int | None = None
    """Samples and periods; 0 = it may stand still."""
    silent_after: int | None = None
    """Periods; 0 = it may be missing."""


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[store]`: what outlives the process."""

    path: str = ""
    """A file; "" = NODE.db in the folder for state ($STATE_DIRECTORY, else the user's own)."""
    durability: str = "checkpoint"
    """"checkpoint": streams are written every `checkpoint_s`, alerts at once. "sample": all of it
    before a message is acknowledged, so that a crash changes nothing."""
    checkpoint_s: float = 60.0
    outbox_alerts: int = 10_000
    """Publishes that wait for the broker; beyond, the oldest of the least severe go."""
    outbox_mb: float = 20.0

    def file(self, base: Path, *, node: str) -> Path:
        """`path` is relative to `base`."""
        return _path(base, self.path) or state_folder() / f"{node}.db"


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[output]`."""

    prefix: str = DEFAULT_PREFIX
    scores: bool = False
    """Publish scores too."""
    score_every_s: float = 10.0
    """At most one score per stream and this much sample time."""
    health_every_s: float = 30.0


class ClassifyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[classify]`: when another class is believed, for an artefact of that task."""

    confirm: int = 10
    """Samples in a row that it must be the likeliest."""
    min_probability: float = 0.6
    """That it must have in each of them."""


class ForecastConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[forecast]`, for an artefact of that task."""

    every_s: float = 60.0
    """At most one forecast per stream and this much sample time."""


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[metrics]`: health for Prometheus, over HTTP without a password."""

    listen: str = ""
    """Address and port, such as 127.0.0.1:9108; "" = off."""
    allow_remote: bool = False
    """Listen on an address that other machines reach."""

    def __post_init__(self) -> None:
        if self.listen and not self._address.is_loopback and not self.allow_remote:
            raise ValueError(
                f"listen: {self.listen} lets anybody on the network read; expected an address of "
                "this machine alone, such as 127.0.0.1:9108, or allow_remote = true"
            )

    @property
    def endpoint(self) -> tuple[str, int]:
        """Of `listen`, which is not empty."""
        return str(self._address), int(self.listen.rpartition(":")[2])

    @property
    def _address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        host, _, port = self.listen.rpartition(":")
        if port.isdecimal() and 1 <= int(port) <= 65_535:
            with suppress(ValueError):
                return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        raise ValueError(
            "listen: expected an IP address and a port 1–65535, such as 127.0.0.1:9108 or "
            f"[::1]:9108, got {self.listen!r}"
        )


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole agent file. Only `model` must be there."""

    model: str
    """The artefact, relative to this file; "general" = the one that comes with edgernn."""
    trusted_keys: tuple[str, ...] = ()
    """Who may have signed the artefact: `ed25519:…`, or files of such; none = no matter who."""
    max_model_mb: float = 64.0
    """A larger artefact is refused: loading takes several times its size in memory."""
    node: str = ""
    """Name of this device in topics; "" = its host name."""
    broker: BrokerConfig = BrokerConfig()
    input: InputConfig = InputConfig()
    sensors: SensorsConfig = SensorsConfig()
    channels: dict[str, ChannelConfig] = {}
    store: StoreConfig = StoreConfig()
    output: OutputConfig = OutputConfig()
    alarm: AlarmConfig = AlarmConfig()
    classify: ClassifyConfig = ClassifyConfig()
    forecast: ForecastConfig = ForecastConfig()
    metrics: MetricsConfig = MetricsConfig()

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float | None, float, float]] = {
            "max_model_mb": (self.max_model_mb, 0.001, 2000),
            "broker.keepalive_s": (self.broker.keepalive_s, 2, 65_535),
            "broker.start_timeout_s": (self.broker.start_timeout_s, 0, 86_400),
            "input.qos": (self.input.qos, 0, 1),
            "input.inbox": (self.input.inbox, 1, 10_000_000),
            "input.inbox_mb": (self.input.inbox_mb, 0.1, 100_000),
            "input.max_streams": (self.input.max_streams, 1, 10_000_000),
            "input.max_gap_s": (self.input.max_gap_s, 0, math.inf),
            "input.stale_after_s": (self.input.stale_after_s, 0.1, math.inf),
            "input.forget_after_s": (self.input.forget_after_s, 1, math.inf),
            "input.hold_s": (self.input.hold_s, 0, math.inf),
            "sensors.stuck_factor": (self.sensors.stuck_factor, 0, math.inf),
            "sensors.stuck_after": (self.sensors.stuck_after, 2, 1_000_000_000),
            "sensors.range_margin": (self.sensors.range_margin, 0, math.inf),
            "sensors.range_after": (self.sensors.range_after, 1, 1_000_000),
            "sensors.range_recover": (self.sensors.range_recover, 1, 1_000_000),
            "sensors.silent_after": (self.sensors.silent_after, 0, 1_000_000_000),
            "input.wait_s": (self.input.wait_s, 0, 3600),
            "store.checkpoint_s": (self.store.checkpoint_s, 1, 86_400),
            "store.outbox_alerts": (self.store.outbox_alerts, 1, 10_000_000),
            "store.outbox_mb": (self.store.outbox_mb, 0.001, 10_000),
            "output.score_every_s": (self.output.score_every_s, 0, math.inf),
            "classify.confirm": (self.classify.confirm, 1, 1_000_000),
            "classify.min_probability": (self.classify.min_probability, 0, 1),
            "forecast.every_s": (self.forecast.every_s, 0, math.inf),
            "output.health_every_s": (self.output.health_every_s, 0.1, 86_400),
        }
        for name, (value, low, high) in limits.items():
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}: expected {low:.10g}–{high:.10g}, got {value:.10g}")
        choices = {
            "input.resample": (self.input.resample, RULES),
            "input.not_a_number": (self.input.not_a_number, ("missing", "refuse")),
            "input.before_2000": (self.input.before_2000, ("keep", "refuse")),
            "input.when_full": (self.input.when_full, WHEN_FULL),
        }
        for name, (said, allowed) in choices.items():
            if said not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {said!r}")
        _check_path("model", self.model)
        _check_path("store.path", self.store.path)
        for i, key in enumerate(self.trusted_keys):
            _check_path(f"trusted_keys[{i}]", key)
        for name, channel in self.channels.items():
            _check_channel(f"channels.{name}", channel)

        if self.store.durability not in DURABILITIES:
            raise ValueError(
                f"store.durability: expected one of {', '.join(DURABILITIES)}, got "
                f"{self.store.durability!r}"
            )

    def trust(self, base: Path, *, where: str) -> Trust:
        """Files are relative to `base`. Raises EdgernnError for a key that is none."""
        return Trust.parse(
            self.trusted_keys,
            max_bytes=round(1e6 * self.max_model_mb),
            base=base,
            where=f"{where}: trusted_keys",
        )

    @property
    def topics(self) -> NodeTopics:
        return NodeTopics(self.node or socket.gethostname(), self.output.prefix)

    @property
    def pattern(self) -> TopicPattern:
        return TopicPattern.parse(self.input.subscribe)

    def binding(self, card: Card, *, where: str) -> Binding | None:
        """What an open artefact is told of the stream; None for one that names its own channels.
        Raises EdgernnError if too much or too little is said; `where` opens the sentence."""
        said = self.input
        if not card.any_channels:
            for key, is_said in (
                ("channels", bool(said.channels)),
                ("period_s", said.period_s is not None),
            ):
                if is_said:
                    raise EdgernnError(
                        f"{where}: input.{key}: only for an artefact that takes any channels; "
                        f"{card.name} names its own, {', '.join(card.channel_names)}, every "
                        f"{card.period_s:g} s"
                    )
            return None
        if not said.channels or said.period_s is None:
            key = "period_s (--period)" if said.channels else "channels (--channel)"
            raise EdgernnError(
                f"{where}: input.{key}: expected for {card.name}, which takes any channels, such "
                'as channels = ["flow", "heat"] and period_s = 1.0, or --channel flow --channel '
                "heat --period 1; got none"
            )
        for name in said.channels:
            _check_name(name, where=f"{where}: input.channels (--channel)")
        binding = Binding(said.channels, said.period_s)
        card.bound(binding, where=f"{where}: input")
        return binding

    def intake(self, card: Card, *, where: str) -> Intake:
        """How messages become samples of this artefact. Raises EdgernnError for what does not fit
        it; `where` opens the sentence."""
        said, pattern = self.input, self.pattern
        mapping = Mapping.parse(
            said.map, samples=said.samples, words=said.words, where=f"{where}: input"
        )
        mapping.check_names(card.channel_names, where=f"{where}: input")
        if not pattern.has_channel:
            if said.wait_s is not None:
                raise EdgernnError(f"{where}: input.wait_s: only with {CHANNEL} in subscribe")
            return Intake(pattern, mapping, None)
        if said.resample != "off":
            raise EdgernnError(
                f'{where}: input.resample: expected "off", as with {CHANNEL} in subscribe samples '
                f"are a period apart, got {said.resample!r}"
            )
        rule = JoinRule.for_period(
            card.period_s,
            hold_s=said.hold_s,
            wait_s=said.wait_s,
            max_gap_s=self.stream_rule(card).max_gap_s,
            where=f"{where}: input",
        )
        return Intake(
            pattern, mapping, Join(rule, card.channel_names, max_streams=said.max_streams)
        )

    def limits(self, card: Card, *, where: str) -> Limits:
        """The artefact's alarm rule with what this file says otherwise."""
        return Limits.from_rule(self.alarm.over(card.alarm), card, where=where)

    def stream_rule(self, card: Card) -> StreamRule:
        said = self.input.max_gap_s
        max_gap_s = card.max_gap_s if said is None else said
        if max_gap_s > LONGEST_BRIDGE * card.period_s:
            raise EdgernnError(
                f"input.max_gap_s: expected at most {LONGEST_BRIDGE * card.period_s:g} s, "
                f"{LONGEST_BRIDGE} samples, got {max_gap_s:g}"
            )
        hold_s = self.input.hold_s
        if hold_s is None or self.pattern.has_channel:
            hold_s = 2 * card.period_s
        if hold_s > LONGEST_BRIDGE * card.period_s:
            raise EdgernnError(
                f"input.hold_s: expected at most {LONGEST_BRIDGE * card.period_s:g} s, "
                f"{LONGEST_BRIDGE} samples, got {hold_s:g}"
            )
        return StreamRule(
            period_s=card.period_s,
            warm_up=card.warm_up,
            max_gap_s=max_gap_s,
            delay=card.delay,
            resample=self.input.resample,
            hold_s=hold_s,
            sensors=self.sensor_rule(card),
        )

    def sensor_rule(self, card: Card) -> SensorRule:
        """What the artefact has learnt of its channels, and what this file knows of them."""
        if unknown := [name for name in self.channels if name not in card.channel_names]:
            raise EdgernnError(
                f"channels.{unknown[0]}: expected one of {', '.join(card.channel_names)}"
            )
        return SensorRule.of(
            [
                _channel_rule(one, self.channels.get(one.name, ChannelConfig()), self.sensors)
                for one in card.channels
            ],
            period_s=card.period_s,
            range_after=self.sensors.range_after,
            range_recover=self.sensors.range_recover,
        )

    def silence(self, card: Card) -> Silence:
        stale_after_s = self.stale_after_s(card)
        are_made = self.input.resample != "off" or self.pattern.has_channel
        if are_made and stale_after_s < card.period_s:
            raise EdgernnError(
                f"input.stale_after_s: expected at least the period, {card.period_s:g} s, as "
                f"samples are made one apart, got {stale_after_s:g}"
            )
        if self.input.forget_after_s < stale_after_s:
            raise EdgernnError(
                f"input.forget_after_s: expected at least {stale_after_s:g}, after which a stream "
                f"is silent, got {self.input.forget_after_s:g}"
            )
        return Silence(stale_after_s=stale_after_s, forget_after_s=self.input.forget_after_s)

    def stale_after_s(self, card: Card) -> float:
        return self.input.stale_after_s or max(30 * card.period_s, 10.0)


def _check_name(name: str, *, where: str) -> None:
    """Raises EdgernnError for what can be no channel of an artefact that takes any."""
    if not name or name != name.strip():
        raise EdgernnError(f"{where}: expected the key of a value in a sample, got {name!r}")
    if name in RESERVED:
        raise EdgernnError(
            f"{where}: {name}: is a sample's {'number' if name == SEQ_KEY else 'time'}, and no "
            "channel"
        )
    if "," in name:
        raise EdgernnError(
            f"{where}: {name}: a comma in a name; give each channel by itself, as in "
            '["flow", "heat"] or --channel flow --channel heat'
        )


def _check_channel(name: str, channel: ChannelConfig) -> None:
    low, high = channel.low, channel.high
    for key, bound in (("low", low), ("high", high)):
        if bound is not None and not math.isfinite(bound):
            raise ValueError(f"{name}.{key}: expected a finite number, got {bound:g}")
    if low is not None and high is not None and not low < high:
        raise ValueError(f"{name}.high: expected more than low, {low:g}, got {high:g}")
    if channel.stuck_after is not None and channel.stuck_after != 0 and channel.stuck_after < 2:
        raise ValueError(f"{name}.stuck_after: expected 0 or 2 or more, got {channel.stuck_after}")
    if channel.silent_after is not None and channel.silent_after < 0:
        raise ValueError(f"{name}.silent_after: expected 0 or more, got {channel.silent_after}")


def _channel_rule(channel: Channel, said: ChannelConfig, sensors: SensorsConfig) -> ChannelRule:
    margin = sensors.range_margin * (channel.high - channel.low)
    is_known = margin > 0  # a channel that never changed, or a margin of 0, says nothing
    stuck_after = math.ceil(min(sensors.stuck_factor * channel.longest_still, 1e9))
    if stuck_after:
        stuck_after = max(stuck_after, sensors.stuck_after)
    return ChannelRule(
        low=-math.inf if said.low is None else said.low,
        high=math.inf if said.high is None else said.high,
        usual_low=channel.low - margin if is_known else -math.inf,
        usual_high=channel.high + margin if is_known else math.inf,
        stuck_after=stuck_after if said.stuck_after is None else said.stuck_after,
        silent_after=sensors.silent_after if said.silent_after is None else said.silent_after,
    )


def _path(base: Path, text: str) -> Path | None:
    return base / text if text else None
