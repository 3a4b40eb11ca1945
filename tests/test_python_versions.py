"""Only versions of Python that TensorFlow has wheels for are taken; others get one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from app_process import ROOT
from packaging.specifiers import SpecifierSet

# Answers as a Python of another version would, and only says that it was asked for a venv.
POSING = """#!/bin/sh
if [ "$1" = -m ]; then echo "asked for $2 $3"; exit 1; fi
exec {python} -c 'import sys; sys.version_info = ({version}, 0); exec(sys.argv[2])' "$@"
"""


@pytest.mark.parametrize(
    ("version", "taken"),
    [("3.10", False), ("3.11", True), ("3.13", True), ("3.14", False), ("4.0", False)],
)
def test_make_and_pip_take_the_same_versions(tmp_path: Path, version: str, taken: bool) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("a Python that was removed")
    (tmp_path / ".venv" / "app.done").touch()
    python = tmp_path / "my posing"
    python.write_text(POSING.format(python=sys.executable, version=version.replace(".", ", ")))
    python.chmod(0o755)
    command = ["make", "-f", str(ROOT / "Makefile"), ".venv/app.done", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ("asked for venv .venv" in done.stdout) == taken
    sentence = f"needs Python 3.11, 3.12 or 3.13, and this is {version}. Choose another: make app"
    assert (sentence in done.stderr) == (not taken)
    assert "Traceback" not in done.stderr

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert SpecifierSet(project["requires-python"]).contains(f"{version}.0") == taken
