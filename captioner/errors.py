"""The base class of all errors whose messages are meant for users."""

from __future__ import annotations


class CaptionerError(Exception):
    """A problem that a user can solve. The message names the file or option, and the remedy.

    All errors of this package for such problems are subclasses. `app.py`, `train.py` and the other
    command lines print the message on one line. Any other exception is a bug.
    """
