"""The agent's file: its defaults, its limits, and what it makes of an artefact's rule."""

import math
from pathlib import Path
from typing import Any

import pytest
from cards import CARD, make_card

from edgernn.alarm import Limits
from edgernn.card import AlarmConfig, AlarmRule, Card, Channel
from edgernn.errors import EdgernnError
from edgernn.settings import read_settings
from edgernn_device.config import (
    AgentConfig,
    ChannelConfig,
    InputConfig,
    SensorsConfig,
)
from edgernn_device.sensors import NEVER, ChannelRule, SensorRule


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
        ("input", "forget_after_s = 0.5", "expected 1–inf, got 0.5"),
        ("input", 'resample = "max"', "expected one of off, last, mean, got 'max'"),
        ("input", 'not_a_number = "guess"', "expected one of missing, refuse, got 'guess'"),
        ("input", 'before_2000 = ""', "expected one of keep, refuse, got ''"),
        ("sensors", "stuck_factor = -1", "expected 0–inf, got -1"),
        ("sensors", "stuck_after = 1", "expected 2–1000000000, got 1"),
        ("sensors", "range_margin = nan", "expected 0–inf, got nan"),
        ("sensors", "range_after = 0", "expected 1–1000000, got 0"),
        ("sensors", "silent_after = -1", "expected 0–1000000000, got -1"),
        ("channels.flow", "low = inf", "expected a finite number, got inf"),
        ("channels.flow", "stuck_after = 1", "expected 0 or 2 or more, got 1"),
        ("channels.flow", "silent_after = -1", "expected 0 or more, got -1"),
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


@pytest.mark.parametrize(
    "address",
    [
        "a..b",
        ".a",
        ".",
        "a" * 64,
        f"mqtts://{'a' * 64}.de:1",
        "ab." * 90,
        "a\\u0000b",
        "ü" * 63,
        "unix:/" + "x" * 107,
        "unix:/" + "ü" * 60,
        "unix:/a\\u0000b",
    ],
)
def test_a_broker_that_can_never_be_looked_up_is_refused(tmp_path: Path, address: str) -> None:
    found = refusal(tmp_path, f'model = "a.onnx"\n[broker]\naddress = "{address}"\n')
    assert found.startswith("broker address: ")


@pytest.mark.parametrize(
    "address",
    ["a.b.", "a" * 63, "ab." * 84, "[::1]", "[fe80::1%eth0]:1", "größe.de", "unix:/" + "x" * 106],
)
def test_a_broker_that_could_be_looked_up_is_taken(tmp_path: Path, address: str) -> None:
    assert read(tmp_path, f'model = "a.onnx"\n[broker]\naddress = "{address}"\n')


@pytest.mark.parametrize("table", ["broker", "input", "sensors", "output", "alarm"])
def test_an_unknown_key_is_refused_with_its_path(tmp_path: Path, table: str) -> None:
    found = refusal(tmp_path, f'model = "a.onnx"\n[{table}]\ncolour = 1\n')
    assert found.startswith(f"{table}: unknown key `colour`; expected ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('model = "a\\u0000b"', "model: a path has no NUL in it"),
        ('trusted_keys = ["k", "a\\u0000"]', "trusted_keys[1]: a path has no NUL in it"),
        ('[store]\npath = "a\\u0000b"', "store.path: a path has no NUL in it"),
        ('[broker]\nca_file = "a\\u0000b"', "broker.ca_file: a path has no NUL in it"),
        (f"x = {'[' * 3000}{']' * 3000}", "tables or lists are nested too deeply"),
        (f"max_model_mb = {'9' * 5001}", "a number has too many digits"),
        (f"max_model_mb = {'9' * 4000}", "max_model_mb: Number out of range"),
    ],
    ids=["model", "key", "store", "certificate", "nested", "digits", "large"],
)
def test_what_no_reader_or_file_system_takes_is_refused_in_one_sentence(
    tmp_path: Path, line: str, expected: str
) -> None:
    model = "" if line.startswith("model") else 'model = "a.onnx"\n'
    assert refusal(tmp_path, f"{model}{line}\n").startswith(expected)


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


FLOW = Channel("flow", "l/min", 40.0, 120.0, 1)
HEAT = Channel("heat", "", 20.0, 20.0, 900)
OLD = Channel("old", "", 0.0, 1.0)
SENSED = make_card(channels=(FLOW, HEAT, OLD))


def rule_of(card: Card = SENSED, **parts: Any) -> SensorRule:
    return AgentConfig(model="a", **parts).sensor_rule(card)


def test_a_sensor_is_stuck_after_ten_times_what_training_saw_and_at_least_a_minute() -> None:
    rule = rule_of()
    assert [one.stuck_after for one in rule.channels] == [60, 9000, 0]
    assert rule.stuck_after == (59, 8999, NEVER)


def test_a_channel_of_which_an_older_artefact_says_nothing_is_stuck_only_if_this_file_says_so() -> (
    None
):
    said = rule_of(channels={"old": ChannelConfig(stuck_after=5)})
    assert said.channels[2].stuck_after == 5


def test_a_value_is_far_off_ten_ranges_of_training_outside_it() -> None:
    rule = rule_of()
    assert (rule.channels[0].usual_low, rule.channels[0].usual_high) == (-760.0, 920.0)
    assert rule.channels[1] == ChannelRule(stuck_after=9000, silent_after=60)  # it never changed


def test_sensors_rules_are_off_at_zero() -> None:
    off = SensorsConfig(stuck_factor=0.0, range_margin=0.0, silent_after=0)
    assert set(rule_of(sensors=off).channels) == {ChannelRule()}


def test_what_is_known_of_a_channel_stands_before_what_was_learnt() -> None:
    known = ChannelConfig(low=0.0, high=250.0, stuck_after=0, silent_after=7)
    (flow, *_) = rule_of(channels={"flow": known}).channels
    assert (flow.low, flow.high, flow.stuck_after, flow.silent_after) == (0.0, 250.0, 0, 7)


def test_a_range_that_is_none_is_refused(tmp_path: Path) -> None:
    found = refusal(tmp_path, 'model = "a"\n[channels.flow]\nlow = 5\nhigh = 5\n')
    assert found == "channels.flow.high: expected more than low, 5, got 5"


def test_a_channel_that_the_artefact_does_not_have_is_refused() -> None:
    with pytest.raises(EdgernnError, match=r"^channels\.folw: expected one of flow, heat, old$"):
        rule_of(channels={"folw": ChannelConfig()})


def test_a_stream_is_not_forgotten_before_it_is_silent() -> None:
    config = AgentConfig(model="a", input=InputConfig(forget_after_s=20.0))
    with pytest.raises(EdgernnError, match=r"input\.forget_after_s: expected at least 30"):
        config.silence(CARD)


def test_a_value_held_for_too_long_is_refused() -> None:
    config = AgentConfig(model="a", input=InputConfig(hold_s=1e6))
    with pytest.raises(EdgernnError, match=r"input\.hold_s: expected at most 10000 s"):
        config.stream_rule(CARD)


@pytest.mark.parametrize(
    "text", ['resample = "mean"', 'subscribe = "home/{stream}/{channel}"'], ids=["rows", "joined"]
)
def test_where_samples_are_made_a_period_apart_no_stream_is_stale_sooner(
    tmp_path: Path, text: str
) -> None:
    config = read(tmp_path, f'model = "a"\n[input]\nstale_after_s = 0.5\n{text}\n')
    with pytest.raises(EdgernnError, match="stale_after_s: expected at least the period, 1 s"):
        config.silence(make_card(period_s=1.0))
    read(tmp_path, 'model = "a"\n[input]\nstale_after_s = 0.5\n').silence(make_card(period_s=1.0))
