"""What others have set, and this program depends on: every variable, file and limit in one place.

Each command calls `settle_page()` or `settle()` first, before anything of the model is imported.
`defend_import()` is the little that a program needs which uses `captioner` as a library, whose
environment is its own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from captioner.allocator import keep_freed_memory
from captioner.errors import CaptionerError
from captioner.files import allow_open_files

logger = logging.getLogger(__name__)

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax"}  # Keras's name -> the package
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
PROXY_KINDS = ("http", "https", "socks5", "socks5h")  # that httpx can use
OPEN_FILES = 1024  # photos, connections and libraries; a cache of features asks for more itself
# They change what the same numbers are computed to, or how much is computed of what was asked for.
UNWANTED = (
    "JAX_ENABLE_X64",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_NUMPY_RANK_PROMOTION",
    "KERAS_MAX_EPOCHS",
    "KERAS_MAX_STEPS_PER_EPOCH",
)

# Beside the package in the repository and in a Space; an installed package comes without it.
BUNDLED_CHECKPOINT = Path(__file__).parents[1] / "assets" / "checkpoint"


class EnvironmentUnusable(CaptionerError, RuntimeError):
    """Something that is set on this machine, or missing, without which nothing can be done."""


def prepare(page: bool = False) -> None:
    """Makes the process independent of what others have set, as far as that needs no Keras.

    Args:
        page: Whether the process serves a page: then it keeps no large pieces of freed memory
            (`keep_freed_memory`).

    Raises:
        EnvironmentUnusable: There is no backend of Keras that this program can compute with.
    """
    # A caption may have letters that the terminal's encoding has not: no reason to end.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # ty: ignore[not-callable]
    keep_freed_memory(even_large=not page)
    allow_open_files(OPEN_FILES)
    os.environ["MPLBACKEND"] = "agg"  # nothing is shown in windows
    for name in UNWANTED:
        os.environ.pop(name, None)
    _drop_unusable_proxies()
    _choose_backend()


def settle(page: bool = False) -> None:
    """`prepare`, then imports Keras, which takes seconds: without a word if it is for the `page`.

    Raises:
        EnvironmentUnusable: As `prepare`.
    """
    prepare(page)
    # TensorFlow's C++ parts write notes about missing GPUs to standard error, past Python and past
    # every setting, because their log is not ready yet. They look like errors.
    with _quiet_until_failure() if page else contextlib.nullcontext():
        keras = importlib.import_module("keras")
    # What keras.json in the home folder may say otherwise. It is the process's own setting, which
    # the model's code does not rely on; layers that Keras itself builds inside do.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)


def run_settled(module: str) -> int:
    """`main()` of a module, which is imported only after `settle()`; gives the exit status."""
    try:
        settle()
    except EnvironmentUnusable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return importlib.import_module(module).main()


def settle_page(host: str | None = None) -> None:
    """`settle` for the page: quietly, without telemetry, and with what Gradio depends on.

    Args:
        host: The address that the page is going to be served at, if it is given.

    Raises:
        EnvironmentUnusable: As `settle`, or there is no folder for what visitors send.
    """
    # Variables, not arguments: with --mcp, Gradio's own client inside the server heeds only these,
    # and both libraries read them when they are imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # The page asks itself whether it has started, which no proxy can answer.
    _without_proxy(*LOOPBACK, *([host] if host else []))
    _choose_upload_folder()
    settle(page=True)
    # Each search is traced for one photo and for many, which TensorFlow takes for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def defend_import() -> None:
    """Matplotlib cannot be imported where MPLBACKEND names a display that it does not know.

    All that this package uses of it are its fonts, colour maps and pictures.
    """
    if "MPLBACKEND" not in os.environ or "matplotlib" in sys.modules:
        return
    try:
        importlib.import_module("matplotlib")
    except ValueError:
        logger.warning(
            "MPLBACKEND=%s is unknown to Matplotlib and ignored", os.environ["MPLBACKEND"]
        )
        del os.environ["MPLBACKEND"]
        # What it has imported of itself by then is not part of a second try.
        for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[module]


def _choose_backend() -> None:
    """Sets KERAS_BACKEND to what it says, to what keras.json says, or to what is installed."""
    asked = os.environ.get("KERAS_BACKEND")
    if asked and asked not in BACKENDS:
        raise EnvironmentUnusable(
            f"KERAS_BACKEND is {asked!r}: this program computes with tensorflow or jax. Unset it, "
            "or set it to one of these."
        )
    if asked and not _installed(asked):
        raise EnvironmentUnusable(
            f"KERAS_BACKEND is {asked!r}, which is not installed. Run: pip install {asked}"
        )
    usable = [name for name in (_backend_of_keras_json(), *BACKENDS) if name and _installed(name)]
    if not usable:
        raise EnvironmentUnusable(
            "neither TensorFlow nor JAX is installed. Run: pip install -r requirements.txt"
        )
    os.environ["KERAS_BACKEND"] = asked or usable[0]


def _backend_of_keras_json() -> str | None:
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    try:
        backend = json.loads(Path(home, "keras.json").read_text("utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return backend if backend in BACKENDS else None


def _installed(backend: str) -> bool:
    return importlib.util.find_spec(BACKENDS[backend]) is not None


def _drop_unusable_proxies() -> None:
    """Without them, httpx refuses even connections that need no proxy."""
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        url = os.environ.get(name, "")
        kind = urlsplit(url).scheme if "://" in url else "http"
        if kind not in PROXY_KINDS:
            # The address is left out, because it may hold a password.
            logger.warning("%s names a proxy of an unknown kind (%s) and is ignored", name, kind)
            del os.environ[name]


def _without_proxy(*hosts: str) -> None:
    given = [os.environ[name] for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)]
    names = [host.strip() for hosts in given for host in hosts.split(",")]
    # Both, because programs differ in which one they read.
    joined = ",".join(dict.fromkeys([*filter(None, names), *hosts]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = joined


def _choose_upload_folder() -> None:
    """Sets GRADIO_TEMP_DIR, unless it is set, and sees that files can be written there."""
    given = os.environ.get("GRADIO_TEMP_DIR")
    try:
        folder = Path(given) if given else _own_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentUnusable(
            f"what visitors send cannot be written anywhere ({error}). Set GRADIO_TEMP_DIR to a "
            "folder that can be written to."
        ) from error
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def _own_folder() -> Path:
    """A temporary folder of this user alone, the same at every start if possible.

    Gradio's own belongs to whoever started a page of it first on this machine.
    """
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir(), f"gradio-{user}" if user != "" else "gradio")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        ours = user == "" or folder.stat().st_uid == user
        if ours and not folder.is_symlink() and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="gradio-"))


@contextlib.contextmanager
def _quiet_until_failure() -> Iterator[None]:
    """Nothing goes to standard error, unless an exception leaves: then all of it does after all."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError):  # there is no real standard error, as under pythonw
        yield
        return
    sys.stderr.flush()
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), descriptor)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            if failed:
                notes.seek(0)
                shutil.copyfileobj(notes, sys.stderr.buffer)
                sys.stderr.flush()
