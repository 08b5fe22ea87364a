"""Classes and forecasts all the way: trained, exported, and published by an agent on a broker."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from agents import Listener, agent, online, play
from mosquitto import Mosquitto

from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.nets import ForecastConfig, NetworkConfig
from edgernn.recording import Recording, write_recording
from edgernn.simulate.house import simulate_house
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.train import train
from edgernn_device.anatomy import dissect
from edgernn_device.engine import Engine
from edgernn_device.inspect import describe
from edgernn_export.artefact import build_artefact

HORIZON = 4
FEW_H = 48
"""Hours of the house that are played: 192 samples."""


def made(folder: Path, recording: Recording, task: str, **more: Any) -> Path:
    """An int8 artefact, trained for some seconds."""
    config = Config(
        recording=(RecordingConfig(path="a.csv"),),
        task=task,
        network=NetworkConfig(hidden=12),
        training=TrainingConfig(epochs=8, streams=8, chunk=16, learning_rate=0.02, device="cpu"),
        **more,
    )
    run, _ = train(config, recording, name=task)
    artefact, proof = build_artefact(run, quantization="int8")
    assert (proof.failures, proof.samples) == ((), 10_000)
    path = folder / f"{task}.onnx"
    path.write_bytes(artefact)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tells a cut cable of the flow meter from a healthy pump."""
    faults = [parse_fault(f"dropout:flow@{m}m+4m") for m in range(2, 36, 8)]
    recording = simulate_pump(hours=0.6, seed=1, faults=faults)
    return made(tmp_path_factory.mktemp("classify"), recording, "classify")


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recording = simulate_house(hours=24 * 14, seed=1)
    config = ForecastConfig(horizon=HORIZON)
    return made(tmp_path_factory.mktemp("forecast"), recording, "forecast", forecast=config)


def test_the_agent_publishes_the_class_when_it_changes(
    tmp_path: Path, mosquitto: Mosquitto, classifier: Path
) -> None:
    played = tmp_path / "pump.csv"
    faults = [parse_fault("dropout:flow@5m+5m")]
    write_recording(played, simulate_pump(hours=0.25, seed=7, faults=faults))
    with Listener(mosquitto) as listener, agent(tmp_path, classifier, mosquitto):
        online(listener)
        listener.wait_until_scored(play(mosquitto, played, "a"))
        said = listener.messages["edgernn/pi/a/class"]
        state = listener.last("edgernn/pi/a/state")
    assert [one["class"] for one in said] == ["healthy", "dropout", "healthy"]
    assert [one["time"][11:16] for one in said[1:]] == ["05:05", "05:10"]
    assert all(one["probability"] > 0.5 for one in said)
    assert said[0]["model"]["name"] == "classify"
    assert (state["state"], state["score"]) == ("running", None)
    assert {alert["kind"] for alert in listener.alerts("a")} <= {"silent"}  # the cable is cut


def test_a_broker_that_forgot_the_class_is_told_it_again(
    tmp_path: Path, mosquitto: Mosquitto, classifier: Path
) -> None:
    played = tmp_path / "pump.csv"
    write_recording(played, simulate_pump(hours=0.1, seed=7))
    topic = "edgernn/pi/a/class"
    with agent(tmp_path, classifier, mosquitto):
        with Listener(mosquitto) as listener:
            online(listener)
            listener.wait_until_scored(play(mosquitto, played, "a"))
            first = listener.last(topic)
        mosquitto.restart()
        with Listener(mosquitto) as later:
            later.wait_for(lambda: topic in later.messages, "the class is not said again")
            assert later.last(topic) == first


def test_the_agent_publishes_what_the_engine_forecasts(
    tmp_path: Path, mosquitto: Mosquitto, forecaster: Path
) -> None:
    house = simulate_house(hours=FEW_H, seed=7)
    played = tmp_path / "house.csv"
    write_recording(played, house)
    with Listener(mosquitto) as listener, agent(tmp_path, forecaster, mosquitto):
        online(listener)
        samples = play(mosquitto, played, "a")
        listener.wait_until_scored(samples)
        said = listener.messages["edgernn/pi/a/forecast"]
    engine = Engine.load(forecaster)
    assert len(said) == samples - engine.card.warm_up
    last = said[-1]
    assert (last["horizon"], last["period_s"]) == (HORIZON, 900.0)
    assert [(one["name"], one["unit"]) for one in last["channels"]] == [
        ("power", "kW"),
        ("indoor", "°C"),
        ("outdoor", "°C"),
        ("sun", "W/m²"),
    ]
    forecast, spread = engine.run(np.array([engine.add_stream()]), house.tracks[0].x[:, None])
    for c, one in enumerate(last["channels"]):
        np.testing.assert_allclose(one["mean"], forecast[-1, 0, :, c], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(one["spread"], spread[-1, 0, :, c], rtol=1e-3, atol=1e-3)


def test_forecasts_come_no_more_often_than_the_file_says(
    tmp_path: Path, mosquitto: Mosquitto, forecaster: Path
) -> None:
    played = tmp_path / "house.csv"
    write_recording(played, simulate_house(hours=FEW_H, seed=7))
    often = "[forecast]\nevery_s = 7200\n"
    with (
        Listener(mosquitto) as listener,
        agent(tmp_path, forecaster, mosquitto, more=often),
    ):
        online(listener)
        samples = play(mosquitto, played, "a")
        listener.wait_until_scored(samples)
        said = listener.messages["edgernn/pi/a/forecast"]
    warm_up = Engine.load(forecaster).card.warm_up
    assert len(said) == -(-(samples - warm_up) // 8)


def test_inspect_says_the_task(classifier: Path, forecaster: Path) -> None:
    pages = [
        describe(Engine.load(path), dissect(path.read_bytes())) for path in (classifier, forecaster)
    ]
    assert "task       classify: healthy, dropout\n" in pages[0]
    page = pages[1]
    assert "task       forecast: 4 samples ahead, 3600 s\n" in page
    assert "alarm" not in page


def test_the_cards_name_their_task(classifier: Path, forecaster: Path) -> None:
    cards = [msgspec.to_builtins(Engine.load(path).card) for path in (classifier, forecaster)]
    assert [(card["task"], card["classes"], card["horizon"]) for card in cards] == [
        ("classify", ("healthy", "dropout"), 0),
        ("forecast", (), 4),
    ]
