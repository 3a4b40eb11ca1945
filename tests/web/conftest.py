"""Fixtures for the tests of the page and its endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from app_process import App
    from gradio_client import Client


@pytest.fixture(scope="module")
def client(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Gradio's client of the running app, as programs use it."""
    from gradio_client import Client

    folder = tmp_path_factory.mktemp("downloads")
    client = Client(app.url, verbose=False, download_files=str(folder))
    yield client
    client.close()
