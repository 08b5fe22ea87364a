"""What is held of values that arrive apart outlives the process, together with their streams."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from edgernn_device.config import AgentConfig, InputConfig
from edgernn_device.engine import Engine
from edgernn_device.join import Cell, JoinState
from edgernn_device.memories import Memories, Memory
from edgernn_device.monitor import Monitor
from edgernn_device.payload import RawSample
from edgernn_device.tasks import make_task

T0_S = 1_767_591_600.0
CONFIG = AgentConfig(model="a", node="pi", input=InputConfig(subscribe="home/{stream}/{channel}"))
Score = tuple[str, str, float | None]


class Half:
    """What an agent does between its sockets."""

    def __init__(self, artefact: Path) -> None:
        engine = Engine.load(artefact)
        self.intake = CONFIG.intake(engine.card, where="agent.toml")
        task = make_task(CONFIG, engine, where="agent.toml")
        rule = CONFIG.stream_rule(engine.card)
        self.monitor = Monitor(engine, task, rule=rule, max_streams=5)
        self.memories = Memories(self.monitor, self.intake.join)
        self.scores: list[Score] = []

    def take(self, messages: Iterable[tuple[float, str, float]]) -> None:
        for at, topic, value in messages:
            payload = json.dumps({"value": value, "time": T0_S + at}).encode()
            samples = self.intake.take(topic, payload, received_s=0.0, now_s=at)
            for name, scored in self.monitor.take(samples, now_s=at).scores.items():
                self.scores.append((name, scored.time, scored.score))


@pytest.fixture
def messages(artefact: Path) -> list[tuple[float, str, float]]:
    names = Engine.load(artefact).card.channel_names
    return [
        (at + c / 10, f"home/{stream}/{name}", 2 + math.sin(at + c))
        for at in range(60)
        for stream in "ab"
        for c, name in enumerate(names)
    ]


@pytest.mark.parametrize("cut", [1, 2, 7, 331, 500])
def test_streams_go_on_as_if_they_had_never_been_put_away(
    artefact: Path, messages: list[tuple[float, str, float]], cut: int
) -> None:
    through, before, after = Half(artefact), Half(artefact), Half(artefact)
    through.take(messages)
    before.take(messages[:cut])
    for name in before.memories:
        after.memories.recall(name, before.memories.remember(name))
    after.take(messages[cut:])
    assert before.scores + after.scores == through.scores
    for name in through.memories:
        assert after.memories.remember(name) == through.memories.remember(name)


def test_after_all_was_forgotten_and_given_back_nothing_has_changed(
    artefact: Path, messages: list[tuple[float, str, float]]
) -> None:
    rolled = Half(artefact)
    rolled.take(messages[:331])
    kept = {name: rolled.memories.remember(name) for name in rolled.memories}
    rolled.take(messages[331:400])
    rolled.memories.forget_all()
    assert list(rolled.memories) == []
    for name, memory in kept.items():
        rolled.memories.recall(name, memory)
        assert name in rolled.memories
        assert rolled.memories.remember(name) == memory


@pytest.mark.parametrize(
    "state",
    [
        JoinState(slot=0, clock_s=T0_S),
        JoinState(slot=int(T0_S), clock_s=math.nan),
        JoinState(slot=int(T0_S), clock_s=-1.0),
        JoinState(slot=int(T0_S), clock_s=T0_S, pending={10**15: {"a": Cell(T0_S, 1.0, None)}}),
        JoinState(slot=10**400, clock_s=T0_S),
        JoinState(slot=int(T0_S), clock_s=T0_S, held={"a": Cell(math.nan, 1.0, None)}),
        JoinState(slot=int(T0_S), clock_s=T0_S, ahead=[RawSample(math.nan, None, {"a": 1.0})]),
    ],
)
def test_a_state_that_cannot_have_been_is_refused(artefact: Path, state: JoinState) -> None:
    join = Half(artefact).intake.join
    assert join is not None
    with pytest.raises(ValueError, match="what is held of a stream"):
        join.set_state("a", state)


def test_a_memory_of_which_half_cannot_have_been_is_refused_whole(artefact: Path) -> None:
    half, other = Half(artefact), Half(artefact)
    half.take([(at, "home/a/pressure", 2.0) for at in range(9)])
    wrong = Memory(half.monitor.remember("a"), JoinState(slot=5, clock_s=-1.0))
    with pytest.raises(ValueError, match="what is held of a stream"):
        other.memories.recall("a", msgspec.msgpack.encode(wrong))
    assert list(other.memories) == []


def test_memories_without_a_join_are_the_monitors_own(artefact: Path) -> None:
    half = Half(artefact)
    half.take([(at, "home/a/pressure", 2.0) for at in range(9)])
    alone = Memories(half.monitor, None)
    assert (list(alone), alone.remember("a")) == (["a"], half.monitor.remember("a"))


def test_a_memory_of_whole_samples_is_refused_where_channels_arrive_apart(artefact: Path) -> None:
    half = Half(artefact)
    half.take([(at, "home/a/pressure", 2.0) for at in range(9)])
    with pytest.raises(msgspec.DecodeError):
        half.memories.recall("b", half.monitor.remember("a"))
