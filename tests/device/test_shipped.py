"""The artefact that comes with edgernn, as the device has it: told of its channels, then as any."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from agents import Listener, online, play
from agents import agent as agent_process
from click.testing import CliRunner
from mosquitto import Mosquitto

from edgernn.card import MOST_CHANNELS, AlarmConfig, Binding
from edgernn.errors import EdgernnError
from edgernn_device.cli import agent, inspect, verify
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.golden import probed
from edgernn_device.loading import first_words, load_engine, make_parts
from edgernn_device.shipped import GENERAL, GENERAL_FILE
from edgernn_device.trust import admit, read_artefact

SHIPPED = GENERAL_FILE.read_bytes()


def names(channels: int) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(channels))


def opened(channels: int, *, period_s: float = 1.0) -> Engine:
    return Engine(SHIPPED, binding=Binding(names(channels), period_s))


def settings_of(**said: object) -> AgentConfig:
    return msgspec.convert({"model": GENERAL, "input": said}, AgentConfig)


def test_a_stream_of_eight_channels_remembers_little() -> None:
    states = opened(8).card.states
    assert 4 * sum(int(np.prod(state.shape)) for state in states) <= 16_384


@pytest.mark.parametrize(
    ("channels", "period_s", "why"),
    [
        (names(65), 1.0, "channels: expected 1–64 names, got 65"),
        ((), 1.0, "channels: expected 1–64 names, got 0"),
        (("flow", "heat", "flow"), 1.0, "channels: expected each name once, got flow twice"),
        (("flow",), 0.0, r"period_s \(--period\): expected 0.001–86400 seconds, got 0"),
        (("flow",), 1e9, r"period_s \(--period\): expected 0.001–86400 seconds, got 1e\+09"),
        (("flow",), float("nan"), r"period_s \(--period\): expected 0.001–86400 seconds, got nan"),
    ],
)
def test_channels_it_cannot_take_are_refused(
    channels: Sequence[str], period_s: float, why: str
) -> None:
    with pytest.raises(EdgernnError, match=why):
        Engine(SHIPPED, binding=Binding(tuple(channels), period_s))


def test_it_asks_for_its_channels() -> None:
    with pytest.raises(EdgernnError, match="takes any channels, and was not told which"):
        Engine(SHIPPED)


def test_its_times_are_in_periods() -> None:
    card = opened(2, period_s=300.0).card
    assert (card.period_s, card.max_gap_s) == (300.0, 2000 * 300.0)
    assert (card.alarm.recover_s, card.alarm.cooldown_s) == (10 * 300.0, 0.0)
    assert card.channel_names == ("c0", "c1")


def test_the_memory_of_other_channels_does_not_fit() -> None:
    assert opened(2).memory_hash == opened(2).memory_hash
    kept = {opened(2).memory_hash, opened(3).memory_hash, opened(2, period_s=2.0).memory_hash}
    assert len(kept) == 3
    assert opened(2).hash == opened(3).hash


def test_the_agent_takes_channels_and_period_from_its_file() -> None:
    config = settings_of(channels=("flow", "heat"), period_s=60.0)
    engine = load_engine(config, base=Path(), where="agent.toml")
    assert engine.card.channel_names == ("flow", "heat")
    _, monitor = make_parts(config, engine, where="agent.toml")
    assert str(monitor.task).startswith("alarms at score 3.85")  # 1/week of a sample a minute


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "agent.toml: input.channels (--channel): expected for general, which takes any"),
        ({"channels": ("flow",)}, "agent.toml: input.period_s (--period): expected for general"),
        ({"channels": names(65), "period_s": 1.0}, "agent.toml: input: channels: expected 1–64"),
        ({"channels": ("",), "period_s": 1.0}, "expected the key of a value in a sample, got ''"),
        ({"channels": (" a",), "period_s": 1.0}, "key of a value in a sample, got ' a'"),
        ({"channels": ("time",), "period_s": 1.0}, "time: is a sample's time, and no channel"),
        ({"channels": ("ts",), "period_s": 1.0}, "ts: is a sample's time, and no channel"),
        ({"channels": ("seq",), "period_s": 1.0}, "seq: is a sample's number, and no channel"),
        ({"channels": ("a,b",), "period_s": 1.0}, "a,b: a comma in a name; give each channel by"),
    ],
)
def test_the_agent_says_what_is_missing(said: dict[str, object], why: str) -> None:
    with pytest.raises(EdgernnError, match=re.escape(why)):
        load_engine(settings_of(**said), base=Path(), where="agent.toml")


def test_an_artefact_with_channels_of_its_own_takes_no_others(artefact: Path) -> None:
    for said in ({"channels": ("flow",)}, {"period_s": 2.0}):
        config = msgspec.convert({"model": str(artefact), "input": said}, AgentConfig)
        with pytest.raises(EdgernnError, match=f"input.{next(iter(said))}: only for an artefact"):
            load_engine(config, base=Path(), where="agent.toml")
    with pytest.raises(EdgernnError, match="names its own channels"):
        Engine(artefact.read_bytes(), binding=Binding(("flow",), 1.0))


def test_an_artefact_with_channels_of_its_own_says_nothing_of_any(artefact: Path) -> None:
    card = admit(artefact.read_bytes(), where="pump.onnx")
    assert b"any_channels" not in msgspec.json.encode(card)


def test_an_agent_alerts_on_its_first_day(tmp_path: Path, mosquitto: Mosquitto) -> None:
    generator = np.random.default_rng(0)
    x = np.array([20.0, 1013.0]) + np.array([0.5, 2.0]) * generator.standard_normal((1500, 2))
    x[1300:1360, 1] -= 30
    rows = [f"{1_760_000_000 + t},{a:.3f},{b:.3f}" for t, (a, b) in enumerate(x)]
    recording = tmp_path / "room.csv"
    recording.write_text("\n".join(["time,heat,pressure", *rows]))
    told = '[input]\nchannels = ["heat", "pressure"]\nperiod_s = 1.0'
    with (
        Listener(mosquitto) as listener,
        agent_process(tmp_path, Path(GENERAL), mosquitto, more=told),
    ):
        online(listener)
        listener.wait_until_scored(play(mosquitto, recording, "room"))
        listener.wait_for(
            lambda: len(listener.alerts("room")) == 2, "an alert that goes on and off"
        )
    first = listener.alerts("room")[0]
    assert (first["edge"], first["channels"][0]["name"]) == ("on", "pressure")


def test_what_to_expect_of_it_is_said_at_the_start() -> None:
    config = settings_of(channels=("flow", "heat"), period_s=60.0)
    engine = load_engine(config, base=Path(), where="agent.toml")
    assert first_words(config, engine) == (
        "channels flow, heat, every 60 s",
        "each stream is learnt for 400 samples without any alarm, and in the next thousands only "
        "large faults reach the threshold for 1/week; --false-alarms 1/day, or "
        "alarm.false_alarms, hears more",
    )
    often = msgspec.structs.replace(config, alarm=AlarmConfig(false_alarms="2/day"))
    assert first_words(often, engine)[1].endswith("for 2/day")


def test_the_command_line_is_enough() -> None:
    model = ["--model", "general", "--channel", "flow", "--channel", "heat", "--period", "1"]
    broker = ["--broker", "mqtt://127.0.0.1:1", "--node", "t"]
    done = CliRunner().invoke(agent, [*model, *broker, "--check"])
    assert "general: general, 2 channels" in done.output, done.output
    assert "says the same here of 48 golden samples" in done.output


def test_the_command_line_without_any_model_is_refused() -> None:
    done = CliRunner().invoke(agent, [])
    assert done.exit_code == 2
    assert "--model" in done.output


def test_a_second_artefact_beside_the_first_is_refused() -> None:
    done = CliRunner().invoke(agent, ["pump.onnx", "--model", "general"])
    assert done.exit_code == 2
    assert "--model general is for an agent's .toml; got pump.onnx as well" in done.output


def test_it_is_inspected_and_verified_by_its_name() -> None:
    assert "any, 1 to 64" in CliRunner().invoke(inspect, [GENERAL]).output
    assert "same here of 48 golden samples" in CliRunner().invoke(verify, [GENERAL]).output


def test_a_copy_of_it_is_signed(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from edgernn_device.signing import keygen, sign

    CliRunner().invoke(keygen, [str(tmp_path / "plant")], catch_exceptions=False)
    key, copy = str(tmp_path / "plant.pem"), tmp_path / "copy.onnx"
    done = CliRunner().invoke(sign, [GENERAL, "--key", key])
    assert "general: comes with edgernn and stays as it is; say -o" in str(done.exception)
    CliRunner().invoke(sign, [GENERAL, "--key", key, "-o", str(copy)], catch_exceptions=False)
    assert copy.read_bytes().startswith(SHIPPED)
    assert GENERAL_FILE.read_bytes() == SHIPPED


def test_another_name_is_told_of_it(tmp_path: Path) -> None:
    with pytest.raises(EdgernnError, match="no such file; the one that comes with edgernn is call"):
        read_artefact(tmp_path / "generic")
    said = CliRunner().invoke(agent, ["generic"]).exception
    assert "or general, which comes with edgernn" in str(said)


def test_inspect_names_no_channels_that_are_not_its_own() -> None:
    said = CliRunner().invoke(inspect, [str(GENERAL_FILE)]).output
    assert "any, 1 to 64" in said
    assert "first" not in said
    card = json.loads(CliRunner().invoke(inspect, [str(GENERAL_FILE), "--json"]).output)["card"]
    assert (card["channels"], card["any_channels"]) == ([], MOST_CHANNELS)


def test_golden_samples_are_of_three_channels() -> None:
    assert probed(SHIPPED).card.channel_names == ("first", "second", "third")
