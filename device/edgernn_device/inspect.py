"""An artefact's card as a page for a person."""

from edgernn.alarm import Limits
from edgernn_device.engine import Engine


def describe(engine: Engine) -> str:
    """Several lines: what it watches, how it decides, where it is from."""
    card, rule, origin = engine.card, engine.card.alarm, engine.card.provenance
    limits = Limits.from_rule(rule, card)
    names = max(len(channel.name) for channel in card.channels)
    states = ", ".join(f"{s.name} {'×'.join(map(str, s.shape))}" for s in card.states)
    state_bytes = sum(4 * _product(state.shape) for state in card.states)
    late = f"{card.delay} samples, {card.delay * card.period_s:g} s,"
    return "\n".join(
        [
            f"{card.name}: {card.network}, a sample every {card.period_s:g} s",
            f"  file       {engine.size_bytes:,} bytes, weights {card.quantization}, "
            f"sha256 {engine.hash}",
            "  channels",
            *(
                f"    {c.name:<{names}}  {c.low:>10.4g} to {c.high:<10.4g} {c.unit}"
                for c in card.channels
            ),
            f"  memory     {state_bytes:,} bytes a stream: {states}",
            f"  warm-up    {card.warm_up} samples",
            *([f"  delay      a score comes {late} after its sample"] if card.delay else []),
            f"  alarm      at score {limits.enter:.2f} for {rule.false_alarms} false alarms; off "
            f"below {limits.leave:.2f} for {rule.recover_s:g} s, then quiet for "
            f"{rule.cooldown_s:g} s; minimum duration {rule.min_duration_s:g} s",
            f"  proven     every score within {card.tolerance:g} of the trained detector",
            f"  made       {origin.created} by edgernn {origin.edgernn}, torch {origin.torch}, "
            f"seed {origin.seed}",
            f"  data       sha256 {origin.data_hash}",
            f"  config     sha256 {origin.config_hash}",
        ]
    )


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
