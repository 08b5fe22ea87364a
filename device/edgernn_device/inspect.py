"""An artefact's card as a page for a person."""

from edgernn.alarm import Limits
from edgernn.card import Card
from edgernn_device.engine import Engine


def describe(engine: Engine, *, is_checked: bool = False) -> str:
    """Several lines: what it watches, how it decides, where it is from.

    `is_checked` if the engine was loaded with trusted keys, and so with a valid signature.
    """
    card, origin = engine.card, engine.card.provenance
    names = max(len(channel.name) for channel in card.channels)
    states = ", ".join(f"{s.name} {'×'.join(map(str, s.shape))}" for s in card.states)
    state_bytes = sum(4 * _product(state.shape) for state in card.states)
    late = f"{card.delay} samples, {card.delay * card.period_s:g} s,"
    return "\n".join(
        [
            f"{card.name}: {card.network}, a sample every {card.period_s:g} s",
            f"  file       {engine.size_bytes:,} bytes, weights {card.quantization}, "
            f"sha256 {engine.hash}",
            f"  signature  {_signature(engine.signed_by, is_checked=is_checked)}",
            "  channels",
            *(
                f"    {c.name:<{names}}  {c.low:>10.4g} to {c.high:<10.4g} {c.unit}"
                for c in card.channels
            ),
            f"  memory     {state_bytes:,} bytes a stream: {states}",
            f"  warm-up    {card.warm_up} samples",
            *([f"  delay      what is said comes {late} after its sample"] if card.delay else []),
            *_task(card),
            f"  made       {origin.created} by edgernn {origin.edgernn}, torch {origin.torch}, "
            f"seed {origin.seed}",
            f"  data       sha256 {origin.data_hash}",
            f"  config     sha256 {origin.config_hash}",
        ]
    )


def _signature(key_id: str, *, is_checked: bool) -> str:
    if not key_id:
        return "none"
    return f"of key {key_id}, {'valid' if is_checked else 'not checked; see --trusted-key'}"


def _task(card: Card) -> tuple[str, ...]:
    """What it decides, and how exactly as trained."""
    match card.task:
        case "classify":
            return (
                f"  task       classify: {', '.join(card.classes)}",
                f"  proven     every probability within {card.tolerance:g} of the trained one",
            )
        case "forecast":
            ahead_s = card.horizon * card.period_s
            return (
                f"  task       forecast: {card.horizon} samples ahead, {ahead_s:g} s",
                f"  proven     every forecast within {card.tolerance:g} standard deviations of the "
                "trained one",
            )
    rule, limits = card.alarm, Limits.from_rule(card.alarm, card)
    return (
        "  task       anomaly",
        f"  alarm      at score {limits.enter:.2f} for {rule.false_alarms} false alarms; off "
        f"below {limits.leave:.2f} for {rule.recover_s:g} s, then quiet for "
        f"{rule.cooldown_s:g} s; minimum duration {rule.min_duration_s:g} s",
        f"  proven     every score within {card.tolerance:g} of the trained detector",
    )


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
