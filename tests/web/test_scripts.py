"""The linter of the page's JavaScript finds what a browser would stumble over."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from app_process import ROOT

from captioner.web import scripts


def lint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> tuple[int, list[str]]:
    """Exit status and lines of `tools/lint_scripts.py`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("lint_scripts", ROOT / "tools/lint_scripts.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    status = program.main()
    return status, capsys.readouterr().out.splitlines()


def test_mistakes_are_found_where_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if not Path(sys.executable).with_name("oxlint").exists():
        pytest.skip("oxlint is not installed")
    for folder in ("viewer", "intake"):
        shutil.copytree(scripts.HERE / folder, tmp_path / folder)
    monkeypatch.setattr(scripts, "HERE", tmp_path)
    assert lint(monkeypatch, capsys) == (0, []), "moveWithin is used by one part only"
    for name, line in (("viewer/elements", "const orphan = 1;"), ("intake/camera", "unknown();")):
        file = tmp_path / f"{name}.js"
        file.write_text(f"{line}\n{file.read_text('utf-8')}", "utf-8")
    status, found = lint(monkeypatch, capsys)
    assert status == 1
    assert [line.partition(": ")[0] for line in found] == [
        "captioner/web/intake/camera.js:1",
        "captioner/web/viewer/elements.js:1",
    ]
