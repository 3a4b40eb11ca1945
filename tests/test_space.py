"""`make space`: the folder is complete, holds nothing else, and the app runs from it alone.

With CAPTIONER_CLEAN_ENVIRONMENT=1 in the environment it runs in a new virtual environment with
nothing but the folder's requirements.txt, whose installation takes minutes.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from app_process import ROOT, running_app
from gradio_client import Client, handle_file
from huggingface_hub import SpaceCard
from links import broken_links

from captioner.web.examples import example_photos

CHECKPOINT = ["README.md", "backbone.safetensors", "config.json", "decoder.safetensors"]
CHECKPOINT += ["loss.png", "metrics.json", "vocabulary.json"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, far from the repository."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run(["make", "--silent", "space"], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("hosted") / "space"
    shutil.move(ROOT / "build" / "space", folder)
    return folder


def test_nothing_is_missing_and_nothing_too_many(space: Path) -> None:
    found = {str(path.relative_to(space)) for path in space.rglob("*") if path.is_file()}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "captioner").rglob("*.*")
        if path.suffix != ".pyc"
    }
    checkpoint = {f"assets/checkpoint/{name}" for name in CHECKPOINT}
    top = {".gitattributes", "LICENSE", "README.md", "app.py", "requirements.txt"}
    top |= {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"}
    docs = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.*") if path.is_file()}
    found -= {path for path in found if path.startswith("assets/") and path.endswith(".png")}
    checkpoint -= {"assets/checkpoint/loss.png"}
    examples = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "assets" / "examples").iterdir()
        if path.suffix != ".png"
    }
    assert found == top | checkpoint | package | docs | examples
    pictures = [
        {str(path.relative_to(root)) for path in (root / "assets").rglob("*.png")}
        for root in (space, ROOT)
    ]
    assert pictures[0] == pictures[1]


def test_the_front_matter_configures_the_space(space: Path) -> None:
    settings = SpaceCard.load(space / "README.md").data
    assert settings.sdk == "gradio" and settings.app_file == "app.py"
    requirement = next(
        line for line in (space / "requirements.txt").read_text().splitlines() if "gradio" in line
    )
    assert f">={settings.sdk_version.rpartition('.')[0]}," in requirement
    assert settings.python_version >= "3.11"


def test_people_read_the_readme_without_the_front_matter(space: Path) -> None:
    ours = (ROOT / "README.md").read_text("utf-8")
    assert ours.startswith("# ")
    assert (space / "README.md").read_text("utf-8").endswith(f"---\n\n{ours}")


def test_no_link_is_broken_in_the_folder(space: Path) -> None:
    assert broken_links(space) == []


def test_lfs_takes_what_the_hub_wants_it_to(space: Path) -> None:
    lines = (space / ".gitattributes").read_text().splitlines()
    patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
    for path in space.rglob("*"):
        if not path.is_file():
            continue
        binary = b"\0" in path.read_bytes()
        by_lfs = any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
        assert by_lfs == (binary or path.stat().st_size > 10e6), path


@pytest.mark.timeout(1800)
def test_the_app_runs_from_the_folder_alone(space: Path, tmp_path: Path) -> None:
    python = Path(sys.executable)
    if os.environ.get("CAPTIONER_CLEAN_ENVIRONMENT") == "1":
        venv.create(tmp_path / "venv", with_pip=True)
        python = tmp_path / "venv" / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "-r", space / "requirements.txt"]
        subprocess.run(install, check=True)
    # -E, -s: nothing that the environment or the user's own packages would add.
    with running_app(tmp_path, command=(python, "-E", "-s", "app.py"), cwd=space) as app:
        client = Client(app.url, verbose=False, download_files=str(tmp_path))
        answer, _ = client.predict(handle_file(example_photos()[0]), api_name="/caption")
        client.close()
        assert len(answer["captions"]) == 3
        assert str(ROOT / "captioner") not in app.log
    used = {path.name for path in (space / "captioner" / "web").glob("__pycache__/*")}
    assert any(name.startswith("batching.") for name in used), "it is the folder's package that ran"
