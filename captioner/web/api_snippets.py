"""The programs that the page shows under "Use via API", mended so that they run as they are.

The programs that Gradio writes name a picture on another server, which this server refuses to
fetch, and their shell command loses the number of its call.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

import gradio as gr
from gradio.route_utils import get_root_url
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A placeholder: the host by which a visitor calls this server is known only with the request.
_HOST = "this-server.invalid"
_SERVER = f"http://{_HOST}"
# An address with any other character might change what a program does that has it.
_ADDRESS = re.compile(r"https?://[\w.:\[\]/~%-]+", re.ASCII)
# Headers by which proxies tell for which host a visitor has asked.
_OF_PROXIES = (b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")
_READ_EVENT = re.compile(r" \\\n  \| awk [^|]*\| read EVENT_ID; curl -N ")


def show_example(component: gr.Image | gr.File, address: str) -> None:
    """Uses the picture at `address`, a path on this server, in the programs about a component."""
    url = _SERVER + address
    name = address.rpartition("/")[2]
    file = {"path": url, "url": url, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    several = isinstance(component, gr.File) and component.file_count != "single"
    example: Any = [file] if several else file
    component.example_payload = lambda: example


class RunnableSnippets:
    """ASGI middleware around the page that mends Gradio's description of the endpoints."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].rstrip("/").endswith("/gradio_api/info"):
            return await self._app(scope, receive, send)
        app_root = getattr(scope.get("app"), "root_path", None)
        neutral = _neutral(scope)
        root, server = (
            get_root_url(Request(one), "/gradio_api/info", app_root) for one in (scope, neutral)
        )
        started: list[Message] = []
        body = b""

        async def collect(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                started.append(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                await finish()

        async def finish() -> None:
            content = mended(body, root, server) if started[0]["status"] == 200 else body
            headers = [h for h in started[0]["headers"] if h[0].lower() != b"content-length"]
            headers.append((b"content-length", str(len(content)).encode()))
            await send({**started[0], "headers": headers})
            await send({"type": "http.response.body", "body": content})

        await self._app(neutral, receive, collect)


def _neutral(scope: Scope) -> Scope:
    """The same request for Gradio's description, but by the placeholder's address.

    Of the page alone, because Gradio keeps its description of all pages, with the address of the
    visitor who asked first, and shows it to everybody.
    """
    others = (b"host", *_OF_PROXIES)
    headers = [header for header in scope["headers"] if header[0].lower() not in others]
    headers.append((b"host", _HOST.encode()))
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) | {"page": ""}
    return {
        **scope,
        "scheme": "http",
        "headers": headers,
        "query_string": urlencode(query).encode(),
    }


def mended(body: bytes, root: str, server: str) -> bytes:
    """Puts programs that run into Gradio's description of the endpoints, which is JSON.

    Args:
        body: The description, with the placeholder's address.
        root: The address by which this visitor calls the server, without a slash at its end. The
            placeholder stays if it is no plain address.
        server: The placeholder's address in the description: perhaps with a path, as `root`.
    """
    info = json.loads(body)
    for endpoint in info["named_endpoints"].values():
        snippets = endpoint.get("code_snippets", {})
        shell = snippets.get("bash", "")
        if "files=@" in shell:
            several = any(isinstance(p["example_input"], list) for p in endpoint["parameters"])
            snippets["bash"] = _shell(shell, endpoint["parameters"], several)
            url = _example(endpoint["parameters"])
            snippets["javascript"] = snippets["javascript"].replace('fetch("")', f'fetch("{url}")')
    # An address holds no character that JSON would write in another way.
    text = json.dumps(info)
    if _ADDRESS.fullmatch(root):
        text = text.replace(server, root).replace(_SERVER, root)
    return text.encode()


def _example(parameters: list[dict[str, Any]]) -> str:
    example = next(p["example_input"] for p in parameters if _SERVER in str(p["example_input"]))
    return (example[0] if isinstance(example, list) else example)["url"]


def _shell(shell: str, parameters: list[dict[str, Any]], several: bool) -> str:
    shell = shell.replace("'files=@/path/to/your/file'", "files=@photo.jpg")
    shell = shell.replace("curl -X POST", "EVENT_ID=$(curl -X POST", 1)
    shell = _READ_EVENT.sub(r""" | awk -F'"' '{ print $4 }')\ncurl -N """, shell)
    if several:
        shell = re.sub(r'(\{"path": [^}]*\}\})', r"[\1]", shell)
    return f"curl -s -o photo.jpg {_example(parameters)}\n{shell}"
