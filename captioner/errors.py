"""The one base class of all errors whose messages are meant for people."""

from __future__ import annotations


class CaptionerError(Exception):
    """Something that a person can mend: the message names the file or option, and the remedy.

    Every error that this package raises for such a reason is a subclass. `app.py`, `train.py` and
    the other command lines print its message in one line; any other exception is a bug.
    """
