"""A card and its limits by hand, for tests that need no artefact."""

from typing import Any

import msgspec

from edgernn.alarm import Limits
from edgernn.card import CARD_VERSION, KNOTS, AlarmRule, Card, Channel, Provenance, State, Tail
from edgernn.steering import Steering

TAIL = Tail(
    view="sample",
    knots=tuple(float(k) for k in range(KNOTS)),
    scores=tuple(k / 4 for k in range(KNOTS)),
    shape=0.1,
    scale=1.0,
    extremal_index=0.5,
)
CARD = Card(
    version=CARD_VERSION,
    name="pump",
    task="anomaly",
    network="2 → gru 4",
    channels=(Channel("flow", "l/min", 40.0, 120.0), Channel("heat", "", 20.0, 45.0)),
    period_s=1.0,
    max_gap_s=60.0,
    warm_up=3,
    delay=0,
    classes=(),
    horizon=0,
    states=(State("state.layer.0.h", (4,), 0.0),),
    tails=(TAIL,),
    alarm=AlarmRule(),
    quantization="none",
    tolerance=0.001,
    provenance=Provenance("0.1", "2.9", "2026-01-05T10:00:00Z", 0, "ab", "cd"),
)


def make_card(**changes: Any) -> Card:
    card: Card = msgspec.structs.replace(CARD, **changes)
    return card


def make_tail(**changes: Any) -> Tail:
    tail: Tail = msgspec.structs.replace(TAIL, **changes)
    return tail


def make_limits(
    *,
    enter: float = 5.0,
    leave: float = 4.0,
    min_duration_s: float = 0.0,
    recover_s: float = 3.0,
    cooldown_s: float = 0.0,
    quiet_s: float = 0.0,
    steering: Steering | None = None,
) -> Limits:
    return Limits(enter, leave, min_duration_s, recover_s, cooldown_s, quiet_s, steering)
