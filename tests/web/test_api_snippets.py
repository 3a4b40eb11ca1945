"""What the page shows under "Use via API" runs as it stands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from app_process import App
from playwright.sync_api import Page, expect


@pytest.fixture(scope="module")
def endpoints(app: App) -> dict:
    return httpx.get(app.url + "gradio_api/info").raise_for_status().json()["named_endpoints"]


def test_each_has_one_for_this_server(app: App, endpoints: dict) -> None:
    assert set(endpoints) >= {"/caption", "/complete", "/caption_region", "/caption_batch"}
    for endpoint in endpoints.values():
        for language in ("python", "javascript", "bash"):
            snippet = endpoint["code_snippets"][language]
            assert f"{app.url}gradio_api/file=" in snippet
            assert "githubusercontent" not in snippet and ".invalid" not in snippet


def test_visitors_see_the_address_by_which_they_call(app: App) -> None:
    for host in ("one.example", "two.example:8080"):
        answer = httpx.get(app.url + "gradio_api/info", headers={"host": host})
        snippets = answer.json()["named_endpoints"]["/caption"]["code_snippets"]
        for language in ("python", "javascript", "bash"):
            assert f"http://{host}/gradio_api/file=" in snippets[language]
        assert f'Client("http://{host}' in snippets["python"]


@pytest.mark.parametrize("header", ["host", "x-forwarded-host", "x-gradio-server"])
def test_nobody_changes_the_programs_of_others(app: App, header: str) -> None:
    for evil in ('evil.example"', "evil.example';id;'", "evil.example$(id)", "evil.example"):
        url = f"http://{evil}" if header == "x-gradio-server" else evil
        for path in ("info", "info?all_endpoints=true", "openapi.json", "info/"):
            answer = httpx.get(f"{app.url}gradio_api/{path}", headers={header: url})
            if evil != "evil.example" and "info" in path:
                assert "evil" not in answer.text
        answer = httpx.get(app.url + "gradio_api/info")
        assert "evil" not in answer.text and f"{app.url}gradio_api/file=" in answer.text


def test_the_page_shows_these_programs(open_page: Callable[..., Page], app: App) -> None:
    page = open_page(expected="")
    page.get_by_role("button", name="Use via API").click()
    panel = page.locator(".api-docs")
    expect(panel).to_contain_text(f"{app.url}gradio_api/file=")
    assert "githubusercontent" not in panel.inner_text()


@pytest.mark.parametrize("name", ["/caption", "/caption_batch"])
def test_the_python_snippet(app: App, endpoints: dict, name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", endpoints[name]["code_snippets"]["python"]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "'captions': [{'text': '" in done.stdout


@pytest.mark.parametrize("name", ["/caption", "/caption_batch"])
def test_the_shell_snippet(app: App, endpoints: dict, name: str, tmp_path: Path) -> None:
    snippet = endpoints[name]["code_snippets"]["bash"]
    command = ["bash", "-euo", "pipefail", "-c", snippet]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "event: complete" in done.stdout, done.stdout
    data = next(line for line in done.stdout.splitlines() if line.startswith("data: "))
    assert "captions" in json.dumps(json.loads(data.removeprefix("data: ")))
