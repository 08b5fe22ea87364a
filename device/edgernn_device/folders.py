"""Where an agent keeps what outlives it."""

import os
from pathlib import Path


def state_folder() -> Path:
    """systemd's StateDirectory, or the user's own."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    own = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(own) / "edgernn"
