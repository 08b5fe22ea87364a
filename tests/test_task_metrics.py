"""Classifier and forecaster: trained, saved, evaluated; figures against figures by hand."""

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from cards import make_card
from click.testing import CliRunner
from torch import Tensor

from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.evaluation import class_metrics
from edgernn.evaluation.class_metrics import class_lines, measure_classes
from edgernn.evaluation.cli import evaluate
from edgernn.evaluation.forecast_metrics import forecast_lines, measure_forecasts
from edgernn.nets import Classifier, ForecastConfig, Forecaster, NetworkConfig
from edgernn.recording import Recording, Track, write_recording
from edgernn.run import load_run, save_run
from edgernn.simulate.command import simulate
from edgernn.simulate.house import simulate_house
from edgernn.simulate.pump import parse_fault, simulate_pump
from edgernn.training.cli import train as train_command
from edgernn.training.stretches import read_recordings
from edgernn.training.train import train

LABELS = ("", "leak")


def recording(labels: list[str] | None, x: Any, *, period_s: float = 1.0) -> Recording:
    """One stream of the channels of `make_card`."""
    time_s = (1e9 + period_s * np.arange(len(x))).astype(np.float64)
    label = None if labels is None else np.array(labels)
    track = Track("a", time_s, np.asarray(x, np.float32), label)
    return Recording(("flow", "heat"), ("l/min", ""), (track,), period_s, ())


class Thermometer(Classifier):
    """Says "leak" where the second channel is above 1, one sample later."""

    def __init__(self) -> None:
        super().__init__(("flow", "heat"), NetworkConfig(hidden=2), classes=("a", "b"), seed=0)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        about = torch.cat([torch.full_like(x[:1], torch.nan), x[:-1]])
        is_leak = (about[..., 1] > 1).float()
        p = torch.stack([1 - is_leak, is_leak], dim=-1)
        return torch.where(about[..., 1:].isnan(), torch.nan, p), *state


def test_class_figures_are_those_of_a_hand_made_recording() -> None:
    card = make_card(task="classify", classes=("healthy", "leak"), tails=(), warm_up=2, delay=1)
    heat = [0, 0, 0, 5, 5, 5, 5, np.nan, 0, 5, 0]
    labels = ["leak", "", "", "", "leak", "leak", "rust", "leak", "leak", "leak", "leak"]
    metrics = measure_classes(Thermometer(), card, recording(labels, [[1, h] for h in heat]))
    # row 0 is in the warm-up, the last one is never spoken of, row 7 was not observed
    assert metrics.confusion == {
        "healthy": {"healthy": 2, "leak": 1},
        "leak": {"healthy": 1, "leak": 3},
        "rust": {"healthy": 0, "leak": 1},
    }
    assert (metrics.rows, metrics.accuracy) == (8, 5 / 8)
    assert metrics.balanced_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    leak = metrics.classes[1]
    assert (leak.rows, leak.precision, leak.recall) == (4, 3 / 5, 3 / 4)
    assert leak.f1 == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert "accuracy 0.625" in class_lines(metrics)


@pytest.mark.parametrize("block", [1, 7])
def test_classes_are_the_same_in_blocks_of_any_length(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = make_card(task="classify", classes=("healthy", "leak"), tails=(), warm_up=2)
    model = Classifier(("flow", "heat"), NetworkConfig(hidden=4), classes=card.classes, seed=0)
    x = np.random.default_rng(0).normal(size=(200, 2)).cumsum(axis=0)
    made = recording(["", "leak"] * 100, x)
    whole = measure_classes(model.eval(), card, made)
    monkeypatch.setattr(class_metrics, "BLOCK", block)
    assert measure_classes(model, card, made) == whole
    assert all(sum(row[name] for row in whole.confusion.values()) for name in card.classes)


def test_a_recording_without_labels_has_no_classes_to_compare() -> None:
    card = make_card(task="classify", classes=("healthy", "leak"), tails=(), warm_up=2, delay=1)
    with pytest.raises(EdgernnError, match="no labels to compare"):
        measure_classes(Thermometer(), card, recording(None, [[1.0, 1.0]] * 9))


class Adder(Forecaster):
    """Says that each channel grows by 1 a step, give or take 1."""

    def __init__(self, horizon: int) -> None:
        super().__init__(("flow", "heat"), NetworkConfig(hidden=2), horizon=horizon, seed=0)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        steps = torch.arange(1.0, self.horizon + 1).reshape(1, 1, -1, 1)
        forecast = x.nan_to_num().unsqueeze(2) + steps
        return forecast, torch.ones_like(forecast), *state


def test_forecast_figures_are_those_of_a_hand_made_recording() -> None:
    card = make_card(task="forecast", horizon=2, tails=(), warm_up=1)
    flow = [9.0, 0.0, 1.0, 2.0, 6.0]
    found = measure_forecasts(
        Adder(2),
        card,
        recording(None, [[f, np.nan if i == 3 else 2.0] for i, f in enumerate(flow)]),
    )
    one = found.channels[0]
    # from sample 1: 1 and 2 are right; from 2: 2 is right, 3 for 6 is not; from 3: 3 for 6
    assert one.forecast.mae_by_step == pytest.approx((3 / 3, 3 / 2))
    assert one.forecast.mae == pytest.approx(6 / 5)
    assert one.forecast.rmse == pytest.approx(np.sqrt(18 / 5))
    assert one.persistence.mae_by_step == pytest.approx((6 / 3, 7 / 2))
    assert one.day_before is None
    assert one.within_90 == 3 / 5
    assert found.values == 5 + 2  # of heat: from sample 1 only step 1, from 2 only step 2
    assert "persistence" in forecast_lines(found)


def test_the_day_before_is_compared_where_there_are_two_days() -> None:
    card = make_card(task="forecast", horizon=8, period_s=21600.0, tails=(), warm_up=1)
    x = [[t % 4, 0.0] for t in range(20)]  # four samples a day, each day the same
    found = measure_forecasts(Adder(8), card, recording(None, x, period_s=21600.0)).channels[0]
    assert found.day_before is not None
    assert found.day_before.mae == 0
    assert found.persistence.mae > 0


def test_a_recording_too_short_to_compare_anything_is_a_sentence() -> None:
    card = make_card(task="forecast", horizon=3, tails=(), warm_up=3)
    with pytest.raises(EdgernnError, match="the recording is too short: 3 samples of warm-up"):
        measure_forecasts(Adder(3), card, recording(None, [[1.0, 1.0]] * 5))


def small(task: str, **more: Any) -> Config:
    return Config(
        recording=(RecordingConfig(path="a.csv"),),
        task=task,
        network=NetworkConfig(hidden=8),
        training=TrainingConfig(epochs=4, streams=8, chunk=16, learning_rate=0.02, device="cpu"),
        **more,
    )


def leaky(hours: float = 0.6) -> Recording:
    """A leak every eight minutes for four."""
    faults = [parse_fault(f"leak@{m}m+4m") for m in range(2, round(hours * 60), 8)]
    return simulate_pump(hours=hours, seed=1, faults=faults)


def test_a_classifier_goes_from_a_recording_to_its_figures(tmp_path: Path) -> None:
    run, losses = train(small("classify"), leaky(), name="pump")
    assert losses[-1].training < losses[0].training
    card = run.card
    assert (card.task, card.classes, card.horizon, card.tails) == (
        "classify",
        ("healthy", "leak"),
        0,
        (),
    )
    save_run(tmp_path / "run", run, losses)
    loaded = load_run(tmp_path / "run")
    assert loaded.card == card
    metrics = measure_classes(loaded.trained, card, leaky())
    assert metrics == measure_classes(run.trained, card, leaky())
    write_recording(tmp_path / "a.csv", leaky())
    done = CliRunner().invoke(evaluate, [str(tmp_path / "run"), str(tmp_path / "a.csv")])
    assert done.exit_code == 0, done.output
    told = (tmp_path / "run" / "evaluation" / "a" / "metrics.json").read_bytes()
    assert msgspec.json.decode(told)["accuracy"] == metrics.accuracy
    with pytest.raises(EdgernnError, match=r'^pump: expected task "anomaly", got "classify"$'):
        _ = loaded.detector


def test_a_forecaster_beats_persistence_after_a_few_epochs(tmp_path: Path) -> None:
    config = small("forecast", forecast=ForecastConfig(horizon=8))
    run, losses = train(config, simulate_house(hours=24 * 30, seed=1), name="house")
    assert (run.card.task, run.card.horizon, run.card.classes) == ("forecast", 8, ())
    save_run(tmp_path / "run", run, losses)
    held_out = simulate_house(hours=24 * 7, seed=2)
    metrics = measure_forecasts(load_run(tmp_path / "run").trained, run.card, held_out)
    power = metrics.channels[0]
    assert power.name == "power"
    assert power.forecast.rmse < power.persistence.rmse
    assert 0.8 < power.within_90 <= 1


def test_labelled_rows_are_kept_to_classify_and_left_out_to_forecast(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.csv", leaky())
    kept = read_recordings(small("classify"), tmp_path).tracks[0]
    left = read_recordings(small("forecast", forecast=ForecastConfig(horizon=8)), tmp_path).tracks[
        0
    ]
    assert kept.label is not None
    is_leak = kept.label == "leak"
    assert is_leak.any()
    assert np.isnan(left.x[is_leak]).all()
    assert np.isfinite(kept.x).all()


def test_a_class_that_comes_only_early_is_refused_before_training() -> None:
    early = simulate_pump(hours=0.6, seed=1, faults=[parse_fault("leak@2m+4m")])
    with pytest.raises(EdgernnError, match=r"^class leak: no sample in the part that decides"):
        train(small("classify"), early, name="pump")


@pytest.mark.parametrize(
    ("label", "sentence"),
    [(None, "learns from labels, and pump has none"), ("", 'every sample is "healthy"')],
)
def test_what_has_no_classes_is_refused(label: str | None, sentence: str) -> None:
    made = leaky()
    (track,) = made.tracks
    labels = None if label is None else np.full(len(track.x), label)
    bare = Track(track.stream, track.time_s, track.x, labels)
    without = Recording(made.channels, made.units, (bare,), made.period_s, ())
    with pytest.raises(EdgernnError, match=sentence):
        train(small("classify"), without, name="pump")


def test_tables_of_another_task_are_refused() -> None:
    text = 'task = "classify"\n[[recording]]\npath = "a"\n[score]\nwindow = 30\n'
    with pytest.raises(msgspec.ValidationError, match='score: only for task = "anomaly", here'):
        msgspec.toml.decode(text, type=Config)


def test_a_horizon_that_training_cannot_reach_is_refused() -> None:
    text = 'task = "forecast"\n[[recording]]\npath = "a"\n[forecast]\nhorizon = 40\n'
    with pytest.raises(msgspec.ValidationError, match=r"do not fit twice into training.chunk, 64"):
        msgspec.toml.decode(text, type=Config)


def test_the_training_files_of_the_docs_are_read() -> None:
    text = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert [msgspec.toml.decode(block, type=Config).task for block in blocks] == [
        "classify",
        "forecast",
    ]


@pytest.fixture(scope="module")
def house_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small("forecast", forecast=ForecastConfig(horizon=2))
    run, losses = train(config, simulate_house(hours=24 * 14, seed=1), name="house")
    folder = tmp_path_factory.mktemp("run") / "house"
    save_run(folder, run, losses)
    write_recording(folder / "week.csv", simulate_house(hours=24 * 7, seed=2))
    return folder


@pytest.mark.parametrize("option", [["--folds", "3"], ["--false-alarms", "1/day"]])
def test_what_is_for_anomalies_alone_is_refused_when_evaluating(
    house_run: Path, option: list[str]
) -> None:
    with pytest.raises(EdgernnError, match=r'only for task "anomaly", .* is for "forecast"'):
        evaluate.main([str(house_run), str(house_run / "week.csv"), *option], standalone_mode=False)


def test_a_forecasters_evaluation_says_how_far_it_beats_doing_nothing(house_run: Path) -> None:
    done = CliRunner().invoke(evaluate, [str(house_run), str(house_run / "week.csv")])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()[1:5]] == [
        "power",
        "forecast",
        "persistence",
        "day",
    ]


def test_a_budget_is_refused_when_training_for_another_task(house_run: Path) -> None:
    file = house_run / "again.toml"
    file.write_text('task = "forecast"\n[[recording]]\npath = "week.csv"\n')
    arguments = [str(file), "-o", str(house_run / "again"), "--false-alarms", "1/day"]
    with pytest.raises(EdgernnError, match='--false-alarms: only for task "anomaly", got "fore'):
        train_command.main(arguments, standalone_mode=False)


@pytest.mark.parametrize(("option", "value"), [("--fault", "leak@1h"), ("--drift", "1")])
def test_a_house_has_no_faults_and_its_sensors_do_not_drift(
    option: str, value: str, tmp_path: Path
) -> None:
    arguments = ["house", "-o", str(tmp_path / "h.csv"), option, value]
    with pytest.raises(EdgernnError, match=f"{option}: only for a pump"):
        simulate.main(arguments, standalone_mode=False)
