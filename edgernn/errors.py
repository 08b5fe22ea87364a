"""The one error a user is meant to read: a sentence, no traceback; and what a command ends with."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; docs/agent.md says what a supervisor had better do."""

    DONE = 0
    DEFECT = 1
    """An error of ours, with a traceback."""
    SETTINGS = 2
    """A file, key or option that the user can put right; click uses it too."""
    BROKER = 3
    """Not there, or it let us not in."""
    ARTEFACT = 4
    """Not there, not trusted, or not the same on this CPU."""
    STATE = 5
    """A folder that must be writable, or the rights of a secret."""
    INTERRUPTED = 130
    """As a shell reports SIGINT."""


class EdgernnError(Exception):
    """What was found, what is allowed, and where.

    The command line prints the message as one line and exits with `exit_code`. Raise it for
    anything a user can put right (a file, a key, a broker); let everything else be a traceback, for
    that is a defect of ours.
    """

    exit_code = Exit.SETTINGS


class MissingExtraError(EdgernnError):
    """A part of edgernn is not in this installation; the message says how to get it."""


@contextmanager
def ending_with(code: Exit) -> Iterator[None]:
    """An EdgernnError from inside ends the command with `code`. Also a decorator."""
    try:
        yield
    except EdgernnError as exc:
        exc.exit_code = code
        raise
