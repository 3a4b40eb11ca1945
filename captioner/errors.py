"""The base class of all errors whose messages are meant for users."""

from __future__ import annotations

import sys

from captioner.streams import say_nothing_more


class CaptionerError(Exception):
    """A problem that a user can solve. The message names the file or option, and the remedy.

    All errors of this package for such problems are subclasses. `app.py`, `train.py` and the other
    command lines print the message on one line. Any other exception is a bug.
    """


def report(error: BaseException) -> int:
    """Prints an error's message on standard error, and returns the exit status.

    Nothing is printed if the program that reads standard output has ended, as `| head` does.
    """
    if isinstance(error, BrokenPipeError):
        say_nothing_more()
    else:
        print(f"error: {error}", file=sys.stderr)
    return 1
