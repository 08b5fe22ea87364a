"""`device/agent.example.toml` explains every key, and says its true default."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from edgernn.card import AlarmRule
from edgernn.settings import read_settings
from edgernn_device.config import AgentConfig

EXAMPLE = Path(__file__).parents[2] / "device" / "agent.example.toml"
FOLLOWS_ELSEWHERE = {"node", "max_gap_s", "stale_after_s"}
"""Keys whose default is the host's name or so many periods; the example shows one of 1 s."""


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        pairs |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return pairs


def test_the_example_has_every_key() -> None:
    said = flat(tomllib.loads(EXAMPLE.read_text()))
    known = flat(msgspec.to_builtins(AgentConfig(model="")))
    assert set(said) == set(known)


def test_the_example_says_the_true_defaults() -> None:
    said = msgspec.to_builtins(read_settings(EXAMPLE, AgentConfig))
    defaults = msgspec.to_builtins(AgentConfig(model="pump.onnx"))
    defaults["alarm"] = msgspec.to_builtins(AlarmRule())
    differ = {k for k, v in flat(said).items() if flat(defaults)[k] != v}
    assert {name.rpartition(".")[2] for name in differ} == FOLLOWS_ELSEWHERE
