"""The artefact that needs no training: one file for any number of channels, as it was proven."""

import json
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from runners import EngineRunner

from edgernn.card import CARD_KEY, MOST_CHANNELS, Binding, decode_card
from edgernn.errors import EdgernnError
from edgernn.nets import ranking
from edgernn.nets.checks import TorchRunner, check_chunk_invariance, check_same_detector
from edgernn.nets.general import ACCEPTED, General
from edgernn.times import FIRST_MONDAY_S
from edgernn_device.engine import Engine
from edgernn_device.golden import GOLDEN_KEY
from edgernn_device.shipped import GENERAL_FILE
from edgernn_export.general import build_general, prove_general

Floats = NDArray[np.float32]

SHIPPED = GENERAL_FILE.read_bytes()


def stream(samples: int, channels: int) -> Floats:
    """(T, 2, C) noise around far levels, with a channel shifted and one missing."""
    generator = np.random.default_rng(channels)
    x = 50 + generator.standard_normal((samples, 2, channels))
    x[450:470, :, 0] += 9
    x[200:220, 1, -1] = np.nan
    return x.astype(np.float32)


def without_golden(artefact: bytes) -> bytes:
    """What another CPU's sums do not change."""
    model = onnx.load_from_string(artefact)
    notes = [one for one in model.metadata_props if one.key != GOLDEN_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(notes)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def test_what_is_shipped_is_what_make_pretrained_writes() -> None:
    """If this fails after a change of the detector: `make pretrained`."""
    built = build_general()
    assert without_golden(built) == without_golden(SHIPPED)
    assert build_general() == built


def test_what_is_shipped_is_proven() -> None:
    assert not prove_general(SHIPPED).failures


@pytest.mark.parametrize("channels", [1, 2, MOST_CHANNELS])
def test_one_file_serves_any_number_of_channels(channels: int) -> None:
    names = tuple(f"c{i}" for i in range(channels))
    engine = EngineRunner(Engine(SHIPPED, binding=Binding(names, 1.0)))
    x = stream(500, channels)
    check_same_detector(TorchRunner(General(channels)), engine, x)
    check_chunk_invariance(engine, x, [1, 2, 170, 460])
    said, _ = engine.run(x, engine.fresh(2))
    assert said["score"][450:470].max() > said["score"][420:450].max() + 0.5


def test_a_long_excursion_of_one_view_opens_the_guard_alike() -> None:
    engine = EngineRunner(Engine(SHIPPED, binding=Binding(("one",), 1.0)))
    torch_runner = TorchRunner(General(1))
    x = stream(600, 1)
    _, states = torch_runner.run(x[:400], torch_runner.fresh(2))
    states[-1][:, 0, ranking.BINS] = 2 * ACCEPTED
    said, after = torch_runner.run(x[400:], states)
    by_engine, after_engine = engine.run(x[400:], states)
    np.testing.assert_allclose(by_engine["score"], said["score"], atol=1e-3)
    np.testing.assert_allclose(after_engine[0], after[0], rtol=1e-3, atol=1e-3)


def test_the_time_of_day_is_that_of_the_samples_not_of_their_number() -> None:
    """A sensor that sends every 15 minutes under a period of 14: 14 days later 24 hours off."""
    hours = np.arange(1400) * 0.25 % 24
    is_at_work = (hours >= 8) & (hours < 16)
    x = np.random.default_rng(0).standard_normal((1400, 1, 1)).astype(np.float32)
    x[is_at_work] += 10
    is_idle = np.zeros(1400, bool)
    is_idle[12 * 96 + 40 : 12 * 96 + 48] = True  # at noon, as it is every night
    x[is_idle] -= 10

    def score(times_s: Sequence[float]) -> Floats:
        engine = Engine(SHIPPED, binding=Binding(("one",), 14 * 60.0))
        row = np.array([engine.add_stream()])
        said = [engine.run(row, x[t : t + 1], times_s[t : t + 1])[0] for t in range(len(x))]
        return np.concatenate(said)[:, 0]

    told, counted = score((FIRST_MONDAY_S + 900.0 * np.arange(1400)).tolist()), score(())
    before = slice(6 * 96, 12 * 96)
    assert told[is_idle].max() > 1.2 * told[before].max()
    assert counted[is_idle].max() < counted[before].max()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"any_channels": 65}, "any_channels outside"),
        ({"any_channels": 0}, "no channels"),
        ({"task": "forecast", "horizon": 3, "tails": ()}, "any channels are for anomaly"),
    ],
)
def test_a_card_that_contradicts_itself_is_damaged(change: dict[str, object], why: str) -> None:
    model = onnx.load_from_string(SHIPPED)
    (text,) = (one.value for one in model.metadata_props if one.key == CARD_KEY)
    with pytest.raises(EdgernnError, match=why):
        decode_card(json.dumps(json.loads(text) | change), where="x.onnx")
