"""The examples of docs/inputs.md, run: what the page says comes out."""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from cards import make_card

from edgernn.card import Channel
from edgernn_device.config import AgentConfig, InputConfig

PAGE = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
EXAMPLES = re.findall(
    r"```toml\n(.*?)```\n```\n(.*?)```\n→ stream `(.*?)`: `(.*?)`", PAGE, flags=re.DOTALL
)
NOW_S = 1_767_591_600.0


def test_every_example_is_found() -> None:
    assert len(EXAMPLES) == PAGE.count("```toml") == 5


@pytest.mark.parametrize(("settings", "messages", "stream", "sample"), EXAMPLES)
def test_an_example_does_what_the_page_says(
    settings: str, messages: str, stream: str, sample: str
) -> None:
    expected = json.loads(sample)
    card = make_card(channels=tuple(Channel(name, "", 0.0, 1.0) for name in expected))
    config = AgentConfig(
        model="a", input=msgspec.convert(tomllib.loads(settings), type=InputConfig)
    )
    intake = config.intake(card, where="page")
    found = []
    for line in messages.splitlines():
        topic, payload = line.split(maxsplit=1)
        found += intake.take(topic, payload.encode(), received_s=NOW_S, now_s=0.0)
    found += intake.due(1.0)
    ((name, one),) = found
    assert name == stream
    assert {key: one.values[key] for key in expected} == expected
    assert one.time_s == NOW_S
