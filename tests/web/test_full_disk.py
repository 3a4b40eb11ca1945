"""No room for what visitors send: the page and the endpoint say so, and the log has one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest
from app_process import running_app
from conftest import Mount


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_sentence(chromium, mount: Mount, tmp_path: Path) -> None:
    disk = mount("size=300k")
    command = ("env", f"TMPDIR={disk}", f"GRADIO_TEMP_DIR={disk}", sys.executable, "app.py")
    photo = tmp_path / "large.png"
    photo.write_bytes(os.urandom(600_000))  # larger than the disk; it is not even looked at
    with running_app(tmp_path, command=command) as app:
        answer = httpx.post(
            app.url + "gradio_api/upload", files={"files": ("large.png", photo.read_bytes())}
        )
        assert answer.status_code == 507 and "no room left" in answer.text
        page = chromium.new_page()
        page.goto(app.url)
        page.set_input_files("#photo-file", photo)
        message = page.locator("#viewer .refused span")
        message.filter(has_text="The server has no room left").wait_for()
        page.close()
        assert list(disk.glob("**/tmp*")) == [], "what had come of them makes room again"
        assert app.log.count("No space left") == 2  # one line for each
        assert "Traceback" not in app.log
        sent = httpx.post(app.url + "gradio_api/upload", files={"files": ("a.png", b"a photo")})
        (kept,) = map(Path, sent.json())
        assert kept.is_file()
    assert not kept.exists(), "SIGTERM ended the app, which deletes the files of visitors first"
    assert "Traceback" not in (tmp_path / "app.log").read_text()
