"""The one error a user is meant to read: a sentence, no traceback, exit code 2."""


class EdgernnError(Exception):
    """What was found, what is allowed, and where.

    The command line prints the message as one line and exits with code 2. Raise it for anything a
    user can put right (a file, a key, a broker); let everything else be a traceback, for that is
    a defect of ours.
    """


class MissingExtraError(EdgernnError):
    """A part of edgernn is not in this installation; the message says how to get it."""
