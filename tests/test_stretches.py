"""Recordings into the stretches that training sees: along time, disjoint, and without faults."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn.config import Config, RecordingConfig, ScoreConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track, write_recording
from edgernn.training.stretches import Stretches, read_recordings, side_by_side, split

LEAD = 5
"""Samples before a calibration piece that only warm the detector up."""


def track(samples: int, *, start_s: float = 0.0, stream: str = "a") -> Track:
    """Each value tells its stream's sample number."""
    x = np.arange(samples, dtype=np.float32).repeat(2).reshape(samples, 2)
    return Track(stream, start_s + np.arange(samples, dtype=np.float64), x, None)


def recording(*tracks: Track, period_s: float = 1.0, channels: str = "pq") -> Recording:
    return Recording(tuple(channels), ("", ""), tracks, period_s, ())


def config(*paths: str, validation: float = 0.2, calibration: float = 0.3) -> Config:
    return Config(
        recording=tuple(RecordingConfig(path=path) for path in paths),
        training=TrainingConfig(validation=validation, calibration=calibration),
        score=ScoreConfig(window=LEAD),
    )


def first_values(pieces: list[Track]) -> list[float]:
    return [float(value) for piece in pieces for value in piece.x[:, 0]]


def parts(stretches: Stretches) -> list[list[float]]:
    return [
        first_values(pieces)
        for pieces in (stretches.fit, stretches.validation, stretches.calibration)
    ]


def write(folder: Path, name: str, *, period_s: float = 1.0, channels: str = "pq") -> None:
    made = track(20)
    times = made.time_s * period_s
    write_recording(folder / name, recording(Track("a", times, made.x, None), channels=channels))


@given(st.integers(40, 2000), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_a_recording_is_cut_along_time_into_disjoint_parts(
    samples: int, validation: float, calibration: float
) -> None:
    asked = config(validation=validation, calibration=calibration)
    fit, held_out, end = parts(split(recording(track(samples)), asked))
    assert [*fit, *held_out, *end[LEAD:]] == list(range(samples))
    assert len(held_out) == pytest.approx(validation * samples, abs=1)
    assert len(end) - LEAD == pytest.approx(calibration * samples, abs=1)


def test_a_calibration_piece_begins_one_window_early_to_warm_up() -> None:
    _, held_out, end = parts(split(recording(track(100)), config()))
    assert end[:LEAD] == held_out[-LEAD:]


def test_a_calibration_piece_at_the_beginning_of_a_track_has_no_samples_before_it() -> None:
    times = np.concatenate([np.arange(70.0), np.arange(1000.0, 1030.0)])
    x = np.ones((100, 2), np.float32)
    made = split(recording(Track("a", times, x, None)), config())
    assert [piece.time_s[0] for piece in made.calibration] == [1000.0]


def test_every_stream_is_cut_by_itself() -> None:
    made = split(recording(track(100), track(50, stream="b")), config())
    assert [len(piece.x) for piece in made.fit] == [50, 25]
    assert [len(piece.x) for piece in made.calibration] == [30 + LEAD, 15 + LEAD]


def test_a_long_gap_separates_pieces_and_a_short_one_is_missing_samples() -> None:
    times = np.concatenate([np.arange(50), np.arange(53, 100), np.arange(1000, 1100)])
    x = np.ones((len(times), 2), np.float32)
    made = split(recording(Track("a", times.astype(float), x, None)), config())
    assert [len(piece.x) for piece in made.fit] == [100]
    assert np.isnan(made.fit[0].x[50:53]).all()
    assert [piece.time_s[0] for piece in made.validation] == [1000]
    assert [piece.time_s[0] for piece in made.calibration] == [1040 - LEAD]


@pytest.mark.parametrize(
    ("samples", "nothing"), [(1, "to fit"), (4, "for validation"), (6, "for validation")]
)
def test_too_short_a_recording_is_a_sentence(samples: int, nothing: str) -> None:
    with pytest.raises(EdgernnError, match=f"too short: nothing is left {nothing}"):
        split(recording(track(samples)), config())


@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.integers(1, 8), st.integers(2, 30))
def test_side_by_side_every_sample_has_its_place_in_the_order_of_time(
    lengths: list[int], streams: int, at_least: int
) -> None:
    pieces = [track(length) for length in lengths]
    together = side_by_side(pieces, streams, at_least=at_least).x.numpy()
    lanes = [lane[~np.isnan(lane)].tolist() for lane in together[:, :, 0].T]
    assert all(lane == sorted(lane) for lane in lanes)
    kept = [value for lane in lanes for value in lane]
    every = first_values(pieces)
    # a lone sample at the end of a piece has no successor to forecast
    lost = len(every) - len(kept)
    assert lost == sum(length % len(together) == 1 for length in lengths if len(together) > 1)
    assert set(kept) <= set(every)


def test_side_by_side_there_are_about_as_many_streams_as_asked_for() -> None:
    assert side_by_side([track(1000)], 8, at_least=2).x.shape == (125, 8, 2)


def test_side_by_side_pieces_are_never_cut_shorter_than_a_chunk() -> None:
    assert side_by_side([track(100)], 32, at_least=50).x.shape == (50, 2, 2)


def test_side_by_side_the_end_of_a_shorter_piece_is_missing() -> None:
    together = side_by_side([track(10), track(4)], 2, at_least=2).x.numpy()
    assert together.shape == (7, 3, 2)
    assert np.isnan(together[3:, 1]).all()
    assert np.isnan(together[4:, 2]).all()
    assert np.isnan(together).sum() == (4 + 3) * 2


def test_rows_labelled_as_faults_are_missing_and_it_is_noted(tmp_path: Path) -> None:
    made = track(10)
    label = np.array([""] * 4 + ["leak"] * 3 + [""] * 3)
    write_recording(tmp_path / "a.csv", recording(Track("a", made.time_s, made.x, label)))
    found = read_recordings(config("a.csv"), tmp_path)
    assert np.flatnonzero(np.isnan(found.tracks[0].x).all(axis=1)).tolist() == [4, 5, 6]
    assert found.tracks[0].x[[3, 7], 0].tolist() == [3, 7]
    assert found.notes == ("a.csv: 3 rows labelled as faults are left out",)


def test_labels_in_some_files_only_are_gone_once_faults_are_left_out(tmp_path: Path) -> None:
    made = track(10)
    healthy = np.array([""] * 10)
    write_recording(tmp_path / "a.csv", recording(Track("a", made.time_s, made.x, healthy)))
    write(tmp_path, "b.csv")
    found = read_recordings(config("a.csv", "b.csv"), tmp_path)
    assert [one.label for one in found.tracks] == [None, None]


def test_a_pattern_reads_every_file_it_matches(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        write(tmp_path, name)
    found = read_recordings(config("*.csv"), tmp_path)
    assert [len(one.x) for one in found.tracks] == [20, 20]


def test_a_pattern_that_matches_nothing_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdgernnError, match=r"^recording: no file matches \*\.csv, x/\*$"):
        read_recordings(config("*.csv", "x/*"), tmp_path)


def test_only_the_first_rows_are_taken_if_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    asked = Config(recording=(RecordingConfig(path="a.csv", first_rows=7),))
    assert first_values(list(read_recordings(asked, tmp_path).tracks)) == list(range(7))


def test_recordings_with_other_channels_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    write(tmp_path, "b.csv", channels="pr")
    with pytest.raises(EdgernnError, match=r"b\.csv: channels p, r; .*a\.csv has p, q$"):
        read_recordings(config("a.csv", "b.csv"), tmp_path)


def test_recordings_that_differ_in_period_are_refused_with_both(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    write(tmp_path, "b.csv", period_s=2.0)
    with pytest.raises(EdgernnError) as caught:
        read_recordings(config("a.csv", "b.csv"), tmp_path)
    assert str(caught.value) == (
        f"the recordings differ in period: {tmp_path / 'a.csv'} has 1 s, "
        f"{tmp_path / 'b.csv'} 2 s; set period_s"
    )


def test_a_period_that_is_set_settles_the_difference(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    write(tmp_path, "b.csv", period_s=2.0)
    asked = Config(
        recording=(RecordingConfig(path="a.csv"), RecordingConfig(path="b.csv")), period_s=2.0
    )
    assert read_recordings(asked, tmp_path).period_s == 2.0


def test_periods_within_a_tenth_are_one(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    write(tmp_path, "b.csv", period_s=1.05)
    assert read_recordings(config("*.csv"), tmp_path).period_s == pytest.approx(1.025)


def test_files_with_other_units_are_refused(tmp_path: Path) -> None:
    for name, unit in (("a", "bar"), ("b", "psi")):
        track = Track(name, np.arange(20.0), np.ones((20, 1), np.float32), None)
        write_recording(tmp_path / f"{name}.csv", Recording(("p",), (unit,), (track,), 1.0, ()))
    config = Config(recording=(RecordingConfig(path="*.csv"),))
    with pytest.raises(EdgernnError, match=r"units psi; .* has bar"):
        read_recordings(config, tmp_path)
