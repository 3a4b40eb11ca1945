"""Checks what a push needs, the name and the token, before the training.

Neither check asks the Hub, and importing this module imports neither Keras nor the Hub's client.
"""

from __future__ import annotations

from captioner.errors import CaptionerError


class HubError(CaptionerError, RuntimeError):
    """A checkpoint was not pushed; the message says why and what to do."""


def check_repo_id(repo_id: str) -> None:
    """Raises `HubError` if no repository on the Hub can be called `repo_id`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise HubError(
            f'no repository on the Hub can be called "{repo_id}": a Hub id has the form USER/NAME, '
            'with letters, digits, "-", "_" and "." in it, and does not end in ".git".'
        ) from None


def stored_token() -> str | None:
    """The access token of the environment or of the login; None if there is none to be read."""
    from huggingface_hub import get_token

    try:
        return get_token()
    except OSError:  # the folder of the Hub's client cannot be used, which shows when it is needed
        return None


def require_login(token: str | None = None) -> None:
    """Raises `HubError` unless there is a token to push with, valid or not."""
    if not (token or stored_token()):
        raise HubError(
            "pushing to the Hub needs an access token: log in with `hf auth login`, or set "
            "HF_TOKEN to a token with write access."
        )
