"""A general detector that begins with what a recording showed: what it knows, its artefact."""

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from agents import make_monitor
from click.testing import CliRunner
from numpy.typing import NDArray
from runners import CHANNELS, NAMES, SPREAD, EngineRunner, healthy

from edgernn.cli import edgernn
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.nets.checks import TorchRunner, check_chunk_invariance, check_same_detector
from edgernn.nets.general import THE_SHIPPED, General, GeneralConfig, joined
from edgernn.recording import Recording, Track, write_recording
from edgernn.run import Run, load_run, save_run
from edgernn.times import CLOCK_OFF_S, DAY_S, FIRST_MONDAY_S, WEEK_S
from edgernn.training.begin import ALARM, apart
from edgernn.training.stretches import blocks
from edgernn.training.train import train
from edgernn_device.engine import Engine
from edgernn_device.payload import RawSample
from edgernn_export.artefact import with_card
from edgernn_export.graph import build_graph

Floats = NDArray[np.float32]

MONDAY_S = FIRST_MONDAY_S + 2900 * WEEK_S

OTHER = GeneralConfig(
    spans=(1, 8), power=8, dead_zone=3.0, spread_memory=20_000, day_memory=100, day_clip=2.0
)


def recorded(x: Floats, *, period_s: float = 1.0, start_s: float = MONDAY_S) -> Recording:
    times = start_s + period_s * np.arange(len(x), dtype=np.float64)
    names = NAMES[: x.shape[1]]
    return Recording(names, ("",) * len(names), (Track("s", times, x, None),), period_s, ())


def begun(recording: Recording, general: GeneralConfig = THE_SHIPPED) -> Run:
    run, losses = train(Config(recording=(), general=general), recording, name="plant")
    assert losses == []
    return run


def score(run: Run, x: Floats, *, start_s: float = MONDAY_S) -> Floats:
    """x (T, C) of a new stream → (T,)"""
    with torch.no_grad():
        said, *_ = run.scorer(torch.from_numpy(x)[:, None], *run.scorer.fresh_state(1, [start_s]))
    found: Floats = said[:, 0].numpy()
    return found


@cache
def plant(general: GeneralConfig) -> tuple[Run, Engine]:
    x = healthy(1500, 1, seed=0)[:, 0]
    x[700:750, 1] = np.nan
    run = begun(recorded(x), general)
    return run, Engine(with_card(build_graph(run.model), run.card))


def test_a_fault_in_the_first_samples_of_a_stream_is_found() -> None:
    run, _ = plant(THE_SHIPPED)
    x = healthy(300, 1, seed=1)[:, 0]
    x[40:50, 1] += 8 * SPREAD[1]
    y = score(run, x)
    assert run.card.warm_up == 0
    assert y[40:50].max() > y[:40].max() + 1
    assert y[40:50].max() > 3


def test_levels_are_the_means_of_the_whole_recording() -> None:
    x = healthy(1500, 1, seed=0)[:, 0]
    x[1000:1100, 0] += 20 * SPREAD[0]  # a guard would leave it out
    run = begun(recorded(x))
    level = run.scorer(torch.from_numpy(x[:1])[:, None], *run.scorer.fresh_state(1))[2]
    assert (abs(level[0, 0].numpy() - x.mean(0)) < 1e-3 * SPREAD).all()


def test_a_channel_that_the_recording_never_had_moving_begins_empty() -> None:
    x = healthy(900, 1, seed=0)[:, 0]
    x[:, 2] = 7
    run = begun(recorded(x))
    now = torch.from_numpy(healthy(1, 1, seed=1))
    _, _, expected, moments, *_ = run.scorer(now, *run.scorer.fresh_state(1))
    assert moments[0, 0].tolist() == [901, 901, 1]
    assert expected[0, 0, 2] == now[0, 0, 2]  # of nothing but itself


def test_the_time_of_day_is_known_wherever_a_stream_begins() -> None:
    quarter_s, day = DAY_S / 96, 96
    hours = np.arange(6 * day) % day / 4
    x = np.random.default_rng(0).standard_normal((6 * day, 2)).astype(np.float32)
    x[(hours >= 8) & (hours < 16)] += 10
    run = begun(recorded(x, period_s=quarter_s))
    at_noon_s = MONDAY_S + 7 * DAY_S + DAY_S / 2
    idle, working = x[:8], x[48:56]
    assert score(run, idle, start_s=at_noon_s).max() > score(run, working, start_s=at_noon_s).max()
    at_night_s = MONDAY_S + 7 * DAY_S
    assert (
        score(run, idle, start_s=at_night_s).max() < score(run, working, start_s=at_night_s).max()
    )


@pytest.mark.parametrize("general", [THE_SHIPPED, OTHER], ids=["default", "other"])
def test_the_engine_begins_alike_and_no_cut_changes_a_score(general: GeneralConfig) -> None:
    run, engine = plant(general)
    x = healthy(300, 2, seed=3)
    x[200:230, 0] += 6 * SPREAD
    x[:20, 1, 1] = np.nan
    check_same_detector(TorchRunner(run.scorer), EngineRunner(engine), x)
    check_chunk_invariance(EngineRunner(engine), x, [1, 2, 120])


def test_a_run_is_the_same_once_it_was_written_and_read(tmp_path: Path) -> None:
    run, _ = plant(OTHER)
    save_run(tmp_path, run, [])
    loaded = load_run(tmp_path)
    x = healthy(100, 1, seed=4)[:, 0]
    assert np.array_equal(score(loaded, x), score(run, x))
    assert loaded.config.general == OTHER


def test_the_power_mean_of_views_is_between_their_mean_and_the_largest() -> None:
    distances = np.array([[3.0, 0.5, 1.0, 2.0], [0, 0, 0, 0]], np.float32)
    for power in (1, 2, 8, 64):
        mean = np.sqrt(joined(distances**2, power))
        expected = (distances.astype(float) ** power).mean(1) ** (1 / power)
        np.testing.assert_allclose(mean[:, 0], expected, rtol=1e-4)
    assert np.sqrt(joined(distances**2, 0))[0, 0] == 3


def test_a_recording_that_is_shorter_than_what_is_learnt_alike_is_refused() -> None:
    with pytest.raises(EdgernnError, match="too short: 399 samples, at least 400"):
        begun(recorded(healthy(399, 1, seed=0)[:, 0]))


def test_rows_that_were_missing_do_not_make_a_recording_longer() -> None:
    x = healthy(900, 1, seed=0)[:, 0]
    x[399:] = np.nan
    with pytest.raises(EdgernnError, match="too short: 399 samples, at least 400"):
        begun(recorded(x))


def test_a_budget_on_the_command_line_changes_nothing_else_of_the_alarm(tmp_path: Path) -> None:
    write_recording(tmp_path / "plant.csv", recorded(healthy(500, 1, seed=0)[:, 0]))
    (tmp_path / "plant.toml").write_text("[[recording]]\npath = 'plant.csv'\n[general]\n")
    words = ["train", str(tmp_path / "plant.toml"), "-o", str(tmp_path / "run")]
    CliRunner().invoke(edgernn, [*words, "--false-alarms", "1/day"], catch_exceptions=False)
    alarm = load_run(tmp_path / "run").card.alarm
    assert alarm == msgspec.structs.replace(ALARM, false_alarms="1/day")


def test_a_recording_in_which_nothing_moves_is_refused() -> None:
    with pytest.raises(EdgernnError, match="no channel of the recording moves"):
        begun(recorded(np.full((500, 2), 7, np.float32)))


def test_a_channel_without_a_value_is_named(tmp_path: Path) -> None:
    x = healthy(500, 1, seed=0)[:, 0]
    x[:, 1] = np.nan
    write_recording(tmp_path / "plant.csv", recorded(x))
    (tmp_path / "plant.toml").write_text("[[recording]]\npath = 'plant.csv'\n[general]\n")
    words = ["train", str(tmp_path / "plant.toml"), "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(edgernn, words)
    assert isinstance(done.exception, EdgernnError)
    assert NAMES[1] in str(done.exception)


def test_streams_that_have_no_level_in_common_are_told_of() -> None:
    x = healthy(500, 1, seed=0)[:, 0]
    other = x + np.array([0, 100, 0], np.float32) * SPREAD
    times = MONDAY_S + np.arange(500, dtype=np.float64)
    tracks = Track("a", times, x, None), Track("b", times, other, None)
    (note,) = apart(Recording(NAMES, ("",) * 3, tracks, 1.0, ()))
    assert note.startswith("rate is at -3")
    assert " in b" in note
    assert apart(recorded(x)) == []


@pytest.mark.parametrize("period_s", [10.0, 300.0, 3600.0])
def test_times_off_the_period_do_not_move_the_clock(period_s: float) -> None:
    """Intervals of 5, 5, 5 and 7 minutes are a step each: in a block of a thousand 8 hours."""
    model = General(CHANNELS, period_s=period_s)
    times = MONDAY_S + period_s * np.cumsum(np.where(np.arange(2000) % 4 == 3, 1.4, 1.0))
    track = Track("s", times, healthy(2000, 1, seed=0)[:, 0], None)
    heads = [(len(x), first_s[0]) for x, first_s in blocks(track, 4096, model.step_s)]
    assert sum(length for length, _ in heads) == 2000
    ends = np.cumsum([length for length, _ in heads])
    for (length, first_s), end in zip(heads, ends, strict=True):
        clock = first_s + period_s * np.arange(length)
        assert np.abs(clock - times[end - length : end]).max() <= CLOCK_OFF_S
    assert len(list(blocks(track, 4096))) == 1


def test_a_recording_without_dates_is_refused(tmp_path: Path) -> None:
    undated = recorded(healthy(500, 1, seed=0)[:, 0], start_s=0.0)
    write_recording(tmp_path / "plant.csv", undated)
    (tmp_path / "plant.toml").write_text("[[recording]]\npath = 'plant.csv'\n[general]\n")
    done = CliRunner().invoke(edgernn, ["train", str(tmp_path / "plant.toml")])
    assert "general goes by the time of day: expected dates" in str(done.exception)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("[general]\npower = -1\n", "general.power: expected 0–64, got -1"),
        ("[general]\nspans = []\n", "general.spans: expected 1–6 of them, got 0"),
        ("[general]\n[network]\nhidden = 8\n", "network: not beside general"),
        ("[general]\n[levels]\nof = ['reading']\n", "levels: not beside general"),
        ("task = 'forecast'\n[general]\n", 'general: only for task = "anomaly"'),
    ],
)
def test_what_does_not_go_with_it_is_refused_in_a_sentence(
    tmp_path: Path, keys: str, why: str
) -> None:
    (tmp_path / "bad.toml").write_text(f"{keys}[[recording]]\npath = 'x.csv'\n")
    done = CliRunner().invoke(edgernn, ["train", str(tmp_path / "bad.toml")])
    assert done.exit_code != 0
    assert why in str(done.exception)


def test_channels_are_looked_for_in_what_was_scored_of_a_backlog(tmp_path: Path) -> None:
    """Of streams side by side, one step each comes first, however many wait of one of them."""
    run, _ = plant(THE_SHIPPED)
    path = tmp_path / "plant.onnx"
    path.write_bytes(with_card(build_graph(run.model), run.card))
    monitor = make_monitor(path)
    x = healthy(80, 1, seed=1)[:, 0].tolist()
    waiting = [
        (
            "long",
            RawSample(MONDAY_S + k, None, dict(zip(NAMES[k % 2 :], row[k % 2 :], strict=True))),
        )
        for k, row in enumerate(x)
    ]
    short = ("short", RawSample(MONDAY_S, None, dict(zip(NAMES, x[1], strict=True))))
    monitor.take([*waiting[1:], short])
    assert monitor.remarks == []


@pytest.mark.parametrize(
    "words", [("--seed", "7"), ("--epochs", "3"), ("--resume",), ("--diagnose",)]
)
def test_words_of_training_are_refused_beside_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "plant.toml").write_text("[[recording]]\npath = 'x.csv'\n[general]\n")
    done = CliRunner().invoke(edgernn, ["train", str(tmp_path / "plant.toml"), *words])
    assert done.exit_code == 2
    assert f"{words[0]}: " in done.output
    assert "has general, which is not trained" in done.output


def test_from_a_training_file_to_an_artefact(tmp_path: Path) -> None:
    x = healthy(1200, 1, seed=0)[:, 0]
    write_recording(tmp_path / "plant.csv", recorded(x))
    (tmp_path / "plant.toml").write_text("[[recording]]\npath = 'plant.csv'\n[general]\n")
    folder, file = tmp_path / "run", tmp_path / "plant.onnx"

    def said(*words: object) -> str:
        done = CliRunner().invoke(edgernn, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "levels at 1, 4, 16 samples, ranked" in said(
        "train", tmp_path / "plant.toml", "-o", folder
    )
    assert "weights none" in said("export", folder, "-o", file)
    assert "0 alarm(s)" in said("evaluate", folder, tmp_path / "plant.csv")
    card = Engine.load(file).card
    assert card.channel_names == NAMES[:CHANNELS]
    assert (card.alarm, card.channels[0].longest_still) == (ALARM, 1)
    with pytest.raises(EdgernnError, match="has no weights"):
        CliRunner().invoke(
            edgernn,
            ["export", str(folder), "-o", str(file), "--quantize", "auto"],
            catch_exceptions=False,
        )
