"""The wheel: installed outside the repository, it has all that captioning and the page need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import gradio
import pytest

ROOT = Path(__file__).parents[1]
PHOTO = Path(gradio.__file__).parent / "media_assets" / "images" / "lion.jpg"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git knows, in a folder of their own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "captioner", "pyproject.toml", "README.md", "LICENSE", "requirements*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*build, "--no-build-isolation", "-w", target, source], check=True)
    (built,) = target.glob("captioner-*.whl")
    return built


@pytest.mark.slow
def test_everything_is_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("captioner/")}
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "captioner").rglob("*.*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == ours


@pytest.mark.slow
def test_installed_it_captions_a_photo(wheel: Path, tmp_path: Path) -> None:
    """With the dependencies of this environment, which a new one would take minutes to install."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-index", wheel], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    others = [path for path in sys.path if path.endswith("-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    where = "import captioner, captioner.web.page; print(captioner.__file__)"
    for command, expected in (
        ([python, "-c", where], str(site)),
        ([tmp_path / "venv" / "bin" / "captioner", "--help"], "PHOTO"),
    ):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert expected in done.stdout, done.stderr
    checkpoint = ["--checkpoint", ROOT / "assets" / "checkpoint", "--json", "--num-captions", "1"]
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "captioner", PHOTO, *checkpoint],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["captions"][0]["text"]
