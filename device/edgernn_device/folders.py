"""Where an agent keeps what outlives it."""

import os
from pathlib import Path

from edgernn.errors import EdgernnError


def state_folder() -> Path:
    """systemd's StateDirectory, or the user's own. Raises EdgernnError where there is neither."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    if own := os.environ.get("XDG_STATE_HOME"):
        return Path(own) / "edgernn"
    try:
        return Path.home() / ".local" / "state" / "edgernn"
    except RuntimeError as exc:
        raise EdgernnError(
            "nowhere to keep what outlives the agent: this user has no home; set STATE_DIRECTORY"
        ) from exc
