"""Which task an artefact is for, and what the agent's file says of it."""

from edgernn.card import AlarmConfig
from edgernn.errors import EdgernnError
from edgernn_device.alarms import Alarms
from edgernn_device.classes import Classes
from edgernn_device.config import AgentConfig, ClassifyConfig, ForecastConfig
from edgernn_device.engine import Engine
from edgernn_device.forecasts import Forecasts
from edgernn_device.monitor import Task


def make_task(config: AgentConfig, engine: Engine, *, where: str) -> Task:
    """The task of the engine's artefact. Raises EdgernnError, opened by `where`, if the file asks
    for what this artefact does not do."""
    card, node = engine.card, config.topics.node
    _check(config, card.task, where)
    match card.task:
        case "classify":
            return Classes(engine, config.classify, node=node)
        case "forecast":
            return Forecasts(engine, every_s=config.forecast.every_s, node=node)
    return Alarms(engine, config.limits(card, where=f"{where}: alarm"), node=node)


def _check(config: AgentConfig, task: str, where: str) -> None:
    for key, is_said, of in (
        ("alarm", config.alarm != AlarmConfig(), "anomaly"),
        ("output.scores", config.output.scores, "anomaly"),
        ("classify", config.classify != ClassifyConfig(), "classify"),
        ("forecast", config.forecast != ForecastConfig(), "forecast"),
    ):
        if is_said and task != of:
            raise EdgernnError(
                f'{where}: {key}: only for an artefact of task "{of}", this one is for "{task}"'
            )
