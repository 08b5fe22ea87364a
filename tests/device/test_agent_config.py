"""The agent's file: its defaults, its limits, and what it makes of an artefact's rule."""

import math
from pathlib import Path

import pytest
from cards import CARD, make_card

from edgernn.alarm import Limits
from edgernn.card import AlarmRule
from edgernn.errors import EdgernnError
from edgernn.settings import read_settings
from edgernn_device.config import AgentConfig, AlarmConfig, InputConfig


def read(folder: Path, text: str) -> AgentConfig:
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path, AgentConfig)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(EdgernnError) as caught:
        read(folder, text)
    return str(caught.value).removeprefix(f"{folder / 'agent.toml'}: ")


def test_only_a_model_must_be_there(tmp_path: Path) -> None:
    assert read(tmp_path, 'model = "a.onnx"\n') == AgentConfig(model="a.onnx")
    assert refusal(tmp_path, "") == "Object missing required field `model`"


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ("broker", "keepalive_s = 1", "expected 2–65535, got 1"),
        ("broker", "keepalive_s = 65536", "expected 2–65535, got 65536"),
        ("broker", "start_timeout_s = -1", "expected 0–86400, got -1"),
        ("broker", "start_timeout_s = nan", "expected 0–86400, got nan"),
        ("input", "qos = 2", "expected 0–1, got 2"),
        ("input", "inbox = 0", "expected 1–10000000, got 0"),
        ("input", "max_streams = 0", "expected 1–10000000, got 0"),
        ("input", "max_gap_s = -0.5", "expected 0–inf, got -0.5"),
        ("input", "stale_after_s = 0", "expected 0.1–inf, got 0"),
        ("output", "score_every_s = -1", "expected 0–inf, got -1"),
        ("output", "health_every_s = 0", "expected 0.1–86400, got 0"),
        ("output", "health_every_s = inf", "expected 0.1–86400, got inf"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_path(
    tmp_path: Path, table: str, line: str, expected: str
) -> None:
    found = refusal(tmp_path, f'model = "a.onnx"\n[{table}]\n{line}\n')
    assert found == f"{table}.{line.split(maxsplit=1)[0]}: {expected}"


@pytest.mark.parametrize("table", ["broker", "input", "output", "alarm"])
def test_an_unknown_key_is_refused_with_its_path(tmp_path: Path, table: str) -> None:
    found = refusal(tmp_path, f'model = "a.onnx"\n[{table}]\ncolour = 1\n')
    assert found.startswith(f"{table}: unknown key `colour`; expected ")


def test_without_an_alarm_table_the_artefact_decides() -> None:
    rule = AlarmRule("5/day", 1.0, 2.0, 3.0)
    found = AgentConfig(model="a").limits(make_card(alarm=rule), where="alarm")
    assert found == Limits.from_rule(rule, CARD)


def test_one_key_of_the_alarm_table_changes_that_one() -> None:
    config = AgentConfig(model="a", alarm=AlarmConfig(recover_s=7.0))
    found = config.limits(make_card(alarm=AlarmRule("5/day", 1.0, 2.0, 3.0)), where="alarm")
    assert found == Limits.from_rule(AlarmRule("5/day", 1.0, 7.0, 3.0), CARD)


def test_a_budget_that_makes_no_sense_is_refused_with_its_path() -> None:
    config = AgentConfig(model="a", alarm=AlarmConfig(false_alarms="often"))
    with pytest.raises(EdgernnError, match=r"^agent\.toml: alarm\.false_alarms: expected a number"):
        config.limits(CARD, where="agent.toml: alarm")


def test_gaps_are_bridged_as_the_artefact_says_unless_this_file_says_otherwise() -> None:
    card = make_card(period_s=0.5, max_gap_s=7.0)
    assert AgentConfig(model="a").stream_rule(card).max_gap_s == 7.0
    config = AgentConfig(model="a", input=InputConfig(max_gap_s=0.0))
    assert config.stream_rule(card).max_gap_s == 0.0


@pytest.mark.parametrize(("period_s", "stale_after_s"), [(0.01, 10.0), (1.0, 30.0), (60.0, 1800.0)])
def test_a_stream_is_stale_after_30_periods_and_at_least_10_seconds(
    period_s: float, stale_after_s: float
) -> None:
    found = AgentConfig(model="a").stale_after_s(make_card(period_s=period_s))
    assert found == pytest.approx(stale_after_s)


def test_a_gap_too_long_to_bridge_in_memory_is_refused() -> None:
    config = AgentConfig(model="a", input=InputConfig(max_gap_s=math.inf))
    with pytest.raises(EdgernnError, match=r"input\.max_gap_s: expected at most 10000 s"):
        config.stream_rule(make_card())
