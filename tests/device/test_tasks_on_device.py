"""Classes and forecasts: what is said of a stream, and when. No engine, no socket."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from cards import make_card
from hypothesis import given
from hypothesis import strategies as st

from edgernn.card import AlarmConfig
from edgernn.errors import EdgernnError
from edgernn.times import format_time
from edgernn_device.classes import Classes, StreamClass
from edgernn_device.config import AgentConfig, ClassifyConfig, ForecastConfig
from edgernn_device.engine import Engine
from edgernn_device.forecasts import Forecast, Forecasts
from edgernn_device.lines import Forecast as ForecastLine
from edgernn_device.lines import StreamClass as ClassLine
from edgernn_device.lines import line_of
from edgernn_device.monitor import Outcome, Task
from edgernn_device.stream import Step, Stream, StreamRule
from edgernn_device.tasks import make_task

CLASSES = ("healthy", "bearing", "leak")
CLASSIFIER = make_card(task="classify", classes=CLASSES, tails=())
FORECASTER = make_card(task="forecast", horizon=3, period_s=10.0, tails=())
RULE = ClassifyConfig(confirm=3, min_probability=0.5)
NAN = float("nan")


def engine_of(card: Any) -> Engine:
    """As much of an engine as a task looks at."""
    return cast("Engine", SimpleNamespace(card=card, hash="ab"))


class Feed:
    """One stream, a sample a period, as the monitor would hand it on."""

    def __init__(
        self, task: Task, *, period_s: float = 1.0, warm_up: int = 0, delay: int = 0
    ) -> None:
        self.task = task
        self.stream = Stream("a", 0, StreamRule(period_s, warm_up, 60.0, delay))
        self.outcome = Outcome(alerts=[], scores={}, notices=[], streams={})
        self._period_s = period_s
        self._now_s = 0.0
        task.begin(self.stream)

    def send(self, said: Sequence[Any], *, x: float = 1.0) -> "Feed":
        """`said`: each output, (T, …); every value observed is `x`."""
        arrays = [np.asarray(one, np.float32) for one in said]
        steps = []
        for _ in arrays[0]:
            self.stream.last_s = self._now_s
            steps.append(Step(time_s=self._now_s, x=(x, x), is_fresh=False))
            self._now_s += self._period_s
        self.task.hear(self.stream, steps, arrays, self.outcome)
        return self

    def gap(self) -> None:
        self.task.start_afresh(self.stream, self.outcome)
        self.stream.start_afresh()

    @property
    def classes(self) -> list[tuple[str | None, str, str]]:
        """Name, since and time of every class said, the times without their date."""
        said = [cast("StreamClass", notice.content) for notice in self.outcome.notices]
        return [(one.name, one.since[17:19], one.time[17:19]) for one in said]

    @property
    def forecasts(self) -> list[Forecast]:
        return [cast("Forecast", notice.content) for notice in self.outcome.notices]


def classes(*, warm_up: int = 0, delay: int = 0) -> Feed:
    task = Classes(engine_of(CLASSIFIER), RULE, node="pi")
    return Feed(task, warm_up=warm_up, delay=delay)


def sure(*names: str, p: float = 0.9) -> list[list[list[float]]]:
    """Probabilities (T, L) that say these classes; "" is a sample of which nothing was observed."""
    rest = (1 - p) / 2
    return [
        [
            [NAN] * 3 if not name else [p if one == name else rest for one in CLASSES]
            for name in names
        ]
    ]


def test_a_class_is_said_once_it_is_confirmed_and_only_when_it_changes() -> None:
    feed = classes().send(sure(*["healthy"] * 5, *["leak"] * 6, *["healthy"] * 3))
    assert feed.classes == [
        ("healthy", "00", "02"),
        ("leak", "05", "07"),
        ("healthy", "11", "13"),
    ]


def test_single_samples_of_another_class_change_nothing() -> None:
    feed = classes().send(sure(*["healthy"] * 3, *["leak", "leak", "healthy"] * 5))
    assert [name for name, *_ in feed.classes] == ["healthy"]


def test_samples_that_disagree_among_themselves_change_nothing() -> None:
    feed = classes().send(sure(*["healthy"] * 3, *["leak", "bearing"] * 5))
    assert [name for name, *_ in feed.classes] == ["healthy"]


def test_an_unsure_sample_does_not_confirm() -> None:
    feed = classes().send(sure(*["leak"] * 9, p=0.45))
    assert feed.classes == []


def test_an_unobserved_sample_neither_confirms_nor_interrupts() -> None:
    feed = classes().send(sure("leak", "", "leak", "", "", "leak"))
    assert feed.classes == [("leak", "00", "05")]


def test_samples_of_the_warm_up_do_not_count() -> None:
    feed = classes(warm_up=4).send(sure("leak"))
    assert feed.task.state_of(feed.stream).state == "warming_up"
    feed.send(sure(*["leak"] * 6))
    assert feed.classes == [("leak", "04", "06")]
    state = feed.task.state_of(feed.stream)
    assert (state.state, state.score, state.since) == ("running", None, format_time(4.0))


def test_a_class_said_late_carries_the_time_of_its_own_sample() -> None:
    feed = classes(delay=2).send(sure("", "", *["leak"] * 3))
    assert feed.classes == [("leak", "00", "02")]


def test_after_a_gap_the_class_is_unknown_until_confirmed_again() -> None:
    feed = classes(warm_up=1).send(sure(*["leak"] * 4))
    feed.gap()
    feed.gap()
    feed.send(sure(*["leak"] * 4))
    assert feed.classes == [("leak", "01", "03"), (None, "03", "03"), ("leak", "05", "07")]


@given(st.lists(st.sampled_from(["", *CLASSES]), min_size=1, max_size=40), st.data())
def test_any_split_of_the_samples_says_the_same_classes(names: list[str], data: Any) -> None:
    cut = data.draw(st.integers(1, len(names)))
    whole = classes(warm_up=2, delay=1).send(sure(*names))
    parts = classes(warm_up=2, delay=1).send(sure(*names[:cut]))
    if cut < len(names):
        parts.send(sure(*names[cut:]))
    assert parts.classes == whole.classes


def forecasts(*, every_s: float, warm_up: int = 0) -> Feed:
    task = Forecasts(engine_of(FORECASTER), every_s=every_s, node="pi")
    return Feed(task, period_s=10.0, warm_up=warm_up)


def said(samples: int) -> list[Any]:
    """forecast and spread (T, 3, 2): sample, step and channel can be read from each number."""
    t, h, c = np.meshgrid(np.arange(samples), np.arange(3), np.arange(2), indexing="ij")
    return [100 * t + 10 * (h + 1) + c, np.full(t.shape, 0.5)]


def test_a_forecast_lists_every_step_of_every_channel_in_its_unit() -> None:
    (forecast,) = forecasts(every_s=60.0).send(said(1)).forecasts
    assert (forecast.time, forecast.period_s, forecast.horizon) == (format_time(0.0), 10.0, 3)
    assert [(one.name, one.unit, one.mean, one.spread) for one in forecast.channels] == [
        ("flow", "l/min", (10.0, 20.0, 30.0), (0.5, 0.5, 0.5)),
        ("heat", "", (11.0, 21.0, 31.0), (0.5, 0.5, 0.5)),
    ]


@pytest.mark.parametrize(("every_s", "samples"), [(0, [0, 1, 2, 3]), (20, [0, 2]), (1000, [0])])
def test_forecasts_are_no_more_frequent_than_asked(every_s: float, samples: list[int]) -> None:
    made = forecasts(every_s=every_s).send(said(4)).forecasts
    assert [one.channels[0].mean[0] for one in made] == [100 * t + 10 for t in samples]


def test_nothing_is_forecast_while_warming_up_or_from_a_sample_without_values() -> None:
    feed = forecasts(every_s=0, warm_up=2).send(said(3)).send(said(2), x=NAN)
    assert [one.time for one in feed.forecasts] == [format_time(20.0)]


def test_after_a_gap_the_next_forecast_waits_for_the_warm_up() -> None:
    feed = forecasts(every_s=1000, warm_up=1).send(said(2))
    feed.gap()
    feed.send(said(3))
    assert [one.time for one in feed.forecasts] == [format_time(10.0), format_time(30.0)]


@pytest.mark.parametrize(
    ("card", "key", "said_in_file", "task"),
    [
        (CLASSIFIER, "alarm", AlarmConfig(false_alarms="1/day"), "anomaly"),
        (FORECASTER, "classify", ClassifyConfig(confirm=9), "classify"),
        (make_card(), "forecast", ForecastConfig(every_s=9), "forecast"),
    ],
)
def test_what_an_artefact_does_not_do_is_refused(
    card: Any, key: str, said_in_file: Any, task: str
) -> None:
    config = AgentConfig(model="a", node="pi", **{key: said_in_file})
    with pytest.raises(EdgernnError) as caught:
        make_task(config, engine_of(card), where="agent.toml")
    assert str(caught.value) == (
        f'agent.toml: {key}: only for an artefact of task "{task}", this one is for "{card.task}"'
    )


def test_the_operator_is_told_what_the_agent_does() -> None:
    config = AgentConfig(model="a", node="pi")
    told = [str(make_task(config, engine_of(card), where="x")) for card in (CLASSIFIER, FORECASTER)]
    assert told == [
        "classes healthy, bearing, leak after 10 samples that agree",
        "forecasts 30 s ahead, at most one in 60 s",
    ]


def test_lines_for_a_person() -> None:
    import msgspec

    content = classes().send(sure(*["leak"] * 3)).outcome.notices[0].content
    line = line_of(msgspec.convert(msgspec.to_builtins(content), ClassLine), "pi", "a")
    assert line == (
        "1970-01-01T00:00:02.000Z  pi/a  class  leak  0.90 since 1970-01-01T00:00:00.000Z"
    )
    content = forecasts(every_s=0).send(said(1)).outcome.notices[0].content
    line = line_of(msgspec.convert(msgspec.to_builtins(content), ForecastLine), "pi", "a")
    assert line == (
        "1970-01-01T00:00:00.000Z  pi/a  forecast  flow 10 … 30 ± 0.5 l/min in 30 s  "
        "heat 11 … 31 ± 0.5 in 30 s"
    )


def test_a_clock_that_is_set_leaves_when_the_next_forecast_is_due() -> None:
    task = Forecasts(engine_of(FORECASTER), every_s=60.0, node="pi")
    feed = Feed(task, period_s=10.0)
    said = [np.zeros((4, 3, 2)), np.ones((4, 3, 2))]
    feed.send(said)
    feed._now_s += 1e6
    task.shift(feed.stream, 1e6)
    feed.send(said)
    assert [one.time for one in feed.forecasts] == [format_time(0.0), format_time(1e6 + 60.0)]


def test_a_clock_that_is_set_takes_the_agreeing_samples_along() -> None:
    feed = classes().send(sure("leak", "leak"))
    feed._now_s += 20.0
    feed.task.shift(feed.stream, 20.0)
    feed.send(sure("leak"))
    assert feed.classes == [("leak", "20", "22")]
