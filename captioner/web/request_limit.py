"""Limits how much memory one request can take on the page's server."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_REQUEST_MEGABYTES = 64
_TOO_LARGE = (
    f"This request is larger than {MAX_REQUEST_MEGABYTES} MB. Upload the pictures as files first, "
    "or send fewer of them."
)


class LimitedRequests:
    """ASGI middleware that refuses requests with a large body, with the HTTP status 413.

    A server holds the whole body of a request in memory, several times while it is parsed. Uploads
    are let through: they are written to disk, and Gradio limits the size of their files.

    Args:
        app: The page.
        most: The largest allowed body, in bytes.
    """

    def __init__(self, app: ASGIApp, most: int = MAX_REQUEST_MEGABYTES * 2**20) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/").endswith("/gradio_api/upload"):
            return await self._app(scope, receive, send)
        declared, read = _declared(scope), 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if max(read, declared) > self._most:
                raise HTTPException(413, _TOO_LARGE)
            return message

        await self._app(scope, limited, send)


def _declared(scope: Scope) -> int:
    """The length of the body according to the request's headers, 0 if they do not say it."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0
