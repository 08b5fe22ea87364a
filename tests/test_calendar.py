"""Time of day and week as inputs of a network: from the clock, in training and on the device."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from agents import make_monitor
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgernn.alarm import Limits
from edgernn.benchmark.series import Series
from edgernn.config import Config, RecordingConfig, ScoreConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.evaluation.cli import evaluate
from edgernn.evaluation.evaluate import score_recording
from edgernn.nets import AdaptConfig, Detector, NetworkConfig
from edgernn.nets.calendar import Calendar
from edgernn.recording import Recording, Times, Track, write_recording
from edgernn.run import Run, load_run, save_run
from edgernn.settings import to_settings
from edgernn.times import DAY_S, WEEK_S, seconds_of_week
from edgernn.training.cli import train as train_command
from edgernn.training.fit import fit_scaling, mean_loss
from edgernn.training.settle import run_counted
from edgernn.training.stretches import Lanes, side_by_side
from edgernn.training.train import calibrate, hash_lessons, train
from edgernn.tune.space import read_space
from edgernn_device.engine import Engine
from edgernn_device.monitor import Monitor
from edgernn_device.payload import RawSample
from edgernn_export.artefact import Source, accepted, build_candidates, prepare, with_card
from edgernn_export.benchmark.streamed import stream_through
from edgernn_export.graph import build_graph
from edgernn_export.qat import _Pupil
from edgernn_export.quantize import quantize
from edgernn_export.rounding import timed_lanes

Floats = NDArray[np.float32]

MONDAY_S = 1_767_571_200.0
"""2026-01-05 00:00 UTC."""
QUARTER_S = 900.0
OF_DAY = 96
"""Samples."""
BOTH = ("day", "week")
SUNDAY = slice(13 * OF_DAY + 44, 13 * OF_DAY + 52)
"""11:00 to 13:00 of the second one, when nobody works."""
TOLERANCE = 1e-5
"""Of sines of angles up to 44 radians, in float32."""


def office(weeks: int, *, seed: int) -> Recording:
    """Load and warmth of an office, high from about 8:00 to 17:30 on working days, or not."""
    generator = np.random.default_rng(seed)
    row = np.arange(weeks * 7 * OF_DAY)
    time_s = MONDAY_S + QUARTER_S * row.astype(np.float64)
    day, hour = row // OF_DAY, row % OF_DAY / 4
    opens, closes = (at + generator.normal(0, 0.25, 7 * weeks)[day] for at in (8.0, 17.5))
    works = (opens <= hour) & (hour < closes) & (day % 7 < 5)
    x = np.column_stack([2.0 + 8.0 * works, 20.0 + 2.0 * works])
    x += generator.standard_normal(x.shape) * np.array([0.3, 0.2])
    return recording(time_s, x)


def recording(time_s: Times, x: NDArray[np.floating[Any]]) -> Recording:
    track = Track("office", time_s, x.astype(np.float32), None)
    return Recording(("load", "warmth"), ("kW", "°C"), (track,), QUARTER_S, ())


def config(*calendar: str, **training: Any) -> Config:
    asked = {"streams": 8, "chunk": 48, "epochs": 40, "patience": 15, **training}
    return Config(
        recording=(RecordingConfig(path="office.parquet"),),
        network=NetworkConfig(hidden=8, calendar=calendar),
        score=ScoreConfig(window=8),
        training=TrainingConfig(**asked),
    )


def untrained(*calendar: str, period_s: float = QUARTER_S, adapt: AdaptConfig | None = None) -> Any:
    network = NetworkConfig(hidden=4, calendar=calendar)
    made = Detector(("load", "warmth"), network, adapt=adapt, span=8, seed=0, period_s=period_s)
    fit_scaling(made, office(1, seed=0).tracks)
    return made.eval()


@pytest.fixture(scope="module")
def by_time() -> Run:
    run, _ = train(config(*BOTH), office(8, seed=0), name="office")
    return run


@pytest.fixture(scope="module")
def source(by_time: Run) -> Source:
    return prepare(by_time)


@pytest.fixture(scope="module")
def artefact(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("office") / "office.onnx"
    path.write_bytes(accepted(next(build_candidates(source, "int8")))[0])
    return path


@pytest.fixture(scope="module")
def fortnight() -> Track:
    return office(2, seed=7).tracks[0]


def notes_of_training(tmp_path: Path, weeks: int, calendar: str) -> list[str]:
    write_recording(tmp_path / "office.parquet", office(weeks, seed=0))
    (tmp_path / "office.toml").write_text(
        f'[[recording]]\npath = "office.parquet"\n[network]\nhidden = 4\ncalendar = {calendar}\n'
        "[training]\nepochs = 1\n"
    )
    words = [str(tmp_path / "office.toml"), "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(train_command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [line for line in done.output.splitlines() if "network.calendar" in line]


def test_a_cycle_that_the_recording_hardly_shows_is_told_of(tmp_path: Path) -> None:
    assert notes_of_training(tmp_path, 2, '["day", "week"]') == [
        'note: network.calendar has "week", and no stream lasts longer than 2 weeks: what happened '
        "once is taken for usual at its time; record 3 weeks or more, or leave it out"
    ]


@pytest.mark.parametrize(("weeks", "calendar"), [(2, '["day"]'), (3, '["week"]'), (2, "[]")])
def test_nothing_is_told_of_cycles_that_were_seen(
    tmp_path: Path, weeks: int, calendar: str
) -> None:
    assert notes_of_training(tmp_path, weeks, calendar) == []


def working_on_sunday(track: Track) -> Floats:
    x = track.x.copy()
    x[SUNDAY] += np.array([8, 2], np.float32)
    return x


def streamed(artefact: Path, time_s: Sequence[float], x: Floats) -> NDArray[np.float64]:
    """The score of every sample as the agent has it, one message after the other."""
    monitor: Monitor = make_monitor(artefact)
    scores = []
    for at_s, row in zip(time_s, x.tolist(), strict=True):
        values = dict(zip(("load", "warmth"), row, strict=True))
        outcome = monitor.take([("office", RawSample(at_s, None, values))])
        score = outcome.scores["office"].score if "office" in outcome.scores else None
        scores.append(math.nan if score is None else score)
    return np.array(scores)


@pytest.mark.parametrize(
    ("at", "day", "week"),
    [
        ("2026-01-05T00:00", 0.0, 0.0),
        ("2026-01-05T06:00", 0.25, 1 / 28),
        ("2026-07-15T12:00", 0.5, 2.5 / 7),
        ("2026-01-11T23:59:59", 1 - 1 / DAY_S, 1 - 1 / WEEK_S),
    ],
)
def test_the_columns_are_sine_and_cosine_of_the_time_in_utc(
    at: str, day: float, week: float
) -> None:
    clock = seconds_of_week(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp())
    columns, _ = Calendar(BOTH, period_s=1.0)(torch.zeros(1, 1, 2), torch.tensor([[clock]]))
    angles = 2 * np.pi * np.array([day, week])
    expected = np.concatenate([np.sin(angles), np.cos(angles)])
    np.testing.assert_allclose(columns[0, 0], expected, atol=TOLERANCE)


@given(
    period_s=st.floats(0.001, DAY_S),
    start=st.integers(0, int(16 * WEEK_S) - 1),
    cuts=st.lists(st.integers(1, 299), max_size=5),
)
def test_any_split_leaves_the_same_clock_to_the_last_bit_and_sees_the_same_over_the_end_of_the_week(
    period_s: float, start: int, cuts: list[int]
) -> None:
    calendar, x = Calendar(BOTH, period_s=min(period_s, 600.0)), torch.zeros(300, 1, 1)
    first = torch.tensor([[start / 16]], dtype=torch.float32)
    whole, end = calendar(x, first)
    clock, parts = first, []
    for chunk in np.split(np.arange(300), sorted(cuts)):
        columns, clock = calendar(x[chunk], clock)
        parts.append(columns)
    assert clock.equal(end)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=TOLERANCE)
    assert 0 <= float(end) < WEEK_S
    assert float(end) == (start / 16 + 300 * calendar.step_s) % WEEK_S


def test_a_period_is_told_to_a_sixteenth_of_a_second() -> None:
    assert [Calendar(("day",), period_s=p).step_s for p in (900.0, 0.1, 299.9998)] == [
        900.0,
        0.125,
        300.0,
    ]


@pytest.mark.parametrize(
    ("calendar", "sentence"),
    [
        (["hour"], "calendar: expected of day, week, got 'hour'"),
        (["day", "day"], "calendar: 'day' is named twice"),
    ],
)
def test_a_wrong_calendar_is_a_sentence(calendar: list[str], sentence: str) -> None:
    with pytest.raises(EdgernnError, match=sentence):
        to_settings({"recording": [], "network": {"calendar": calendar}}, Config, where="a.toml")


def test_the_calendar_can_be_searched_for() -> None:
    values = {"values": [[], ["day"], ["day", "week"]]}
    space = read_space({"network.calendar": values}, config())
    found = [space.config_of(point).network.calendar for point in space.points()]
    assert found == [(), ("day",), ("day", "week")]


def test_times_that_are_no_dates_are_refused(by_time: Run, tmp_path: Path) -> None:
    (track,) = office(2, seed=0).tracks
    elapsed = recording(track.time_s - MONDAY_S, track.x)
    sentence = (
        "expected dates, and the times of stream office begin at 0 s, which is "
        r"1970-01-01T00:00:00\.000Z$"
    )
    with pytest.raises(EdgernnError, match=rf"^network\.calendar = \['day'\]: {sentence}"):
        train(config("day"), elapsed, name="office")
    save_run(tmp_path / "run", by_time, [])
    write_recording(tmp_path / "office.csv", elapsed)
    words = [str(tmp_path / "run"), str(tmp_path / "office.csv")]
    with pytest.raises(EdgernnError, match=f"^office goes by the time: {sentence}"):
        CliRunner().invoke(evaluate, words, catch_exceptions=False)


def test_pieces_side_by_side_keep_their_own_times() -> None:
    (track,) = office(1, seed=0).tracks
    first, second = (
        Track("s", track.time_s[rows], track.x[rows], None)
        for rows in (slice(10), slice(5 * OF_DAY, 5 * OF_DAY + 4))
    )
    lanes = side_by_side([first, second], 2, at_least=2)  # of 7, 3 and 4 samples
    later = MONDAY_S + 7 * QUARTER_S
    assert lanes.times_at(0) == [MONDAY_S, later, MONDAY_S + 5 * DAY_S]
    assert lanes.times_at(6)[0] == MONDAY_S + 6 * QUARTER_S
    assert lanes.some(slice(1, 3)).times_at(0) == [later, MONDAY_S + 5 * DAY_S]


def test_a_loss_is_that_of_the_times_of_the_samples_not_of_their_number() -> None:
    """A sensor's clock that is off its period by a tenth is 11 hours ahead after five days."""
    made = untrained("day")
    x = torch.from_numpy(office(1, seed=3).tracks[0].x[: 5 * OF_DAY])
    time_s = MONDAY_S + 1.1 * QUARTER_S * np.arange(len(x)).astype(np.float64)
    halves = x.reshape(-1, 2, 2).transpose(0, 1)  # two streams, every other sample each
    lanes = Lanes(halves.transpose(0, 1).contiguous(), (time_s[::2], time_s[1::2]))
    state, total, count = made.fresh_state(2), 0.0, 0.0
    with torch.no_grad():
        for t, sample in enumerate(torch.split(lanes.x, 48)):
            state = made.set_clock(state, lanes.times_at(48 * t))
            loss, values, state = made.loss(sample, torch.zeros_like(sample), *state)
            total, count = total + float(loss), count + float(values)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("edgernn.training.fit.VALIDATION_BLOCK", 96)  # 48 samples of both
        assert mean_loss(made, lanes) == pytest.approx(total / count, rel=1e-6)
    assert mean_loss(made, Lanes(lanes.x)) != pytest.approx(total / count, rel=1e-6)


def test_every_round_of_a_piece_that_is_learnt_from_again_has_the_times_of_the_piece() -> None:
    made = untrained("day", adapt=AdaptConfig(scale=True, memory=1000))
    (track,) = office(1, seed=3).tracks
    piece = Track("s", track.time_s[:700] + 6 * 3600, track.x[:700], None)
    clocks = []

    def noted(x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, tuple[Any, ...]]:
        clocks.append(float(state[[*made.state_shapes].index("clock")]))
        return x, state

    run_counted(noted, made, piece, warm_up=0)
    assert clocks == [6 * 3600.0] * 3


def test_the_times_are_part_of_what_was_learnt_from_only_with_a_calendar() -> None:
    (track,) = office(2, seed=0).tracks
    later = Track("s", track.time_s + 3600, track.x, None)
    hashes = {c: [hash_lessons(config(*c), [t]) for t in (track, later)] for c in ((), BOTH)}
    assert hashes[()][0] == hashes[()][1] != hashes[BOTH][0] != hashes[BOTH][1]


def test_resuming_with_other_times_is_refused(tmp_path: Path) -> None:
    made = office(3, seed=0)
    (track,) = made.tracks
    train(config("day", epochs=1), made, name="office", folder=tmp_path)
    moved = recording(track.time_s + 3600, track.x)
    with pytest.raises(EdgernnError, match="cannot resume: the recordings have changed"):
        train(config("day", epochs=1), moved, name="office", folder=tmp_path, resume=True)


def test_a_run_is_read_back_as_it_was_saved(by_time: Run, tmp_path: Path) -> None:
    save_run(tmp_path / "run", by_time, [])
    loaded = load_run(tmp_path / "run")
    assert loaded.config.network.calendar == BOTH
    assert loaded.card.network.endswith("gru 8, time of day and week")
    x = torch.from_numpy(by_time.healthy.tracks[0].x[:200, None])
    scores = [one.model(x, *one.model.fresh_state(1, [MONDAY_S]))[0] for one in (by_time, loaded)]
    assert torch.equal(*scores)


def test_what_is_normal_at_its_hour_alone_is_found_with_a_calendar_and_not_without(
    artefact: Path, by_time: Run, fortnight: Track, tmp_path: Path
) -> None:
    blind = tmp_path / "blind.onnx"
    run, _ = train(config(), office(8, seed=0), name="office")
    blind.write_bytes(with_card(quantize(build_graph(run.model), "int8"), run.card))
    heights = []
    for path in (artefact, blind):
        time_s = fortnight.time_s.tolist()
        healthy, faulty = (
            streamed(path, time_s, x) for x in (fortnight.x, working_on_sunday(fortnight))
        )
        heights.append(np.nanmax(faulty[SUNDAY]) - np.nanmax(healthy))
    seeing, unseeing = heights
    assert seeing > 4
    assert unseeing < 0.5


def test_the_agent_scores_as_evaluation_does(
    artefact: Path, by_time: Run, fortnight: Track
) -> None:
    rows = np.r_[0:500, 540:900, 1000:1344]  # a gap that is bridged, and one that is not
    time_s, x = fortnight.time_s[rows], working_on_sunday(fortnight)[rows]
    card = Engine.load(artefact).card
    (scored,) = score_recording(
        by_time.detector, card, recording(time_s, x), Limits.from_rule(card.alarm, card)
    )
    expected = scored.score[np.isin(scored.track.time_s, time_s)]
    got = streamed(artefact, time_s.tolist(), x)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    below = np.nan_to_num(expected) < 6
    np.testing.assert_allclose(got[below], expected[below], atol=0.3)  # int8 and rounding
    assert np.nanmax(got[~below]) > 6


def test_the_same_samples_half_a_day_later_are_strange(artefact: Path, fortnight: Track) -> None:
    right, wrong = (
        streamed(artefact, (fortnight.time_s + late_s).tolist(), fortnight.x)
        for late_s in (0.0, DAY_S / 2)
    )
    assert np.nanmedian(wrong) > np.nanmedian(right) + 1


def test_the_clock_is_a_state_of_the_card_behind_those_of_the_network(artefact: Path) -> None:
    states = Engine.load(artefact).card.states
    assert [(s.name, s.shape, s.is_clock) for s in states[:3]] == [
        ("state.layer.0.h", (8,), False),
        ("state.clock", (1,), True),
        ("state.forecast.next", (4,), False),
    ]


def test_a_day_in_one_call_says_what_its_samples_say_one_by_one(
    artefact: Path, fortnight: Track
) -> None:
    engine = Engine.load(artefact)
    one, other = (np.array([engine.add_stream()]) for _ in range(2))
    x, time_s = fortnight.x[:OF_DAY, None], fortnight.time_s[:OF_DAY]
    together = engine.run(one, x, [time_s[0]])[0]
    single = [engine.run(other, x[t : t + 1], [time_s[t]])[0] for t in range(OF_DAY)]
    np.testing.assert_allclose(together, np.concatenate(single), atol=1e-3)


def test_a_benchmark_at_another_period_goes_by_the_times_of_its_rows(
    artefact: Path, fortnight: Track
) -> None:
    engine = Engine.load(artefact)
    time_s = MONDAY_S + 2 * QUARTER_S * np.arange(300).astype(np.float64)
    x = fortnight.x[: 2 * len(time_s) : 2]
    series = Series("a.csv", ("load", "warmth"), 2 * QUARTER_S, time_s, x, x[:0], 100)
    said = stream_through(engine, series, budget=None)
    row = np.array([engine.add_stream()])
    single = [engine.run(row, x[t : t + 1, None], [time_s[t]])[0][0, 0] for t in range(len(x))]
    warm_up = engine.card.warm_up
    np.testing.assert_allclose(said.score[warm_up:], single[warm_up:], atol=1e-3)


def test_rounding_sees_the_hours_of_all_the_recording(by_time: Run, source: Source) -> None:
    x, times_s = timed_lanes(by_time.healthy)
    (track,) = by_time.healthy.tracks
    assert x.shape[1] == len(times_s) == 8
    assert times_s[0] == track.time_s[0]
    assert times_s[-1] + QUARTER_S * (len(x) - 1) == track.time_s[-1]
    first = np.searchsorted(track.time_s, times_s)
    assert np.array_equal(x[0], track.x[first], equal_nan=True)
    moments = source.moments["layers.0.w"]
    assert moments.shape == (4 + 4, 4 + 4)
    assert np.trace(moments[4:, 4:]) == pytest.approx(2.0)  # sine² and cosine² of both cycles
    assert moments.diagonal()[[4, 6]] == pytest.approx(0.5, abs=0.15)  # of the day, all hours alike


def test_pupil_and_teacher_have_the_same_time() -> None:
    pupil = _Pupil(untrained(*BOTH), untrained(*BOTH))
    state = pupil.set_clock(pupil.fresh_state(2), [MONDAY_S + 60, MONDAY_S + 120])
    assert [tuple(s.shape) for s in state] == [(2, 4), (2, 1), (2, 4), (2, 1)]
    assert torch.equal(state[1], torch.tensor([[60.0], [120.0]]))
    assert torch.equal(state[3], state[1])


def test_calibration_is_of_the_times_of_its_samples() -> None:
    """Weights that nobody trained, and times turned by half a day: other surprises, other tails."""
    (track,) = office(4, seed=1).tracks
    turned = Track("s", track.time_s + DAY_S / 2, track.x, None)
    found = {
        c: [calibrate(untrained(*c), [piece], warm_up=8) for piece in (track, turned)]
        for c in ((), BOTH)
    }
    assert found[()][0] == found[()][1]
    assert found[BOTH][0] != found[BOTH][1]


def test_without_the_key_the_card_has_no_clock() -> None:
    states = msgspec.to_builtins(untrained().states)
    assert not any(state.get("is_clock") for state in states)
    assert untrained().set_clock(state := untrained().fresh_state(1), [MONDAY_S]) is state
