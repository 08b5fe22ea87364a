"""What the next agent will need, tried while another runs, which it does not disturb."""

import errno
import os
import socket
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from edgernn.errors import EdgernnError, Exit, MissingExtraError, ending_with
from edgernn_device.config import AgentConfig
from edgernn_device.store import check_can_be_held


def rehearse(config: AgentConfig, running: AgentConfig, *, base: Path) -> None:
    """Raises EdgernnError for what an agent of `config` could not begin with in the place of one of
    `running`. A broker that is away is none: whoever runs may lose it too.

    `base`: folder that files named in either are relative to.
    """
    access = config.broker.access(base)
    if access.address.tls:
        access.tls_context()
    if config.metrics.listen and config.metrics.listen != running.metrics.listen:
        _check_can_listen_in_place_of(running, *config.metrics.endpoint)
    file = _store_file(config, base)
    if not _is_one_file(file, _store_file(running, base)):
        check_can_be_held(file)


class PortTakenError(EdgernnError):
    """Somebody listens there."""


def check_can_listen(host: str, port: int) -> None:
    """Raises EdgernnError if `[metrics]` cannot be served there; PortTakenError, by another,
    which may be the agent itself."""
    if find_spec("prometheus_client") is None:
        raise MissingExtraError("metrics.listen needs pip install 'edgernn[metrics]'")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
    except OSError as exc:
        kind = PortTakenError if exc.errno == errno.EADDRINUSE else EdgernnError
        raise kind(f"metrics.listen: {host}, port {port}: {exc.strerror}") from exc


def _check_can_listen_in_place_of(running: AgentConfig, host: str, port: int) -> None:
    """A port that the running one holds comes free; that the address is ours is tried on any."""
    is_held = running.metrics.listen and running.metrics.endpoint[1] == port
    check_can_listen(host, 0 if is_held else port)


def _is_one_file(one: Path, other: Path) -> bool:
    """Also by another name of it: to open and close a file that is held lets go of it (POSIX)."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    with suppress(OSError):  # where one is not there, they are two
        return one.samefile(other)
    return False


@ending_with(Exit.STATE)
def _store_file(config: AgentConfig, base: Path) -> Path:
    return config.store.file(base, node=config.topics.node)
