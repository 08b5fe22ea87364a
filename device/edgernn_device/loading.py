"""From an agent's file to its engine: read, admitted, proven on this CPU, opened."""

import logging
from pathlib import Path

from edgernn.calibration import parse_budget
from edgernn.errors import Exit, ending_with
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.intake import Intake
from edgernn_device.monitor import Monitor
from edgernn_device.shipped import artefact_path
from edgernn_device.tasks import make_task
from edgernn_device.trust import admit, read_artefact
from edgernn_device.verify import Verified, verify, verify_once

logger = logging.getLogger(__name__)


def load_engine(config: AgentConfig, *, base: Path, where: str) -> Engine:
    """`base`: folder that files named in `config` are relative to. `where` opens sentences.

    Raises EdgernnError: of exit code 2 for keys that are none, else 4.
    """
    engine, found = _load(config, base=base, where=where, is_proven_anew=False)
    if config.trusted_keys:
        logger.info("%s: signed by key %s, which is trusted", config.model, engine.signed_by)
    if found is not None:
        logger.info("%s: %s", config.model, found)
    return engine


def make_parts(config: AgentConfig, engine: Engine, *, where: str) -> tuple[Intake, Monitor]:
    """What artefact and file make together: bytes → samples → alerts. Raises EdgernnError if the
    file asks for what this artefact does not do."""
    card = engine.card
    with ending_with(Exit.SETTINGS):
        monitor = Monitor(
            engine,
            make_task(config, engine, where=where),
            rule=config.stream_rule(card),
            max_streams=config.input.max_streams,
            node=config.topics.node,
            silence=config.silence(card),
            odd=config.input.not_a_number,
            before_2000=config.input.before_2000,
        )
        return config.intake(card, where=where), monitor


def first_words(config: AgentConfig, engine: Engine) -> tuple[str, ...]:
    """What to expect of an artefact that learns as it runs; of others nothing needs saying."""
    card = engine.card
    if not engine.card_of_file.any_channels:
        return ()
    budget = config.alarm.false_alarms or card.alarm.false_alarms
    hint = "; --false-alarms 1/day, or alarm.false_alarms, hears more" * (
        parse_budget(budget) < parse_budget("1/day")
    )
    return (
        f"channels {', '.join(card.channel_names)}, every {card.period_s:g} s",
        f"each stream is learnt for {card.warm_up} samples without any alarm, and in the next "
        f"thousands only large faults reach the threshold for {budget}{hint}",
    )


def prove_engine(config: AgentConfig, *, base: Path, where: str) -> tuple[Engine, Verified]:
    """The same, whether or not it passed before."""
    engine, found = _load(config, base=base, where=where, is_proven_anew=True)
    assert found is not None
    return engine, found


def _load(
    config: AgentConfig, *, base: Path, where: str, is_proven_anew: bool
) -> tuple[Engine, Verified | None]:
    path = artefact_path(config.model, base)
    trust = config.trust(base, where=where)
    with ending_with(Exit.ARTEFACT):
        model = read_artefact(path, max_bytes=trust.max_bytes)
        card = admit(model, trust=trust, where=str(path))
    with ending_with(Exit.SETTINGS):
        binding = config.binding(card, where=where)
    with ending_with(Exit.ARTEFACT):
        prove = verify if is_proven_anew else verify_once
        found = prove(model, where=str(path))
        return Engine(model, trust=trust, where=str(path), binding=binding), found
