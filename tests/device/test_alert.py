"""The alert: its JSON, its id, and the sentence in it."""

import math

import msgspec
import numpy as np
import pytest
from cards import make_card

from edgernn.alarm import Edge
from edgernn.card import Channel
from edgernn_device.alert import Alert, ChannelPart, Model, make_alert, top_channels

ONSET_S = 1_795_256_100.0
CARD = make_card(
    channels=(
        Channel("flow", "l/min", 0, 1),
        Channel("heat", "°C", 0, 1),
        Channel("noise", "", 0, 1),
        Channel("speed", "1/min", 0, 1),
    )
)


def alert(
    *,
    is_on: bool = True,
    after_s: float = 0.0,
    score: float = 6.5,
    x: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0),
    contribution: tuple[float, ...] = (0.1, 0.6, 0.05, 0.25),
    stream: str = "pump",
) -> Alert:
    expected = np.array([10.0, 20.0, 30.0, 40.0], np.float32)
    return made(
        Edge(is_on=is_on, time_s=ONSET_S + after_s, onset_s=ONSET_S, score=score, threshold=5.0),
        top_channels(CARD, x, expected, np.array(contribution, np.float32)),
        stream=stream,
    )


def made(edge: Edge, parts: tuple[ChannelPart, ...], *, stream: str = "pump") -> Alert:
    return make_alert(
        edge,
        parts,
        node="pi",
        stream=stream,
        model=Model("pump-v1", "abc"),
    )


def test_an_alarm_that_a_gap_ended_is_not_called_back_to_normal() -> None:
    ended = made(
        Edge(is_on=False, time_s=ONSET_S + 90, onset_s=ONSET_S, score=7.0, threshold=5.0), ()
    )
    assert ended.sentence == (
        "pump starts afresh after a gap, 1 min 30 s into an alarm, which ends unresolved."
    )


def test_an_alert_has_these_keys_as_json() -> None:
    found = msgspec.json.decode(msgspec.json.encode(alert(after_s=2.0)))
    assert found == {
        "id": "pi/pump:2026-11-21T10:15:00.000Z:on",
        "node": "pi",
        "stream": "pump",
        "kind": "anomaly",
        "edge": "on",
        "onset": "2026-11-21T10:15:00.000Z",
        "time": "2026-11-21T10:15:02.000Z",
        "score": 6.5,
        "threshold": 5.0,
        "severity": "warning",
        "channels": [
            {"name": "heat", "unit": "°C", "observed": 2.0, "expected": 20.0, "contribution": 0.6},
            {
                "name": "speed",
                "unit": "1/min",
                "observed": 4.0,
                "expected": 40.0,
                "contribution": 0.25,
            },
            {
                "name": "flow",
                "unit": "l/min",
                "observed": 1.0,
                "expected": 10.0,
                "contribution": 0.1,
            },
        ],
        "model": {"name": "pump-v1", "hash": "abc"},
        "sentence": (
            "pump behaves unusually: heat 2 °C (expected 20 °C, 60% of the surprise), "
            "speed 4 1/min (expected 40 1/min, 25% of the surprise). Score 6.5, threshold 5.0."
        ),
    }


def test_an_alert_reads_back_as_it_was_written() -> None:
    written = alert()
    assert msgspec.json.decode(msgspec.json.encode(written), type=Alert) == written


def test_an_id_is_the_same_for_the_same_stream_onset_and_edge() -> None:
    assert alert(score=6.0).id == alert(score=9.0, after_s=5.0).id
    assert len({alert().id, alert(is_on=False).id, alert(stream="b").id}) == 3


def test_at_least_one_channel_is_named_even_if_none_tells_much() -> None:
    found = alert(contribution=(0.14, 0.14, 0.14, 0.14)).sentence
    assert found.startswith("pump behaves unusually: flow 1 l/min (expected 10 l/min, 14% of")


def test_a_missing_value_is_null_and_said_to_be_missing() -> None:
    found = alert(x=(1.0, math.nan, 3.0, 4.0))
    assert found.channels[0].observed is None
    assert "heat missing (expected 20 °C" in found.sentence


def test_a_channel_without_a_unit_is_a_bare_number() -> None:
    found = alert(contribution=(0.0, 0.0, 1.0, 0.0)).sentence
    assert "noise 3 (expected 30, 100% of the surprise)" in found


@pytest.mark.parametrize(
    ("after_s", "duration"),
    [
        (0.4, "0 s"),
        (59.0, "59 s"),
        (60.0, "1 min 0 s"),
        (125.0, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (100_000.0, "27 h 46 min"),
    ],
)
def test_an_off_alert_says_how_long_it_was(after_s: float, duration: str) -> None:
    found = alert(is_on=False, after_s=after_s, score=8.25)
    assert found.sentence == f"pump is back to normal after {duration}. Highest score 8.2."


@pytest.mark.parametrize(("score", "severity"), [(7.9, "warning"), (8.0, "critical")])
def test_a_score_a_thousand_times_rarer_is_critical(score: float, severity: str) -> None:
    assert alert(score=score).severity == severity
