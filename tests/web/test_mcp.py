"""The functions as tools for language models, used by a real MCP client."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from app_process import ROOT, App
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult
from PIL import Image

from captioner.web.examples import example_photos


def in_session(app: App, use: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with (
            streamable_http_client(app.url + "gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as client,
        ):
            await client.initialize()
            return await use(client)

    return asyncio.run(session())


def call(app: App, tool: str, **arguments: Any) -> CallToolResult:
    return in_session(app, lambda client: client.call_tool(tool, arguments))


@pytest.fixture(scope="module")
def photo() -> str:
    return data_url(example_photos()[0].read_bytes())


def data_url(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def answer_of(result: CallToolResult) -> tuple[Any, bytes]:
    """The answer, which stands there as JSON and as a structure, and the picture."""
    assert not result.isError, result.content
    text, picture = result.content
    answer = json.loads(text.text)
    assert answer == result.structuredContent
    assert picture.type == "image" and picture.mimeType == "image/png"
    return answer, base64.b64decode(picture.data)


def test_the_endpoints_are_tools(app: App) -> None:
    tools = {t.name: t for t in in_session(app, lambda client: client.list_tools()).tools}
    assert set(tools) == {"caption", "complete", "caption_region"}
    for tool in tools.values():
        assert len(tool.description) > 20
        temperature = tool.inputSchema["properties"]["temperature"]["description"]
        assert temperature.endswith("a number from 0.1 to 2.")
    options = tools["caption"].inputSchema["properties"]
    assert list(options) == ["image", "num_captions", "strategy", "temperature", "seed"]
    for tool in tools.values():
        picture = tool.inputSchema["properties"]["image"]
        assert (
            "data:image/png;base64," in picture["description"] and "data URL" in picture["format"]
        )
        assert "http" not in picture["description"] + picture["format"]
        assert "upload_file_to_gradio" not in tool.description


def test_a_file_that_was_sent_to_this_server(app: App) -> None:
    sent = {"files": ("my photo.png", example_photos()[0].read_bytes())}
    [path] = httpx.post(app.url + "gradio_api/upload", files=sent).json()
    for name in (path, f"{app.url}gradio_api/file={quote(path)}"):
        answer, _ = answer_of(call(app, "caption", image=name, strategy="greedy"))
        assert answer["captions"][0]["words"]


def test_a_caption(app: App, photo: str) -> None:
    answer, grid = answer_of(call(app, "caption", image=photo, num_captions=2, strategy="beam"))
    assert len(answer["captions"]) == 2
    assert answer["captions"][0]["text"] == " ".join(answer["captions"][0]["words"]) != ""
    picture = Image.open(io.BytesIO(grid))
    assert picture.format == "PNG" and min(picture.size) >= 128


def test_a_beginning_and_a_region(app: App, photo: str) -> None:
    answer, _ = answer_of(call(app, "complete", image=photo, prefix="two dogs"))
    assert answer["captions"][0]["words"][:2] == ["two", "dogs"]
    box = {"left": 0, "top": 0, "right": 0.5, "bottom": 0.5}
    answer, _ = answer_of(call(app, "caption_region", image=photo, num_captions=1, **box))
    assert len(answer["captions"]) == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (data_url(b"Dear Sir or Madam"), "not a picture"),
        ("http://127.0.0.1:9/photo.jpg", "data:image/png;base64,"),
        (str(ROOT / "pyproject.toml"), "data:image/png;base64,"),
        ((ROOT / "assets").as_uri(), "data:image/png;base64,"),
        (
            f"http://127.0.0.1:9/gradio_api/file={ROOT}/assets/ablation.png",
            "data:image/png;base64,",
        ),
        ("iVBORw0KGgo=", "data:image/png;base64,"),
    ],
)
def test_bad_pictures_are_refused(app: App, image: str, message: str) -> None:
    result = call(app, "caption", image=image)
    assert result.isError
    text = " ".join(content.text for content in result.content)
    assert message in text and "Traceback" not in text
    assert "tool.setuptools" not in text  # what is in pyproject.toml


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['mcp'] = None; import app; sys.exit(app.main(['--mcp']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.strip() == '--mcp needs one more package: pip install "gradio[mcp]"'
