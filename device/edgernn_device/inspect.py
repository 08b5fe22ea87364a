"""An artefact as a page for a person, as JSON for a program, and as a picture of its stages."""

import math
from html import escape
from textwrap import shorten
from typing import Any

import msgspec

from edgernn.alarm import Limits
from edgernn.card import Card, Provenance, State
from edgernn_device.anatomy import Anatomy
from edgernn_device.engine import Engine

EXAMPLE = 8
"""Channels for which the memory of an artefact that takes any is given."""


def describe(engine: Engine, anatomy: Anatomy, *, is_checked: bool = False) -> str:
    """Several lines: what it watches, how it decides, what it is made of, where it is from.

    `is_checked` if the engine was loaded with trusted keys, and so with a valid signature.
    """
    card = engine.card_of_file
    names = max((len(channel.name) for channel in card.channels), default=0)
    states = ", ".join(f"{state.name} {_shape(state)}" for state in card.states)
    state_bytes = sum(4 * math.prod(n or EXAMPLE for n in state.shape) for state in card.states)
    many = f" of {EXAMPLE} channels" if card.any_channels else ""
    every = "at any period" if card.any_channels else f"a sample every {card.period_s:g} s"
    longest = max((len(weight.name) for weight in anatomy.weights), default=0)
    parts = ", ".join(f"{part} {size:,}" for part, size in anatomy.parts.items() if size)
    operators = ", ".join(f"{count} {name}" for name, count in anatomy.operators.items())
    weights = "float32" if card.quantization == "none" else card.quantization
    late = f"{card.delay} samples, {card.delay * card.period_s:g} s,"
    return "\n".join(
        [
            f"{card.name}: {card.network}, {every}",
            f"  file       {engine.size_bytes:,} bytes, weights {weights}, sha256 {engine.hash}",
            f"  signature  {_signature(engine.signed_by, is_checked=is_checked)}",
            "  channels",
            *(
                f"    {c.name:<{names}}  {c.low:>10.4g} to {c.high:<10.4g} {c.unit}"
                for c in card.channels
            ),
            *([f"    any, 1 to {card.any_channels}"] if card.any_channels else []),
            f"  memory     {state_bytes:,} bytes a stream{many}: {states}",
            f"  warm-up    {card.warm_up} samples",
            *([f"  delay      what is said comes {late} after its sample"] if card.delay else []),
            *_task(card),
            f"  bytes      {parts}",
            "  weights",
            *(
                f"    {w.name:<{longest}}  {'×'.join(map(str, w.shape)):<12} {w.stored:<8} "
                f"{w.size_bytes:>8,} bytes"
                for w in anatomy.weights
            ),
            f"  operators  {sum(anatomy.operators.values())}: {operators}",
            *_origin(card.provenance),
        ]
    )


def as_json(engine: Engine, anatomy: Anatomy) -> bytes:
    """The same for programs; the card as it is in the file."""
    content: dict[str, Any] = {
        "bytes": engine.size_bytes,
        "sha256": engine.hash,
        "signed_by": engine.signed_by,
        **msgspec.to_builtins(anatomy),
        "card": engine.card_of_file,
    }
    return msgspec.json.format(msgspec.json.encode(content))


LONGEST_NOTE = 26
"""Characters that fit into a box; the network is written out above all boxes."""


def as_svg(card: Card) -> str:
    """The stages from samples to what is said of them, each with the states it keeps."""
    stages = _stages(card)
    width, gap, height = 170, 34, 64
    rows = max(len(states) for _, _, states in stages)
    total = len(stages) * (width + gap) - gap + 40
    parts = []
    for i, (title, note, states) in enumerate(stages):
        left = 20 + i * (width + gap)
        if i:
            parts.append(
                f'<path d="M{left - gap + 4} {40 + height / 2}h{gap - 12}m-7 -5l7 5l-7 5" '
                'fill="none" stroke="#4a5568"/>'
            )
        parts.append(
            f'<rect x="{left}" y="40" width="{width}" height="{height}" rx="8" fill="#ebf4fb" '
            f'stroke="#2b6cb0"/>{_text(left + width / 2, 66, title, "bold")}'
            f"{_text(left + width / 2, 86, shorten(note, LONGEST_NOTE, placeholder=' …'))}"
        )
        for k, state in enumerate(states):
            top = 40 + height + 14 + 30 * k
            parts.append(
                f'<rect x="{left + 8}" y="{top}" width="{width - 16}" height="24" rx="12" '
                f'fill="#fdebc8" stroke="#b7791f"/>{_text(left + width / 2, top + 16, state)}'
            )
    bottom = 40 + height + 30 * rows + 40
    legend = "blue: a stage of the graph; yellow: what it remembers of a stream"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {bottom}" width="{total}" '
        f'height="{bottom}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{total}" height="{bottom}" fill="white"/>\n'
        f"{_text(20, 24, f'{card.name}: {card.network}', 'bold', 'start')}\n"
        + "\n".join(parts)
        + f"\n{_text(20, bottom - 12, legend, anchor='start')}\n</svg>\n"
    )


Stage = tuple[str, str, list[str]]
"""Title, a note below it, its states with their sizes."""


def _stages(card: Card) -> list[Stage]:
    """In the order that a sample passes them. Every state of the card is in one."""
    left = {
        state.name: math.prod(state.shape) if all(state.shape) else _shape(state)
        for state in card.states
    }

    def taken(*prefixes: str) -> list[str]:
        names = [n for n in left if n.removeprefix("state.").startswith(prefixes)]
        return [f"{name.removeprefix('state.')}: {left.pop(name)}" for name in names]

    heads = list(dict.fromkeys(tail.view.partition(".")[0] for tail in card.tails))
    stages: list[Stage] = [
        ("samples", f"{len(card.channels) or 'any'} channels, sensor units", []),
        ("scale", "and what is missing", taken("target.", "sample.", "last")),
    ]
    judged = [(head, taken(f"{head}.window"), taken(f"{head}.")) for head in heads]
    inside = card.network.partition("→")[2].strip() or card.network
    network: Stage = ("network", inside, taken(""))
    stages.append(network)
    match card.task:
        case "classify":
            return [*stages, ("classes", f"{len(card.classes)} probabilities", [])]
        case "forecast":
            return [
                *stages,
                ("forecast", f"{card.horizon} sample{'s' * (card.horizon > 1)} ahead", []),
            ]
    said = [state for _, _, states in judged for state in states]
    windows = [state for _, states, _ in judged for state in states]
    return [
        *stages,
        (" + ".join(heads), "mean and spread", said),
        ("surprise", ", ".join(tail.view.partition(".")[2] for tail in card.tails), windows),
        ("score", "−log₁₀ p on healthy data", []),
    ]


def _shape(state: State) -> str:
    """Such as "11×C"."""
    return "×".join(str(size or "C") for size in state.shape)


def _text(x: float, y: float, text: str, weight: str = "normal", anchor: str = "middle") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def _origin(origin: Provenance) -> tuple[str, ...]:
    if not origin.data_hash:
        return (f"  made       by edgernn {origin.edgernn}, from no data",)
    return (
        f"  made       {origin.created} by edgernn {origin.edgernn}, torch {origin.torch}, "
        f"seed {origin.seed}",
        f"  data       sha256 {origin.data_hash}",
        f"  config     sha256 {origin.config_hash}",
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
                f"  proven     every probability within {card.tolerance:g} of its source",
            )
        case "forecast":
            ahead_s = card.horizon * card.period_s
            return (
                f"  task       forecast: {card.horizon} samples ahead, {ahead_s:g} s",
                f"  proven     every forecast within {card.tolerance:g} standard deviations of the "
                "trained one",
            )
    if card.any_channels:
        return (
            "  task       anomaly",
            f"  alarm      at a score that follows from the period, for {card.alarm.false_alarms} "
            "false alarms",
            f"  proven     every score within {card.tolerance:g} of its source",
        )
    rule, limits = card.alarm, Limits.from_rule(card.alarm, card)
    return (
        "  task       anomaly",
        f"  alarm      {limits} for {rule.false_alarms} false alarms; off "
        f"below {limits.leave:.2f} for {rule.recover_s:g} s, then {_quiet(limits)}; minimum "
        f"duration {rule.min_duration_s:g} s",
        f"  proven     every score within {card.tolerance:g} of its source",
    )


def _quiet(limits: Limits) -> str:
    cooldown_s, quiet_s = limits.cooldown_s, limits.quiet_s
    parts = [f"quiet for {cooldown_s:g} s"] if cooldown_s or not quiet_s else []
    if quiet_s:
        parts.append(f"for {quiet_s:g} s only what is half as high again")
    return ", ".join(parts)
