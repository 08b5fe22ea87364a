"""A pump rig with six channels that obey one another, and faults to plant in it.

One thing drives the rig: the speed set-point, which wanders among load levels. Flow, pressure,
current, vibration and temperature follow by the affinity laws (Gülich, Centrifugal Pumps, ch. 3)
and first-order lags, so that each channel alone moves over a wide range while their relations
hold within the sensor noise. The pump never stops.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track
from edgernn.times import DAY_S

Array: TypeAlias = NDArray[np.float64]

PERIOD_S = 1.0
START_S = 1_767_589_200.0
"""2026-01-05 05:00 UTC. From here, 8 hours see nearly all of the day's ambient range."""
HOUR_S = 3_600.0
MAX_DRIFT = 100.0
"""Standard deviations an hour; beyond it nothing but drift is left."""
MAX_HOURS = 24 * 366
"""More than a year at 1 Hz is a slip of the keyboard."""

# The load: a drive that follows a set-point.
RATED_SPEED = 3000.0
"""1/min. Everything below is said at this speed and scaled from it."""
LOAD_LEVELS = (0.50, 0.97)
"""Shares of the rated speed, lowest and highest level."""
CYCLE_LEVELS = 8
"""A load cycle visits each eighth of that range once, in random order, at a random place inside:
so any two hours have seen the whole range, and none is stranger than another."""
LEVEL_S = (60.0, 300.0)
"""How long the set-point rests on a level, drawn evenly."""
DRIVE_LAG_S = 20.0
"""Of each of the drive's two lags in series: two, because then a change of set-point starts within
the noise (3.4 1/min in the first second, at most) and no sample is a surprise for that alone."""

# The hydraulics and the motor.
RATED_FLOW = 120.0
"""l/min, ∝ speed."""
FLOW_LAG_S = 5.0
"""The water in the pipe has to be moved."""
STATIC_PRESSURE = 0.5
"""bar, the tank's height."""
RATED_HEAD = 6.0
"""bar, ∝ speed²."""
BASE_CURRENT = 3.0
"""A, magnetising the motor."""
RATED_LOAD_CURRENT = 9.0
"""A, ∝ speed³."""
TURBULENCE = 0.008
"""Standard deviation of flow as a share of it; the pressure answers with the opposite sign."""
UNREST_LAG_S = 8.0
"""How long turbulence and shaking remember."""

# Warmth.
AMBIENT = 20.0
"""°C, mean of the day."""
DAY_AMPLITUDE = 1.0
"""K, coldest at 03:00 UTC; small beside the 14 K that the load makes."""
HEATING = 2.5
"""K above ambient per A, once settled."""
HEATING_LAG_S = 180.0
"""Of the motor's shell. Slow beside the load, so that it remembers minutes of it."""

# Vibration: uncorrelated sources add as the root of the sum of squares.
IMBALANCE = 3.5
"""mm/s, ∝ speed², before the resonance."""
RESONANCE = 0.72
"""Share of the rated speed, inside the load's range so that vibration is no measure of load."""
SHAKING = 0.025
"""Standard deviation of the imbalance's vibration as a share of it: no two seconds are alike."""
DAMPING = 0.2
"""Of the critical damping: an amplification of 2.5 at resonance."""
FLOW_NOISE = 0.8
"""mm/s, ∝ flow."""

WARM_UP_S = 1_800.0
"""The rig has run this long before the first sample, so that the motor is as warm as ever."""
DRIFT = 0.25
"""Amplitude of each sensor's slow drift, as a share of its noise."""
DRIFT_S = 5_400.0
"""Its period; the phase is drawn. Bounded, and seen whole in 8 hours."""

# The faults, at full strength.
WEAR_VIBRATION = 1.0
"""mm/s for each hour of bearing wear."""
WEAR_CURRENT = 0.2
"""A for each hour: friction is a torque that does not ask for the speed."""
WEAR_HEAT = 0.8
"""K for each hour, beside the heat of that current."""
CAVITATION_HEAD = 0.15
"""Share of head lost at rated speed; all of cavitation grows with speed², as NPSH needed does."""
CAVITATION_FLOW = 0.07
"""Share of flow lost."""
CAVITATION_CURRENT = 0.06
"""Share of load current lost: bubbles are light."""
CAVITATION_VIBRATION = 1.2
"""mm/s, ∝ speed²."""
CAVITATION_UNREST = 0.3
"""Standard deviation of the collapse, as a share of it, from bubble cloud to bubble cloud."""
LEAK_HEAD = 0.12
"""Share of head lost at any speed."""
LEAK_FLOW = 0.08
"""Share of flow gained: the meter sits before the leak."""
LEAK_CURRENT = 0.04
"""Share of load current gained."""
LEAK_RAMP_S = 60.0
"""From tight to full strength."""
SPIKE_SIZE = 0.4
"""Of the channel's span."""


class Sensor(NamedTuple):
    """One channel, as its sensor sees it."""

    unit: str
    span: float
    """What the load moves it by, in `unit`."""
    noise: float
    """Standard deviation, in `unit`: near 1 % of the span."""


SENSORS = {
    "vibration": Sensor("mm/s", span=3.0, noise=0.04),
    "pressure": Sensor("bar", span=4.1, noise=0.04),
    "flow": Sensor("l/min", span=56.0, noise=0.6),
    "current": Sensor("A", span=7.1, noise=0.07),
    "temperature": Sensor("°C", span=14.0, noise=0.15),
    "speed": Sensor("1/min", span=1410.0, noise=7.0),
}


class FaultKind(NamedTuple):
    """What can be planted: how long it lasts by default, and whether it strikes one channel."""

    duration_s: float
    takes_channel: bool = False


FAULTS = {
    "bearing": FaultKind(math.inf),
    "cavitation": FaultKind(600.0),
    "dropout": FaultKind(300.0, takes_channel=True),
    "leak": FaultKind(1200.0),
    "spike": FaultKind(3.0, takes_channel=True),
    "stuck": FaultKind(900.0, takes_channel=True),
}
SENSOR_FAULTS = ("spike", "stuck", "dropout")
"""In the order they act: a frozen sensor shows no spike, a cut cable shows nothing."""

GROWTH: dict[str, Callable[[Array], Array]] = {
    "bearing": lambda since_s: since_s / HOUR_S,
    "cavitation": np.ones_like,
    "leak": lambda since_s: np.minimum(since_s / LEAK_RAMP_S, 1.0),
}
"""Seconds since the start → severity, for the faults of the rig."""

FAULT_FORM = "kind[:channel]@start[+duration], such as cavitation@40m or stuck:flow@80m+5m"
_FAULT = re.compile(r"(?P<kind>[^:@]*)(:(?P<channel>[^@]+))?@(?P<start>[^+]*)(\+(?P<duration>.*))?")
_TIME_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smh])", re.ASCII)
_UNIT_S = {"s": 1.0, "m": 60.0, "h": HOUR_S}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong; refused with an EdgernnError where it makes no sense."""

    kind: str
    channel: str = ""
    """The one it strikes, for a fault of a sensor."""
    start_s: float
    """Since the beginning of the recording."""
    duration_s: float | None = None
    """None: as long as is usual for the kind."""

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise EdgernnError(f"unknown kind {self.kind!r}, expected {_either(FAULTS)}")
        takes_channel = FAULTS[self.kind].takes_channel
        if takes_channel and self.channel not in SENSORS:
            found = f"unknown channel {self.channel!r}" if self.channel else "no channel"
            raise EdgernnError(f"{found} for {self.kind}, expected {_either(SENSORS)}")
        if self.channel and not takes_channel:
            raise EdgernnError(
                f"{self.kind} takes no channel, got {self.channel!r}; "
                f"only {_either(SENSOR_FAULTS)} takes one"
            )
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise EdgernnError(f"expected a start from 0 s on, got {self.start_s:g} s")
        if self.duration_s is not None and not self.duration_s > 0:
            raise EdgernnError(f"expected a duration above 0 s, got {self.duration_s:g} s")


def parse_fault(text: str) -> Fault:
    """ "cavitation@40m", "stuck:temperature@80m", "leak@1h+10m" → Fault. Times end in s, m or h.

    Raises EdgernnError that names the text, what is wrong with it, and what is allowed.
    """
    try:
        match = _FAULT.fullmatch(text)
        if match is None:
            raise EdgernnError(f"expected {FAULT_FORM}")  # noqa: TRY301  the text is named below
        return Fault(
            kind=match["kind"],
            channel=match["channel"] or "",
            start_s=_parse_time_span(match["start"]),
            duration_s=None if match["duration"] is None else _parse_time_span(match["duration"]),
        )
    except EdgernnError as exc:
        raise EdgernnError(f"fault {text!r}: {exc}") from exc


def simulate_pump(
    *,
    hours: float,
    seed: int,
    faults: Sequence[Fault] = (),
    drift: float = 0.0,
    start_s: float = START_S,
    stream: str = "pump",
) -> Recording:
    """A labelled recording of one pump at 1 Hz; a label is the kinds at work, joined by "+".

    `drift`: how far every sensor's zero moves in an hour, up or down, in standard deviations of its
    noise: sensors age, and that is no fault.
    Same arguments, same bytes. Faults change nothing before they start, and a shorter recording is
    the beginning of a longer one. Raises EdgernnError for a length or seed that cannot be, and for
    a fault that starts beyond the end.
    """
    if not (0 < hours <= MAX_HOURS and hours * HOUR_S >= PERIOD_S):
        raise EdgernnError(f"hours: expected one second to {MAX_HOURS} hours, got {hours}")
    if seed < 0:
        raise EdgernnError(f"seed: expected 0 or more, got {seed}")
    if not 0 <= drift <= MAX_DRIFT:
        raise EdgernnError(
            f"drift: expected 0–{MAX_DRIFT:g} standard deviations an hour, got {drift}"
        )
    length = round(hours * HOUR_S / PERIOD_S)
    windows = [(fault, _window(fault, length)) for fault in faults]
    load_rng, rig_rng, sensor_rng, fault_rng, age_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)
    )
    collapse = 1 + CAVITATION_UNREST * fault_rng.standard_normal(length)  # (T,)
    lead = round(WARM_UP_S / PERIOD_S)
    time_s = start_s + PERIOD_S * np.arange(-lead, length, dtype=np.float64)  # (lead + T,)
    true = _rig(
        _load(len(time_s), load_rng),
        time_s=time_s,
        unrest=_wander(rig_rng.standard_normal((len(time_s), 2)), UNREST_LAG_S),
        wear_hours=np.pad(_severity("bearing", windows, length), (lead, 0)),
        collapse=np.pad(_severity("cavitation", windows, length) * collapse, (lead, 0)),
        leak=np.pad(_severity("leak", windows, length), (lead, 0)),
    )[lead:]  # (T, C)
    read = _sense(true, sensor_rng) + drift * _ageing(length, age_rng)
    x = read.astype(np.float32)  # (T, C)
    _strike_sensors(x, windows)
    track = Track(stream=stream, time_s=time_s[lead:], x=x, label=_labels(windows, length))
    return Recording(
        channels=tuple(SENSORS),
        units=tuple(sensor.unit for sensor in SENSORS.values()),
        tracks=(track,),
        period_s=PERIOD_S,
        notes=(),
    )


def _load(length: int, rng: np.random.Generator) -> Array:
    """Share of the rated speed, (T,): rests on levels, and the drive's way between them."""
    low, high = LOAD_LEVELS
    shortest, longest = LEVEL_S
    cycles = math.ceil(length * PERIOD_S / (shortest * CYCLE_LEVELS))
    order, within, rest = rng.random((cycles, 3, CYCLE_LEVELS)).swapaxes(0, 1)
    levels = low + (high - low) * (order.argsort(axis=1) + within) / CYCLE_LEVELS
    rests = np.rint((shortest + (longest - shortest) * rest) / PERIOD_S).astype(int)
    set_point = np.repeat(levels.ravel(), rests.ravel())[:length]  # (T,)
    return _lag(_lag(set_point, DRIVE_LAG_S), DRIVE_LAG_S)


def _rig(
    n: Array, *, time_s: Array, unrest: Array, wear_hours: Array, collapse: Array, leak: Array
) -> Array:
    """The physics, without sensors.

    n           (T,)    share of the rated speed
    time_s      (T,)    since 1970
    unrest      (T, 2)  of flow and of shaking, variance 1
    wear_hours  (T,)    since the bearing began to wear
    collapse    (T,)    cavitation, 1 = full strength
    leak        (T,)    1 = full strength
    result      (T, C)  true values in the order of SENSORS
    """
    turbulence, shaking = TURBULENCE * unrest[:, 0], SHAKING * unrest[:, 1]
    collapse = collapse * n**2
    losses = CAVITATION_FLOW * collapse - LEAK_FLOW * leak
    flow = _lag(n, FLOW_LAG_S) * (1 + turbulence) * (1 - losses)
    losses = CAVITATION_HEAD * collapse + LEAK_HEAD * leak
    head = n**2 * (1 - turbulence) * (1 - losses)
    losses = CAVITATION_CURRENT * collapse - LEAK_CURRENT * leak
    power = n**3 * (1 + turbulence) * (1 - losses)
    current = BASE_CURRENT + RATED_LOAD_CURRENT * power + WEAR_CURRENT * wear_hours
    ambient = AMBIENT - DAY_AMPLITUDE * np.cos(2 * np.pi * (time_s / DAY_S - 3 / 24))
    r = n / RESONANCE
    imbalance = IMBALANCE * n**2 / np.hypot(1 - r**2, 2 * DAMPING * r)
    sources = (
        imbalance * (1 + shaking),
        FLOW_NOISE * flow,
        WEAR_VIBRATION * wear_hours,
        CAVITATION_VIBRATION * collapse,
    )
    true = {
        "vibration": np.sqrt(sum(source**2 for source in sources)),
        "pressure": STATIC_PRESSURE + RATED_HEAD * head,
        "flow": RATED_FLOW * flow,
        "current": current,
        "temperature": _lag(ambient + HEATING * current + WEAR_HEAT * wear_hours, HEATING_LAG_S),
        "speed": RATED_SPEED * n,
    }
    return np.column_stack([true[channel] for channel in SENSORS])


def _sense(true: Array, rng: np.random.Generator) -> Array:
    """True values → readings, (T, C) both: drift and noise of each sensor."""
    steps = np.arange(len(true))[:, None]  # (T, 1)
    noise = np.array([sensor.noise for sensor in SENSORS.values()])  # (C,)
    phase = rng.uniform(0, 2 * np.pi, len(SENSORS))  # (C,)
    drift = DRIFT * np.sin(2 * np.pi * steps * PERIOD_S / DRIFT_S + phase)  # (T, C)
    return true + noise * (drift + rng.standard_normal(true.shape))


def _ageing(length: int, rng: np.random.Generator) -> Array:
    """How far each sensor's zero has moved, (T, C), by one standard deviation of its noise an
    hour, in a direction of its own."""
    noise = np.array([sensor.noise for sensor in SENSORS.values()])  # (C,)
    direction: Array = rng.choice(np.array([-1.0, 1.0]), len(noise))
    hours: Array = PERIOD_S / HOUR_S * np.arange(length, dtype=np.float64)
    moved: Array = hours[:, None] * direction * noise
    return moved


def _severity(kind: str, windows: Sequence[tuple[Fault, slice]], length: int) -> Array:
    """How strong a fault of the rig is, (T,): 0 = not there, 1 = full (bearing: hours of wear)."""
    severity = np.zeros(length)
    for window in (window for fault, window in windows if fault.kind == kind):
        since_s = PERIOD_S * np.arange(window.stop - window.start)
        severity[window] = np.maximum(severity[window], GROWTH[kind](since_s))
    return severity


def _strike_sensors(x: NDArray[np.float32], windows: Sequence[tuple[Fault, slice]]) -> None:
    """Plant the faults of single sensors in `x`, (T, C), in place."""
    channels = tuple(SENSORS)
    for kind in SENSOR_FAULTS:
        struck = [(fault, window) for fault, window in windows if fault.kind == kind]
        for fault, window in sorted(struck, key=lambda pair: pair[1].start):
            values = x[:, channels.index(fault.channel)]  # (T,), a view
            if kind == "spike":
                values[window] += SPIKE_SIZE * SENSORS[fault.channel].span
            elif kind == "stuck":
                values[window] = values[max(window.start - 1, 0)]
            else:
                values[window] = np.nan


def _labels(windows: Sequence[tuple[Fault, slice]], length: int) -> NDArray[np.str_]:
    """The kinds at work at each sample in alphabetical order, joined by "+"; (T,)."""
    kinds = sorted({fault.kind for fault, _ in windows})
    label = np.full(length, "", dtype=f"<U{max(1, len('+'.join(kinds)))}")
    for kind in kinds:
        is_active = np.zeros(length, dtype=bool)
        for fault, window in windows:
            is_active[window] |= fault.kind == kind
        label[is_active] = [f"{old}+{kind}" if old else kind for old in label[is_active]]
    return label


def _window(fault: Fault, length: int) -> slice:
    """The samples that a fault covers: at least one, cut at the end of the recording."""
    first = round(fault.start_s / PERIOD_S)
    if first >= length:
        raise EdgernnError(
            f"fault {fault.kind!r}: starts at {fault.start_s:g} s, "
            f"expected less than the recording's {length * PERIOD_S:g} s"
        )
    usual_s = FAULTS[fault.kind].duration_s
    duration_s = usual_s if fault.duration_s is None else fault.duration_s
    last = min(fault.start_s + duration_s, length * PERIOD_S) / PERIOD_S
    return slice(first, max(first + 1, round(last)))


def _lag(x: Array, lag_s: float, *, start: float | None = None) -> Array:
    """First-order lag of x, (T,) → (T,), from `start`, or from rest at the first value."""
    share = -math.expm1(-PERIOD_S / lag_s)
    y = float(x[0]) if start is None else start
    lagged = []
    for value in x.tolist():
        y += share * (value - y)
        lagged.append(y)
    return np.array(lagged)


def _wander(noise: Array, lag_s: float) -> Array:
    """White noise of variance 1 → noise that remembers for `lag_s`, of variance 1; (T, K) both."""
    share = -math.expm1(-PERIOD_S / lag_s)
    columns = [_lag(column, lag_s, start=0.0) for column in noise.T]
    return np.column_stack(columns) * math.sqrt((2 - share) / share)


def _parse_time_span(text: str) -> float:
    """ "40m" → 2400.0 seconds."""
    match = _TIME_SPAN.fullmatch(text)
    if match is None:
        raise EdgernnError(f"expected a time such as 90s, 40m or 1.5h, got {text!r}")
    return float(match[1]) * _UNIT_S[match[2]]


def _either(names: Iterable[str]) -> str:
    """ "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}"
