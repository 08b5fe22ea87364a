"""`device/agent.example.toml` explains every key, and says its true default."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from edgernn.settings import read_settings
from edgernn_device.config import AgentConfig

EXAMPLE = Path(__file__).parents[2] / "device" / "agent.example.toml"
TEXT = re.sub(r"^# (\w+ = .+)$", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
"""The example with what is commented out, too."""


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        pairs |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return pairs


def test_the_example_has_every_key() -> None:
    said = flat(tomllib.loads(TEXT))
    known = flat(msgspec.to_builtins(AgentConfig(model="")))
    assert set(said) == set(known)


def test_the_example_says_the_true_defaults() -> None:
    said = msgspec.to_builtins(read_settings(EXAMPLE, AgentConfig))
    assert said == msgspec.to_builtins(AgentConfig(model="pump.onnx"))
