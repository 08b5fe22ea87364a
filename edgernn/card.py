"""The card: what an artefact says of itself, as JSON in the ONNX metadata."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import msgspec

from edgernn.errors import EdgernnError
from edgernn.times import DAY_S

MOST_STATES = 4_000_000
"""Numbers that one stream may remember, 16 MB: more is no detector, and memory for many."""
MOST_CHANNELS = 64
"""That may be named for a graph of any channels: its ranking was tried with no more."""
SHORTEST_PERIOD_S = 0.001
"""Of a stream that an open artefact may be told of; the longest is a day."""
ANY = 0
"""In the shape of a state: as many as there are channels."""
CARD_KEY = "edgernn"
"""Name of the entry in the model's `metadata_props`."""

CARD_VERSION = 2
"""Raised when a field changes meaning. A device refuses any version it does not know."""

KNOTS = 8
"""Points of a calibration's body, the first at surprise 0, the last where the tail begins."""


OUTPUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "anomaly": ("score", "contribution", "expected"),
        "classify": ("probability",),
        "forecast": ("forecast", "spread"),
    }
)
"""Task → what its graph says of a sample, beside the next states."""


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One quantity that every sample has."""

    name: str
    unit: str
    low: float
    """Smallest value seen while training, in `unit`."""
    high: float
    """Largest value seen while training, in `unit`."""
    longest_still: int = 0
    """Most samples in a row with one and the same value while training; 1 = it always moved, 0 =
    not known."""


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One memory of the detector: graph input `name`, graph output `name`.next."""

    name: str
    shape: tuple[int, ...]
    """Shape of one stream's row, without the stream axis; `ANY` = as many as there are channels."""
    initial: float
    """Every element of a fresh row."""
    in_periods: bool = False
    """Whether `initial` counts periods, which are seconds once the artefact is told of one."""
    is_clock: bool = False
    """Whether it is the time of the next sample, in seconds since Monday 00:00 UTC: set before
    every call by who knows the time, and else going on by itself."""


class Tail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one view's surprise becomes −log10 p. Body: straight lines between knots; above the last
    knot: generalised Pareto, peaks over threshold (Pickands 1975; Coles 2001, ch. 4)."""

    view: str
    knots: tuple[float, ...]
    """Surprise at each knot, rising, the first 0; the last one is the tail's threshold."""
    scores: tuple[float, ...]
    """−log10 p at each knot, rising, the first 0."""
    shape: float
    """ξ > 0: how heavy the tail is."""
    scale: float
    """σ > 0, in units of surprise."""
    extremal_index: float
    """θ in (0, 1]: one over the mean length of a cluster of exceedances (Ferro and Segers 2003)."""


class AlarmRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an alarm goes on and off. The device may override every field."""

    false_alarms: str = "1/week"
    """Budget per stream, such as "1/week" or "2/day"; the threshold follows from it."""
    min_duration_s: float = 0.0
    """The score must stay above the threshold this long."""
    recover_s: float = 30.0
    """The score must stay below the leave threshold this long before the alarm goes off."""
    cooldown_s: float = 60.0
    """After an alarm went off, none goes on for this long."""
    quiet_s: float = 0.0
    """After an alarm went off, only one with a score half as high again as its highest goes on for
    this long; then that fades, by a factor of e in five times as long."""
    steered: bool = False
    """Whether the threshold follows the alarms of each stream, so that the budget is held."""
    leave: float = 0.0
    """The leave threshold; 0 = the score that is ten times likelier than the one that raised the
    alarm."""

    @classmethod
    def for_period(cls, period_s: float) -> "AlarmRule":
        """What a new detector gets: recovered after 30 periods, quiet for 100, and steered."""
        return cls(recover_s=30 * period_s, cooldown_s=0.0, quiet_s=100 * period_s, steered=True)

    def stretched(self, times: float) -> "AlarmRule":
        """With all durations so many times as long."""
        return msgspec.structs.replace(
            self,
            min_duration_s=times * self.min_duration_s,
            recover_s=times * self.recover_s,
            cooldown_s=times * self.cooldown_s,
            quiet_s=times * self.quiet_s,
        )


class AlarmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[alarm]`: what is not given stays as a new detector, or on the device the artefact, has
    it."""

    false_alarms: str | None = None
    min_duration_s: float | None = None
    recover_s: float | None = None
    cooldown_s: float | None = None
    quiet_s: float | None = None
    steered: bool | None = None
    leave: float | None = None

    def over(self, rule: AlarmRule) -> AlarmRule:
        """The rule with what is said here."""
        said = {k: v for k, v in msgspec.structs.asdict(self).items() if v is not None}
        changed: AlarmRule = msgspec.structs.replace(rule, **said)
        return changed


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the artefact is from."""

    edgernn: str
    torch: str
    created: str
    """UTC, ISO 8601."""
    seed: int
    data_hash: str
    """SHA-256 over the training samples."""
    config_hash: str
    """SHA-256 over the training configuration."""


class Binding(msgspec.Struct, frozen=True):
    """What an open artefact is told of the stream."""

    channels: tuple[str, ...]
    """Names, in the order of a sample."""
    period_s: float
    """Time between samples."""


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything a device must know beside the graph."""

    version: int
    name: str
    task: str
    """"anomaly", "classify" or "forecast"."""
    network: str
    """Such as "6 → gru 32"."""
    channels: tuple[Channel, ...]
    period_s: float
    """Time between samples."""
    max_gap_s: float
    """Up to this, missing samples are bridged; after a longer gap a stream starts afresh."""
    warm_up: int
    """Samples after a fresh start whose scores do not count."""
    delay: int
    """The score that comes with sample t is that of sample t − delay; 0 for most networks."""
    classes: tuple[str, ...]
    """What "classify" tells apart, in the order of its probabilities; else empty."""
    horizon: int
    """Samples that "forecast" looks ahead; else 0."""
    states: tuple[State, ...]
    tails: tuple[Tail, ...]
    """Of "anomaly", one a view; else empty."""
    alarm: AlarmRule
    """Of "anomaly"."""
    quantization: str
    """How weights are stored: "none" (float32), "float16", "int8", "int8-dynamic" or "int4"."""
    tolerance: float
    """Largest difference to the trained detector that the proof allowed: of a score, of a
    probability, or of a forecast in standard deviations of its channel."""
    provenance: Provenance
    any_channels: int = 0
    """Most channels that an open artefact may be told of: it names none, learns what is usual as it
    runs, and its times are in periods. 0 = it names its own."""

    def bound(self, binding: Binding, *, where: str) -> "Card":
        """An open artefact's card for these channels and this period. Raises EdgernnError if it
        does not take them."""
        names, period_s = binding.channels, binding.period_s
        if not 1 <= len(names) <= self.any_channels:
            raise EdgernnError(
                f"{where}: channels: expected 1–{self.any_channels} names, got {len(names)}"
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise EdgernnError(f"{where}: channels: expected each name once, got {twice[0]} twice")
        if not SHORTEST_PERIOD_S <= period_s <= DAY_S:
            raise EdgernnError(
                f"{where}: period_s (--period): expected {SHORTEST_PERIOD_S:g}–{DAY_S:g} seconds, "
                f"got {period_s:g}"
            )
        stretch = period_s / self.period_s
        states = [
            State(
                one.name,
                tuple(size or len(names) for size in one.shape),
                one.initial * (period_s if one.in_periods else 1.0),
                is_clock=one.is_clock,
            )
            for one in self.states
        ]
        return msgspec.structs.replace(
            self,
            channels=tuple(Channel(name, "", 0.0, 0.0) for name in names),
            period_s=period_s,
            max_gap_s=stretch * self.max_gap_s,
            states=tuple(states),
            alarm=self.alarm.stretched(stretch),
            any_channels=0,
        )

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """What the graph says of a sample: name → shape behind (T, N)."""
        channels = len(self.channels)
        shapes: dict[str, tuple[int, ...]] = {
            "score": (),
            "probability": (len(self.classes),),
            "forecast": (self.horizon, channels),
            "spread": (self.horizon, channels),
        }
        return {name: shapes.get(name, (channels,)) for name in OUTPUTS[self.task]}

    @property
    def channel_names(self) -> tuple[str, ...]:
        return tuple(channel.name for channel in self.channels)


class _Version(msgspec.Struct):
    version: int


def encode_card(card: Card) -> str:
    """The card as JSON text."""
    return msgspec.json.encode(card).decode()


def decode_card(text: str | bytes, *, where: str) -> Card:
    """Read and check a card; `where` names the file in the sentence of an EdgernnError."""
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version != CARD_VERSION:
            raise EdgernnError(
                f"{where}: card version {version}, this edgernn reads version {CARD_VERSION}; "
                f"{'upgrade edgernn on this device' if version > CARD_VERSION else 'export again'}"
            )
        card = msgspec.json.decode(text, type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise EdgernnError(f"{where}: damaged card: {exc}") from exc
    _check(card, where)
    return card


def _rises(values: Sequence[float]) -> bool:
    return all(a <= b for a, b in pairwise(values))


def _check(card: Card, where: str) -> None:
    """What JSON types alone cannot say."""
    names = card.channel_names
    is_open = card.any_channels > 0
    problems = [
        (not 0 <= card.any_channels <= MOST_CHANNELS, f"any_channels outside 0–{MOST_CHANNELS}"),
        (not names and not is_open, "no channels"),
        (bool(names) and is_open, "channels in a card that takes any"),
        (is_open and card.task != "anomaly", "any channels are for anomaly alone"),
        (len(set(names)) != len(names), "two channels of one name"),
        (not (math.isfinite(card.period_s) and card.period_s > 0), "period_s must be above 0"),
        (not card.max_gap_s >= 0, "max_gap_s must not be negative"),
        (not 0 <= card.delay <= card.warm_up, "delay must be from 0 to warm_up"),
        (any(c.longest_still < 0 for c in card.channels), "longest_still must not be negative"),
        (
            any(min(s.shape, default=ANY) < (ANY if is_open else 1) for s in card.states),
            "a state with an empty shape",
        ),
        (
            [s.shape for s in card.states if s.is_clock] not in ([], [(1,)]),
            "more than one clock, or one that is not a single number",
        ),
        (card.task not in OUTPUTS, f"task {card.task!r}, expected one of {', '.join(OUTPUTS)}"),
        (
            (card.task == "anomaly") != bool(card.tails),
            "calibration is for anomaly alone",
        ),
        (
            (card.task == "classify") != (len(card.classes) > 1),
            "two or more classes are for classify alone",
        ),
        (len(set(card.classes)) != len(card.classes), "two classes of one name"),
        (
            (card.task == "forecast") != (card.horizon > 0),
            "a horizon above 0 is for forecast alone",
        ),
        (
            any(len(t.knots) != len(t.scores) for t in card.tails),
            "knots and scores differ in length",
        ),
        (any(not t.knots or not _rises(t.knots) for t in card.tails), "knots that do not rise"),
        (
            sum(math.prod(n or MOST_CHANNELS for n in s.shape) for s in card.states) > MOST_STATES,
            f"states of more than {MOST_STATES:,} numbers a stream",
        ),
        (not card.tolerance >= 0, "tolerance must not be negative"),
        (
            any(t.shape <= 0 or t.scale <= 0 or not 0 < t.extremal_index <= 1 for t in card.tails),
            "a tail outside its range",
        ),
    ]
    for is_wrong, what in problems:
        if is_wrong:
            raise EdgernnError(f"{where}: damaged card: {what}")
