"""Training: what it minimises, that it repeats itself exactly, and what it refuses."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from edgernn.card import AlarmRule
from edgernn.config import Config, RecordingConfig, TrainingConfig
from edgernn.errors import EdgernnError
from edgernn.nets import Detector, NetworkConfig
from edgernn.recording import Recording, Track
from edgernn.run import EpochLoss, Run, build_detector
from edgernn.simulate.pump import simulate_pump
from edgernn.training.fit import ALONE, _train_epoch, fit, fit_scaling, mean_loss
from edgernn.training.optimizer import Optimizer
from edgernn.training.stretches import Lanes, side_by_side, split
from edgernn.training.train import train

TOLERANCE = 1e-5
"""Relative, of a sum of float32 in another order; 1e-6 was measured."""


def make_config(*, seed: int = 0, epochs: int = 3, patience: int = 20) -> Config:
    return Config(
        recording=(RecordingConfig(path="a.csv"),),
        network=NetworkConfig(hidden=8),
        training=TrainingConfig(
            seed=seed, epochs=epochs, patience=patience, streams=8, chunk=32, learning_rate=0.01
        ),
    )


def pump(hours: float = 0.4) -> Recording:
    return simulate_pump(hours=hours, seed=1)


def weights(run: Run) -> bytes:
    return save({name: value.contiguous() for name, value in run.detector.state_dict().items()})


@pytest.fixture(scope="module")
def trained() -> tuple[Run, list[EpochLoss]]:
    return train(make_config(), pump(), name="pump")


def test_the_loss_falls_with_every_epoch(trained: tuple[Run, list[EpochLoss]]) -> None:
    _, losses = trained
    assert [loss.epoch for loss in losses] == [1, 2, 3]
    assert losses[0].training > losses[1].training > losses[2].training
    assert losses[2].validation < losses[0].validation


def test_bf16_is_refused_on_the_cpu() -> None:
    wanted = make_config(epochs=1)
    training = msgspec.structs.replace(wanted.training, precision="bf16", device="cpu")
    with pytest.raises(EdgernnError, match=r'^training\.precision: "bf16" needs CUDA'):
        train(msgspec.structs.replace(wanted, training=training), pump(), name="p")


def test_epochs_with_bf16_products_learn_nearly_the_same_and_keep_float32_weights() -> None:
    """On the CPU, which `fit` refuses only because it is slow there."""
    config = make_config()
    stretches = split(pump(), config)
    streams, chunk = config.training.streams, config.training.chunk
    lanes = side_by_side(stretches.fit, streams, at_least=chunk)
    streams = lanes.x.shape[1]
    lost = {}
    for bf16 in (False, True):
        detector = build_detector(config, pump().channels, period_s=1.0)
        fit_scaling(detector, stretches.fit)
        optimizer = Optimizer(detector, config.training)
        for epoch in range(1, 5):
            lost[bf16] = _train_epoch(
                detector, lanes, config.training, optimizer, streams, ALONE, epoch=epoch, bf16=bf16
            )
        assert all(p.dtype == torch.float32 for p in detector.parameters())
    assert lost[True] == pytest.approx(lost[False], abs=0.01)  # 0.001 was measured
    assert lost[True] != lost[False]


def test_the_same_seed_gives_the_same_bytes_of_weights(
    trained: tuple[Run, list[EpochLoss]],
) -> None:
    torch.manual_seed(12345)  # the global generator must not matter
    again, losses = train(make_config(), pump(), name="pump")
    assert weights(again) == weights(trained[0])
    assert losses == trained[1]


def test_another_seed_gives_other_weights(trained: tuple[Run, list[EpochLoss]]) -> None:
    assert weights(train(make_config(seed=1), pump(), name="pump")[0]) != weights(trained[0])


def test_every_epoch_is_told_as_it_ends() -> None:
    told: list[EpochLoss] = []
    _, losses = train(make_config(epochs=2), pump(), name="pump", on_epoch=told.append)
    assert told == losses


def test_the_weights_are_those_of_the_best_epoch_and_training_ends_after_it() -> None:
    run, losses = train(make_config(epochs=60, patience=1), pump(), name="pump")
    best = min(losses, key=lambda loss: loss.validation)
    assert losses[-1].epoch == best.epoch + 1
    only, _ = train(make_config(epochs=best.epoch, patience=1), pump(), name="pump")
    assert weights(run) == weights(only)


def test_an_epoch_carries_the_state_over_its_chunks() -> None:
    config = make_config(epochs=1)
    training = msgspec.structs.replace(config.training, learning_rate=1e-7, hide=0.0)
    recording = pump()
    stretches = split(recording, config)
    detector = build_detector(config, recording.channels, period_s=recording.period_s)
    fit_scaling(detector, stretches.fit)
    whole = mean_loss(
        detector, side_by_side(stretches.fit, training.streams, at_least=training.chunk)
    )
    (loss,) = fit(detector, stretches, training, lambda _: None)
    assert loss.training == pytest.approx(whole, rel=1e-4)  # the weights hardly moved


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 39), max_size=6, unique=True), st.integers(0, 100), st.integers(1, 3)
)
def test_the_loss_of_a_recording_is_the_sum_over_its_chunks_with_the_state_carried_on(
    cuts: list[int], seed: int, streams: int
) -> None:
    detector = Detector(("a", "b"), NetworkConfig(hidden=6), span=10, seed=seed)
    x = torch.randn(40, streams, 2, generator=torch.Generator().manual_seed(seed))
    x[5, 0, 0] = torch.nan
    hidden = torch.zeros_like(x)
    with torch.no_grad():
        whole, values, end = detector.loss(x, hidden, *detector.fresh_state(streams))
        state, total, count = detector.fresh_state(streams), 0.0, 0.0
        for chunk in np.split(np.arange(40), sorted(cuts)):
            loss, number, state = detector.loss(x[chunk], hidden[chunk], *state)
            # the views' states play no part in the loss
            total, count = total + float(loss), count + float(number)
    assert count == float(values)
    assert total == pytest.approx(float(whole), rel=TOLERANCE)
    for a, b in zip(state, end, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_chunk_with_the_state_forgotten_has_another_loss() -> None:
    detector = Detector(("a", "b"), NetworkConfig(hidden=6), span=10, seed=0)
    x = torch.randn(40, 1, 2, generator=torch.Generator().manual_seed(0))
    whole = mean_loss(detector, Lanes(x))
    halves = sum(mean_loss(detector, Lanes(half)) for half in (x[:20], x[20:])) / 2
    assert abs(halves - whole) > 1e-3


def test_a_value_hidden_from_the_network_is_still_asked_for() -> None:
    detector = Detector(("a", "b"), NetworkConfig(hidden=6), span=10, seed=0)
    x = torch.randn(10, 1, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen, unseen = (
            detector.loss(x, torch.full_like(x, share), *detector.fresh_state(1))
            for share in (0, 1)
        )
    assert (float(seen[1]), float(unseen[1])) == (20.0, 20.0)
    assert float(seen[0]) != float(unseen[0])


def test_missing_values_are_not_asked_for() -> None:
    detector = Detector(("a", "b"), NetworkConfig(hidden=6), span=10, seed=0)
    x = torch.full((10, 1, 2), torch.nan)
    with torch.no_grad():
        loss, values, _ = detector.loss(x, torch.zeros_like(x), *detector.fresh_state(1))
    assert (float(loss), float(values)) == (0.0, 0.0)


def test_scaling_is_each_channels_mean_and_deviation_without_what_is_missing() -> None:
    detector = Detector(("a", "b"), NetworkConfig(hidden=4), span=10, seed=0)
    x = np.array([[1, 1000], [3, np.nan], [np.nan, 3000]], np.float32)
    fit_scaling(detector, [Track("a", np.arange(3.0), x, None)])
    assert detector.centre.tolist() == [2, 2000]
    assert detector.scale.tolist() == [1, 1000]


def test_a_channel_that_never_moved_has_a_scale_above_0() -> None:
    detector = Detector(("a",), NetworkConfig(hidden=4), span=10, seed=0)
    fit_scaling(detector, [Track("a", np.arange(3.0), np.full((3, 1), 50, np.float32), None)])
    assert float(detector.scale[0]) == pytest.approx(5e-5)


def test_a_learning_rate_that_diverges_is_a_sentence() -> None:
    wild = make_config()
    msgspec.structs.force_setattr(wild.training, "learning_rate", 1e30)  # 1 is not enough here
    with pytest.raises(EdgernnError) as caught:
        train(wild, pump(), name="pump")
    assert str(caught.value) == (
        "training diverged in epoch 1; lower training.learning_rate (now 1e+30)"
    )


@pytest.mark.parametrize(
    ("hours", "sentence"),
    [
        (0.001, "the recording is too short: nothing is left"),
        (0.2, "the recording is too short: 180 samples are left to calibrate with, at least 200"),
    ],
)
def test_too_short_a_recording_is_a_sentence(hours: float, sentence: str) -> None:
    with pytest.raises(EdgernnError) as caught:
        train(make_config(epochs=1), pump(hours), name="pump")
    assert str(caught.value).startswith(sentence)


def test_a_channel_without_a_value_is_named() -> None:
    made = pump()
    (track,) = made.tracks
    x = track.x.copy()
    x[:, 2] = np.nan
    empty = Recording(
        made.channels, made.units, (Track("a", track.time_s, x, None),), made.period_s, ()
    )
    with pytest.raises(EdgernnError, match=r"^channel flow: no value in the part that is learnt"):
        train(make_config(epochs=1), empty, name="pump")


def test_the_card_says_what_was_trained(trained: tuple[Run, list[EpochLoss]]) -> None:
    card = trained[0].card
    assert (card.name, card.network, card.period_s, card.warm_up) == ("pump", "6 → gru 8", 1.0, 60)
    assert card.channel_names == pump().channels
    assert card.alarm == AlarmRule.for_period(1.0)
    assert card.provenance.seed == 0


def test_the_cards_ranges_are_those_of_what_was_learnt_from(
    trained: tuple[Run, list[EpochLoss]],
) -> None:
    x = pump().tracks[0].x
    learnt = x[: round(0.6 * len(x))]
    for c, channel in enumerate(trained[0].card.channels):
        assert channel.low == pytest.approx(float(learnt[:, c].min()))
        assert channel.high == pytest.approx(float(learnt[:, c].max()))
        assert channel.longest_still == 1  # its noise never rests


def test_the_healthy_stretch_is_the_end_and_one_window_before_it(
    trained: tuple[Run, list[EpochLoss]],
) -> None:
    x = pump().tracks[0].x
    (healthy,) = trained[0].healthy.tracks
    lead = trained[0].config.score.window
    assert np.array_equal(healthy.x, x[-lead - round(0.25 * len(x)) :])


def test_one_exceedance_in_a_hundred_scores_two_on_healthy_data(trained_run: Run) -> None:
    shares = []
    with torch.no_grad():
        for track in trained_run.healthy.tracks:
            x = torch.from_numpy(track.x).unsqueeze(1)
            score = trained_run.detector(x, *trained_run.detector.fresh_state(1))[0]
            shares.append(float((score[trained_run.card.warm_up :] > 2).float().mean()))
    assert np.mean(shares) == pytest.approx(0.01, abs=0.005)


def test_training_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(make_config(epochs=1), pump(), name="pump")
    assert list(tmp_path.iterdir()) == []


def test_pieces_shorter_than_the_window_are_a_sentence() -> None:
    made = pump(1.0)
    (whole,) = made.tracks
    tracks = tuple(
        Track(f"s{i}", whole.time_s[i : i + 50], whole.x[i : i + 50], None)
        for i in range(0, len(whole.x), 50)
    )
    short = Recording(made.channels, made.units, tracks, 1.0, ())
    with pytest.raises(EdgernnError, match="record longer"):
        train(make_config(epochs=1), short, name="p")


def test_a_channel_that_is_away_in_the_part_for_calibration_is_named() -> None:
    made = pump()
    (track,) = made.tracks
    x = track.x.copy()
    x[len(x) // 2 :, 2] = np.nan
    gone = Recording(
        made.channels, made.units, (Track("a", track.time_s, x, None),), made.period_s, ()
    )
    with pytest.raises(EdgernnError, match=r"^channel flow: no value in the part that"):
        train(make_config(epochs=1), gone, name="p")
