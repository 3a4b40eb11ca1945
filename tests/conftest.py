"""Fixtures for all tests: where the data is, and small photos made from a seed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reads it when it is imported

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from app_process import App
    from gradio_client import Client
    from playwright.sync_api import Browser, ConsoleMessage, Page

Photo = Callable[..., Image.Image]
DESKTOP = {"width": 1280, "height": 960}
Mount = Callable[[str], Path]


def pytest_configure() -> None:
    # Shells start what they run in the background with Ctrl-C ignored, which programs inherit: the
    # tests that interrupt one would then wait forever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files with slow tests come first, so that no worker is left alone with one at the end.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    # Keras asks TensorFlow's tensors for a copy in a way that NumPy 2 calls outdated; nothing of
    # ours can change that. A mark, because `-W error` overrules the settings file, not a mark.
    keras_and_numpy = pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    )
    for item in items:
        item.add_marker(keras_and_numpy)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """After each test: all threads that the package started during the test have ended."""

    def own_threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("captioner ")}

    before = own_threads()
    yield
    left = own_threads() - before
    for thread in left:
        thread.join(5)
    assert not [thread.name for thread in left if thread.is_alive()]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data sets and weights; the test is skipped where it is missing."""
    folder = Path(os.environ.get("CAPTIONER_DATA") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set CAPTIONER_DATA to the folder with the data sets")
    return folder


@pytest.fixture(scope="session")
def flickr8k(shared: Path) -> Path:
    return _data_set(shared, "flickr8k")


@pytest.fixture(scope="session")
def coco_mini(shared: Path) -> Path:
    return _data_set(shared, "coco-mini")


def _data_set(shared: Path, name: str) -> Path:
    folder = shared / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}")
    return folder


@pytest.fixture(scope="session")
def metrics() -> None:
    """Skips the test if the caption scorers cannot run."""
    from captioner.evaluation.metrics import MetricsUnavailable, require_metrics

    try:
        require_metrics()
    except MetricsUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount("size=1m")`: a new folder, on a file system of its own in memory."""
    folders: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"a file system ({options}) cannot be mounted here: that takes root")
        folders.append(folder)
        return folder

    yield make
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def write_colours(folder: Path, photo: Photo, captions: Sequence[str], train: int) -> Path:
    """Writes twelve small photos with a captions file, and returns the folder.

    The first `train` photos are to train on, the others to validate. Each photo has all `captions`,
    in which "{}" becomes one of three colours.
    """
    lines = ["image,caption,split"]
    for number in range(12):
        photo(number).save(folder / f"{number:02d}.png")
        colour = ("red", "green", "blue")[number % 3]
        split = "train" if number < train else "val"
        lines += [f"{number:02d}.png,{caption.format(colour)},{split}" for caption in captions]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def photo() -> Photo:
    """`photo(seed, width, height)`: an RGB image, smooth as photos are, no two corners alike."""

    def make(seed: int = 0, width: int = 48, height: int = 32) -> Image.Image:
        colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture(scope="session")
def random_backbone():
    """An InceptionV3 that has learnt nothing, small, but whose features depend on the photo.

    Its weights are the same under every backend.
    """
    import keras

    from captioner.model.backbone import BLANK

    with keras.utils.custom_object_scope(BLANK):
        backbone = keras.applications.InceptionV3(
            include_top=False, weights=None, input_shape=(75, 75, 3)
        )
    random = np.random.default_rng(0)
    for variable in backbone.variables:
        if variable.name == "kernel":  # (rows, columns, channels in, channels out), as Keras does
            fans = np.prod(variable.shape[:3]) + np.prod([*variable.shape[:2], variable.shape[3]])
            limit = np.sqrt(6 / fans)
            variable.assign(random.uniform(-limit, limit, variable.shape))
        # As Keras does, the signal would die away: features near 1e-4, below what float16 resolves.
        elif variable.name == "moving_variance":
            variable.assign(random.uniform(0.45, 0.65, variable.shape))
        elif variable.name == "beta":
            variable.assign(random.normal(0, 0.005, variable.shape))
    return backbone


@pytest.fixture(scope="session")
def backbone_file(random_backbone, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "random.weights.h5"
    random_backbone.save_weights(path)
    return path


@pytest.fixture(scope="session")
def backbone(backbone_file):
    """`random_backbone` as the program reads it from its file. Tests must not change it."""
    from captioner.model.backbone import build_backbone

    return build_backbone(backbone_file, image_size=75)


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The real app with the bundled checkpoint, in a process of its own."""
    from app_process import running_app

    with running_app(tmp_path_factory.mktemp("app"), "--mcp") as running:
        yield running


@pytest.fixture(scope="module")
def client(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Gradio's client of the running app, as programs use it."""
    from gradio_client import Client

    folder = tmp_path_factory.mktemp("downloads")
    client = Client(app.url, verbose=False, download_files=str(folder))
    yield client
    client.close()


# Not for the whole session: Playwright keeps an event loop running, in which no other may start.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("chromium is not installed (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    # Without a GPU or a sandbox it runs in containers; it has a camera that shows a test picture;
    # the rest keeps it from calling its maker.
    arguments = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(app: App, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(viewport, path="", color_scheme=...)`: the page, loaded, with the film at rest. At
    the end of the test: it has reported no error but those that match the pattern `expected`, and
    has asked nothing of any other host."""
    pages, errors, hosts = [], [], set()

    def make(
        viewport: dict[str, int] = DESKTOP,
        path: str = "",
        expected: str | None = None,
        **options: object,
    ) -> Page:
        def note(message: ConsoleMessage) -> None:
            if message.type == "error" and (
                expected is None or not re.search(expected, message.text)
            ):
                errors.append(message.text)

        options = {"viewport": viewport, "reduced_motion": "reduce"} | options
        page = chromium.new_page(**options)
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", note)
        page.on("request", lambda request: hosts.add(urlparse(request.url).hostname))
        page.goto(app.url + path)
        page.wait_for_selector("#viewer .result, #viewer .empty", state="attached")
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.close()
    assert errors == []
    assert hosts <= {"127.0.0.1", None}  # None: data and blob URLs
