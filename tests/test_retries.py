"""The one policy for requests that are made again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from captioner import retries


class Refused(Exception):
    def __init__(self, asked: float | None = None) -> None:
        self.asked = asked


def attempt(errors: list[Exception], **options: object) -> tuple[str, list[float]]:
    """What comes of a call that raises the errors one after the other, and the waits."""
    waits: list[float] = []

    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    settings = {
        "attempts": 5,
        "may_pass": lambda error: isinstance(error, Refused),
        "asked": lambda error: getattr(error, "asked", None),
    }
    return retries.retried(call, sleep=waits.append, **settings | options), waits


def test_waits_double_and_are_as_long_as_the_server_asks() -> None:
    found, waits = attempt([Refused(), Refused(), Refused(), Refused(50)])
    assert found == "done"
    assert 1 <= waits[0] <= 2 and 2 <= waits[1] <= 3 and 4 <= waits[2] <= 5
    assert waits[3] == 50


@pytest.mark.parametrize("errors", [[Refused()] * 5, [Refused(121)], [KeyError()]])
def test_the_last_error_is_raised(errors: list[Exception]) -> None:
    last = errors[-1]
    with pytest.raises(type(last)):
        attempt(errors)
    assert not errors, "no attempt is left, none is wasted"


def test_a_caller_is_told_before_each_wait() -> None:
    told: list[tuple[BaseException, float]] = []
    error = Refused(7)
    attempt([error], before_wait=lambda *what: told.append(what))
    assert told == [(error, 7)]


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retries.seconds_asked(" 12 ") == 12
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 <= (retries.seconds_asked(soon) or 0) <= 30
    assert retries.seconds_asked("Fri, 01 Jan 1999 00:00:00 GMT") == 0
    for nothing in (None, "", "soon", "-3"):
        assert retries.seconds_asked(nothing) is None


def test_which_answers_may_pass() -> None:
    assert all(map(retries.status_may_pass, (408, 425, 429, 500, 503, 599)))
    assert not any(map(retries.status_may_pass, (None, 200, 400, 401, 404, 409)))
