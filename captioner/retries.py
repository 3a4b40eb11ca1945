"""The policy for repeating requests that fail and may succeed later.

The waits double, and a random part makes sure that many clients do not come back at the same time.
If the server says how long to wait (RFC 9110, section 10.2.3), that is respected, up to a limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

T = TypeVar("T")

LONGEST_WAIT = 120.0  # seconds; if a server asks for a longer wait, the request fails
_LONGEST_OWN_WAIT = 30.0  # seconds, if the server does not say how long to wait


def status_may_pass(status: int | None) -> bool:
    """Whether a request that got this HTTP status is worth another try: timeouts, 429 and 5xx."""
    return status is not None and (status >= 500 or status in (408, 425, 429))


def seconds_asked(retry_after: str | None) -> float | None:
    """The seconds to wait by a Retry-After header, a number or a date; None if it is neither."""
    value = (retry_after or "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def retried(
    call: Callable[[], T],
    attempts: int,
    may_pass: Callable[[BaseException], bool],
    asked: Callable[[BaseException], float | None],
    first_wait: float = 1.0,
    sleep: Callable[[float], object] = time.sleep,
    before_wait: Callable[[BaseException, float], None] | None = None,
) -> T:
    """Calls `call`, again and again after failures that may pass, and returns its result.

    Args:
        call: What to try.
        attempts: The most calls.
        may_pass: Whether an error is worth another try.
        asked: For how many seconds the server asked to wait; None if it did not.
        first_wait: Seconds before the second call, if the server does not ask for a wait.
        sleep: Waits for a number of seconds.
        before_wait: Called before each wait, with the error and the seconds.

    Raises:
        Exception: The error of the last call.
    """
    doubling = tenacity.wait_exponential(first_wait, max=_LONGEST_OWN_WAIT)
    jittered = doubling + tenacity.wait_random(0, first_wait)

    def wait(state: tenacity.RetryCallState) -> float:
        return max(jittered(state), asked(_error(state)) or 0.0)

    def note(state: tenacity.RetryCallState) -> None:
        if before_wait:
            before_wait(_error(state), state.next_action.sleep if state.next_action else 0.0)

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(
            lambda error: may_pass(error) and (asked(error) or 0.0) <= LONGEST_WAIT
        ),
        sleep=sleep,  # ty: ignore[invalid-argument-type] - what it returns is not used
        before_sleep=note,
        reraise=True,
    )(call)


def _error(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    return error or RuntimeError()
