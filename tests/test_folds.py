"""Cross-validation over time: how a recording is cut, and what is said of each block."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.evaluation.folds import Folds, cross_validate, cut, write_folds
from edgernn.nets import NetworkConfig
from edgernn.recording import Recording, Track
from edgernn.simulate.pump import parse_fault, simulate_pump

if TYPE_CHECKING:
    from edgernn.run import Run

WARM_UP = 5


def recording_of(*spans: tuple[int, int]) -> Recording:
    """A stream for each span of seconds, each sample its own time."""
    tracks = [
        Track(
            f"s{i}",
            np.arange(*span, dtype=float),
            np.arange(*span, dtype=np.float32)[:, None],
            None,
        )
        for i, span in enumerate(spans)
    ]
    return Recording(("a",), ("",), tuple(tracks), 1.0, ())


def times(recording: Recording) -> list[float]:
    return sorted(t for track in recording.tracks for t in track.time_s.tolist())


@given(st.integers(2, 8), st.integers(100, 300))
def test_the_blocks_are_the_recording_each_sample_once(folds: int, samples: int) -> None:
    recording = recording_of((0, samples))
    blocks = cut(recording, folds, warm_up=WARM_UP)
    assert [t for block in blocks for t in times(block.held_out)] == times(recording)
    sizes = [len(times(block.held_out)) for block in blocks]
    assert len(sizes) == folds and max(sizes) - min(sizes) <= 1


@given(st.integers(2, 8), st.integers(100, 300))
def test_nothing_within_a_warm_up_of_the_block_is_learnt_from(folds: int, samples: int) -> None:
    recording = recording_of((0, samples))
    for block in cut(recording, folds, warm_up=WARM_UP):
        held_out = times(block.held_out)
        near = np.arange(held_out[0] - WARM_UP, held_out[-1] + WARM_UP + 1)
        assert set(times(block.learnt_from)) == set(times(recording)) - set(near.tolist())


def test_what_is_before_a_block_and_what_is_after_it_are_tracks_of_their_own() -> None:
    first, middle, last = cut(recording_of((0, 90)), 3, warm_up=WARM_UP)
    spans = [(t.time_s[0], t.time_s[-1]) for t in middle.learnt_from.tracks]
    assert spans == [(0, 24), (65, 89)]
    assert (len(first.learnt_from.tracks), len(last.learnt_from.tracks)) == (1, 1)


def test_all_streams_are_cut_at_the_same_moments() -> None:
    blocks = cut(recording_of((0, 100), (20, 120)), 4, warm_up=WARM_UP)
    for block in blocks:
        held_out, learnt = times(block.held_out), times(block.learnt_from)
        assert not [t for t in learnt if held_out[0] - WARM_UP <= t <= held_out[-1] + WARM_UP]


def test_streams_one_after_the_other_are_held_out_one_after_the_other() -> None:
    first, second = cut(recording_of((0, 50), (500, 550)), 2, warm_up=WARM_UP)
    assert [track.stream for track in first.held_out.tracks] == ["s0"]
    assert [track.stream for track in second.held_out.tracks] == ["s1"]


@pytest.mark.parametrize("folds", [-1, 0, 1, 11, 500])
def test_fewer_than_two_folds_or_more_than_there_is_data_for_are_refused(folds: int) -> None:
    with pytest.raises(EdgernnError) as caught:
        cut(recording_of((0, 100)), folds, warm_up=WARM_UP)
    assert str(caught.value) == (
        f"--folds: expected 2–10, got {folds}; there are 100 healthy samples, and a block needs "
        "10, half of them to warm up"
    )


def test_a_recording_too_short_for_any_fold_says_so() -> None:
    with pytest.raises(EdgernnError, match="the recording is too short for any, got 2"):
        cut(recording_of((0, 19)), 2, warm_up=WARM_UP)


CONFIG = Config(
    recording=(RecordingConfig(path="healthy.csv"),),
    network=NetworkConfig(hidden=8),
    training=TrainingConfig(epochs=2, streams=8, chunk=32, learning_rate=0.01, device="cpu"),
)


@pytest.fixture(scope="module")
def healthy() -> Recording:
    return simulate_pump(hours=0.8, seed=1)


@pytest.fixture(scope="module")
def folds(healthy: Recording, trained_run: "Run") -> Folds:
    source = simulate_pump(hours=0.3, seed=3, faults=[parse_fault("leak@8m")])
    blocks = cut(healthy, 2, warm_up=60)
    return cross_validate(CONFIG, blocks, rule=trained_run.card.alarm, source=source)


def test_every_fold_scores_its_block_and_finds_faults_in_the_source(folds: Folds) -> None:
    assert [fold["fold"] for fold in folds.folds] == [1, 2]
    assert [fold["held_out_hours"] for fold in folds.folds] == [pytest.approx(0.4 - 60 / 3600)] * 2
    for fold in folds.folds:
        assert fold["source_auc_roc"] > 0.7  # type: ignore[operator]  # a leak is easy
        assert -2 < fold["loss"] < 2  # type: ignore[operator]


def test_mean_and_standard_deviation_are_over_the_folds(folds: Folds) -> None:
    a, b = (fold["loss"] for fold in folds.folds)
    assert a is not None and b is not None and a != b
    assert folds.mean["loss"] == pytest.approx((a + b) / 2)
    assert folds.std["loss"] == pytest.approx(abs(a - b) / np.sqrt(2))


def test_folds_are_written_as_json_and_as_a_table(folds: Folds, tmp_path: Path) -> None:
    write_folds(tmp_path, folds)
    told = json.loads((tmp_path / "folds.json").read_bytes())
    assert told == {"folds": list(folds.folds), "mean": folds.mean, "std": folds.std}
    with (tmp_path / "folds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [fold["loss"] for fold in folds.folds]


def test_a_fold_that_is_too_short_to_learn_from_is_named(trained_run: "Run") -> None:
    blocks = cut(simulate_pump(hours=0.1, seed=1), 3, warm_up=60)
    with pytest.raises(EdgernnError, match=r"^--folds: fold 1 of 3: the recording is too short"):
        cross_validate(CONFIG, blocks, rule=trained_run.card.alarm, source=None)


def test_a_block_without_one_scored_sample_is_said(healthy: Recording, trained_run: "Run") -> None:
    (block, _) = cut(healthy, 2, warm_up=60)
    short = Track("short", np.arange(30.0), healthy.tracks[0].x[:30], np.full(30, ""))
    held_out = Recording(healthy.channels, healthy.units, (short,), 1.0, ())
    with pytest.raises(EdgernnError, match="fold 1 of 1: not one sample of the block is scored"):
        cross_validate(
            CONFIG,
            [block._replace(held_out=held_out)],
            rule=trained_run.card.alarm,
            source=None,
        )
