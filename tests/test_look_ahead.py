"""A detector that speaks late of a sample: alerts carry that sample's time and values."""

import math

import pytest
from runners import NAMES, healthy
from test_detectors import engine

from edgernn.alarm import Limits
from edgernn.times import parse_time
from edgernn_device.alarms import Alarms
from edgernn_device.alert import Alert
from edgernn_device.monitor import Monitor
from edgernn_device.payload import RawSample
from edgernn_device.stream import StreamRule

FAULT = 300
"""Sample at which the second channel jumps."""
SHIFT = 3.0
BEGIN_S = 1.7e9


@pytest.fixture(scope="module", params=["gru", "bidirectional", "encoder-decoder"])
def alerts(request: pytest.FixtureRequest) -> tuple[int, list[Alert], list[list[float]]]:
    """The card's delay, what is raised when every sample is given on its own, and the samples."""
    made = engine(str(request.param), "none")
    card = made.card
    rule = StreamRule(1.0, card.warm_up, card.max_gap_s, card.delay)
    limits = Limits(enter=8.0, leave=6.0, min_duration_s=0.0, recover_s=5.0, cooldown_s=0.0)
    monitor = Monitor(made, Alarms(made, limits, node="pi"), rule=rule, max_streams=1)
    x = healthy(600, 1, seed=6)[:, 0]
    x[FAULT:, 1] += SHIFT
    rows = x.tolist()
    found: list[Alert] = []
    for t, row in enumerate(rows):
        sample = RawSample(BEGIN_S + t, None, dict(zip(NAMES, row, strict=True)))
        found += monitor.take([("a", sample)]).alerts
    return card.delay, found, rows


def test_the_onset_is_the_faults_first_sample_however_late_the_score_comes(
    alerts: tuple[int, list[Alert], list[list[float]]],
) -> None:
    assert parse_time(alerts[1][0].onset) == BEGIN_S + FAULT


def test_the_values_in_the_alert_are_those_of_the_onset(
    alerts: tuple[int, list[Alert], list[list[float]]],
) -> None:
    _, found, rows = alerts
    top = found[0].channels[0]
    assert top.name == NAMES[1]
    assert top.observed == pytest.approx(rows[FAULT][1])
    expected = top.expected or math.nan
    assert math.isfinite(expected) and abs(expected - rows[FAULT][1]) > SHIFT / 2


def test_the_delay_is_the_look_ahead() -> None:
    assert engine("bidirectional", "none").card.delay == 7
