"""Interprets the errors of the Hub's client: whether to try again, whether to use the cached copy,
and what to tell the user."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from captioner import retries
from captioner.checkpoint import hub_access
from captioner.files import remedy, write_fault

logger = logging.getLogger(__name__)

CONFLICTS = (409, 412)
T = TypeVar("T")


def with_retries(call: Callable[[], T], attempts: int) -> T:
    """Calls `call`, again and again after failures that may pass, and returns its result.

    The client itself repeats most requests, but not those that create a repository, ask for its
    state or commit. The waits are those of `retries.retried`.
    """

    def note(error: BaseException, seconds: float) -> None:
        what = _status(error) or type(error).__name__
        logger.warning(
            "The Hub does not answer as it should (%s): trying again in %.0f s.", what, seconds
        )

    return retries.retried(call, attempts, _may_pass, _retry_after, before_wait=note)


def was_refused(error: BaseException) -> bool:
    """Whether the Hub answered and refused the request."""
    status = _status(_root(error))
    return status is not None and 400 <= status < 500 and not _status_may_pass(status)


def reason(
    error: BaseException,
    repo_id: str,
    revision: str | None = None,
    writing: bool = False,
    token: str | None = None,
) -> str:
    """Why a transfer failed and what to do about it, without secrets."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    root, access = _root(error), "write" if writing else "read"
    if fault := _fault_of_cache(root):
        return fault
    token = token or hub_access.stored_token()
    log_in = f"log in with `hf auth login`, or set HF_TOKEN to a token with {access} access"
    match root:
        case HFValidationError():
            return "a Hub id has the form USER/NAME."
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it, or give a directory."
        case GatedRepoError():
            return (
                f"its owner grants access on request. Ask on the page of {repo_id}, and {log_in}."
            )
        case DisabledRepoError():
            return "the repository has been disabled. Its page on the Hub says why."
        case RevisionNotFoundError():
            kind = "branch" if writing else "branch, tag or commit"
            return f"it has no {kind} {revision}. Its page on the Hub lists those it has."
        case LocalEntryNotFoundError():
            pass
        case EntryNotFoundError():
            return "it is not a whole checkpoint of this program: files are missing."
    return _reason_of_status(root, access, log_in, token)


def _reason_of_status(root: BaseException, access: str, log_in: str, token: str | None) -> str:
    """`reason` for errors without a type of their own, by the HTTP status or its absence."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    status = _status(root)
    if status == 401 and token:
        return f"the Hub does not accept the access token, which may have expired: {log_in}."
    if status in (401, 404):
        return (
            "the Hub shows no repository of this name. Check the name; if the repository is "
            f"private, {log_in}."
        )
    if status == 403:
        return f"the access token does not allow to {access} it: {log_in}, or choose another name."
    if status in CONFLICTS:
        return "somebody else is changing the repository at the same time. Try again."
    if status == 429:
        asked = _retry_after(root)
        when = "later" if asked is None else f"in {asked:.0f} seconds"
        return f"the Hub was asked too often (429). Try again {when}."
    if status is not None and status >= 500:
        return f"the Hub has trouble of its own ({status}). Try again later."
    if isinstance(root, HfHubHTTPError):
        return f"the Hub refused ({status}): {_plain(root.server_message or '', token)}"
    if _is_malformed(root):
        return (
            "the request cannot be sent, because HF_ENDPOINT is not an address (https://...), or "
            "the access token has characters that no token has. Correct or unset HF_ENDPOINT and "
            "HF_TOKEN."
        )
    if isinstance(root, HTTPError):
        return (
            f"the Hub cannot be reached ({type(root).__name__}). Connect to the network and try "
            "again."
        )
    if isinstance(root, json.JSONDecodeError):
        return "the answer is not the Hub's, but perhaps that of a login page of the network."
    if what := remedy(root):  # the disk of this machine
        return f"{_plain(str(root), token)}. {what}, then try again."
    return f"{type(root).__name__}: {_plain(str(root), token)}"


def _fault_of_cache(error: BaseException) -> str | None:
    """What is wrong with the folder of the Hub's client, if that is the reason of an error."""
    from huggingface_hub import constants

    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return None
    path, caches = Path(error.filename), (constants.HF_HOME, constants.HF_HUB_CACHE)
    if any(path.is_relative_to(cache) or Path(cache).is_relative_to(path) for cache in caches):
        return write_fault(path, error, "HF_HOME")
    return None


def _is_malformed(error: BaseException) -> bool:
    """Whether a request could not be built from its address and its headers."""
    # By their names, because versions of the Hub's client use different libraries for HTTP.
    named = type(error).__name__ in ("InvalidURL", "UnsupportedProtocol", "LocalProtocolError")
    return named or isinstance(error, UnicodeEncodeError)


def _root(error: BaseException) -> BaseException:
    """The error that the client has wrapped into one of its own, or `error` itself."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    wrappers = (LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _may_pass(error: BaseException) -> bool:
    # Errors that the client has wrapped are not repeated: it has tried several times already.
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if isinstance(error, HfHubHTTPError):
        return _status_may_pass(_status(error))
    if _is_malformed(error):
        return False
    cut_short = type(error) is OSError and error.errno is None  # the size is not as announced
    return cut_short or isinstance(error, (HTTPError, json.JSONDecodeError))


def _status_may_pass(status: int | None) -> bool:
    return status in CONFLICTS or retries.status_may_pass(status)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _retry_after(error: BaseException) -> float | None:
    """The seconds that the Hub asks to wait before the next request, if it does."""
    headers: Any = getattr(getattr(error, "response", None), "headers", {})
    return retries.seconds_asked(headers.get("Retry-After"))


def _plain(message: str, token: str | None) -> str:
    """A message on one short line, without tokens and without the queries of addresses."""
    line = " ".join(message.split()) or "no reason given"
    if token:
        line = line.replace(token, "***")
    return re.sub(r"hf_\w+|\?\S+", "***", line)[:300]
