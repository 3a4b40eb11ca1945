"""Prepares the process: the environment variables, files and limits that the program depends on.

Each command calls `settle_page()` or `settle()` before anything of the model is imported. A program
that uses `captioner` as a library keeps its own environment; for it, `defend_import()` suffices.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from captioner.allocator import keep_freed_memory
from captioner.errors import CaptionerError, report
from captioner.files import allow_open_files
from captioner.streams import repair_streams, without_notes
from captioner.unusable_variables import drop_unusable, drop_unusable_numbers

logger = logging.getLogger(__name__)

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax"}  # Keras's name -> the package
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN_FILES = 1024  # for photos, connections and libraries; a feature cache asks for more itself
# These variables change numerical results, or how many epochs and steps are trained, or let JAX
# refuse what Keras does.
UNWANTED = (
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_ENABLE_X64",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_NUMPY_RANK_PROMOTION",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_TRANSFER_GUARD",
    "KERAS_MAX_EPOCHS",
    "KERAS_MAX_STEPS_PER_EPOCH",
)
# What Gradio may read from the environment. Others of its variables publish the page or files of
# this machine, start more processes, or make its import fail. `web.address` reads
# GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.
FOR_GRADIO = ("GRADIO_TEMP_DIR", "GRADIO_ROOT_PATH", "GRADIO_API_SERVER")

# It lies beside the package in the repository and in a Space. An installed package lacks it.
BUNDLED_CHECKPOINT = Path(__file__).parents[1] / "assets" / "checkpoint"


class EnvironmentUnusable(CaptionerError, RuntimeError):
    """A setting of this machine, or a missing package, makes it impossible to run the program."""


def prepare(page: bool = False) -> None:
    """Makes the process independent of other programs' settings, without importing Keras.

    Args:
        page: Whether the process serves the page. It then returns large pieces of freed memory to
            the system (`keep_freed_memory`).

    Raises:
        EnvironmentUnusable: KERAS_BACKEND names a backend that this program cannot use, no usable
            one is installed, or the working folder is gone.
    """
    repair_streams()
    try:
        os.getcwd()  # libraries ask for it when they are imported
    except OSError as error:
        raise EnvironmentUnusable(
            f"the working folder cannot be used ({error.strerror}). Change to another one."
        ) from error
    keep_freed_memory(even_large=not page)
    allow_open_files(OPEN_FILES)
    os.environ["MPLBACKEND"] = "agg"  # this program opens no windows
    os.environ["KERAS_NNX_ENABLED"] = "false"  # it needs a further package
    for name in UNWANTED:
        os.environ.pop(name, None)
    drop_unusable()
    _choose_keras_home()
    _choose_backend()


def settle(page: bool = False) -> None:
    """Calls `prepare`, then imports Keras without any output, which takes seconds.

    Args:
        page: Whether the process serves the page: see `prepare`.

    Raises:
        EnvironmentUnusable: As in `prepare`, or a variable has a value that cannot be used.
    """
    prepare(page)
    if page:
        _drop_unknown_xla_flags()
    try:
        keras = _import_keras()
    except ValueError as error:  # JAX reads its variables when it is imported
        raise EnvironmentUnusable(
            f"an environment variable has a value that cannot be used ({error}). Unset it."
        ) from error
    except ImportError as error:  # it is installed, which is not to say that it works
        lines = [line.strip() for line in str(error).splitlines() if "rror: " in line]
        raise EnvironmentUnusable(
            f"{os.environ['KERAS_BACKEND']} cannot be imported ({(lines or [error])[-1]}). If the "
            "memory is limited (ulimit -v), raise the limit; otherwise install it again."
        ) from error
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        # Otherwise, products of float32 numbers are less exact on newer GPUs of NVIDIA (TF32).
        tensorflow: Any = importlib.import_module("tensorflow")
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    # Each search is traced for one photo and for many. TensorFlow warns of that as of a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # keras.json in the home folder may have changed these. The model's own code does not rely on
    # them, but layers that Keras builds internally do.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    if page:
        check_devices()


def check_devices() -> None:
    """Checks that JAX finds the devices that JAX_PLATFORMS names. Other hosts of a run have to be
    found before.

    Raises:
        EnvironmentUnusable: It does not.
    """
    named = os.environ.get("JAX_PLATFORMS")
    if os.environ["KERAS_BACKEND"] != "jax" or not named:
        return
    try:
        importlib.import_module("jax").devices()
    except (RuntimeError, AssertionError) as error:
        raise EnvironmentUnusable(
            f"JAX_PLATFORMS is {named!r}, and JAX has no such device here. Unset it, or set it to "
            "cpu."
        ) from error


def run_settled(module: str, options: argparse.Namespace) -> int:
    """Calls `settle()`, then imports a module and calls its `run(options)`. Prints errors.

    Returns:
        The exit status.
    """
    try:
        settle()
        return importlib.import_module(module).run(options)
    except (CaptionerError, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        return 130


def settle_page(host: str = LOOPBACK[1]) -> None:
    """`settle` for the page: without output and telemetry, and with the settings that Gradio needs.

    Args:
        host: The address that the page will be served at.

    Raises:
        EnvironmentUnusable: As in `settle`, or there is no folder for visitors' files.
    """
    # These are variables, not arguments, because both libraries read them when they are imported,
    # and because with --mcp, Gradio's own client inside the server respects nothing else.
    ignored = sorted(n for n in os.environ if n.startswith("GRADIO_") and n not in FOR_GRADIO)
    for name in ignored:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # The page sends a request to itself to see whether it has started. No proxy can answer that.
    _without_proxy(*LOOPBACK, host.strip("[]"))
    _choose_upload_folder()
    settle(page=True)


def defend_import() -> None:
    """Makes sure that Keras and Matplotlib can be imported, and that TensorFlow prints no notes."""
    drop_unusable_numbers()
    if "MPLBACKEND" in os.environ and "matplotlib" not in sys.modules:
        _ignore_unknown_mplbackend()  # first, because Keras imports Matplotlib
    _import_keras()


def _ignore_unknown_mplbackend() -> None:
    """Removes MPLBACKEND if it has a value with which Matplotlib cannot be imported.

    This package does not need it: it only uses Matplotlib's fonts and draws into files.
    """
    try:
        importlib.import_module("matplotlib")
    except ValueError:
        value = os.environ.pop("MPLBACKEND")
        logger.warning("MPLBACKEND=%s is unknown to Matplotlib and ignored", value)
        # A second import must not find the modules that the failed one has left.
        for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[module]


def _choose_backend() -> None:
    """Sets KERAS_BACKEND: its own value comes first, then that of keras.json, then what is
    installed."""
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
    preferred = (_keras_json() or {}).get("backend")
    usable = [name for name in (preferred, *BACKENDS) if name in BACKENDS and _installed(name)]
    if not usable:
        raise EnvironmentUnusable(
            "neither TensorFlow nor JAX is installed. Run: pip install -r requirements.txt"
        )
    os.environ["KERAS_BACKEND"] = asked or usable[0]


def _choose_keras_home() -> None:
    """Sets KERAS_HOME to an empty folder if the user's keras.json would stop Keras."""
    if given := os.environ.pop("KERAS_HOME", ""):  # an empty one is the working folder for Keras
        os.environ["KERAS_HOME"] = os.path.expanduser(given)
    if _keras_json() is None:
        logger.warning("%s cannot be used by Keras and is ignored", _keras_json_path())
        os.environ["KERAS_HOME"] = folder = tempfile.mkdtemp(prefix="keras-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _keras_json_path() -> Path:
    home = os.path.expanduser("~")
    base = home if os.access(home, os.W_OK) else "/tmp"  # as Keras has it
    return Path(os.environ.get("KERAS_HOME") or f"{base}/.keras", "keras.json")


def _keras_json() -> dict[str, Any] | None:
    """The settings in keras.json: none if it is missing or not JSON, which Keras accepts. None if
    Keras would raise an error."""
    path = _keras_json_path()
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text("utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}
    usable = (
        isinstance(settings, dict)
        and isinstance(settings.get("backend", ""), str)
        and settings.get("floatx", "float32") in ("float16", "float32", "float64")
        and isinstance(settings.get("epsilon", 1e-7), float)
        and settings.get("image_data_format", "channels_last")
        in ("channels_last", "channels_first")
    )
    return settings if usable else None


def _installed(backend: str) -> bool:
    return importlib.util.find_spec(BACKENDS[backend]) is not None


def _drop_unknown_xla_flags() -> None:
    """Removes XLA_FLAGS if XLA does not know one of the flags.

    XLA then ends the whole process when it compiles its first program. Under TensorFlow, that is a
    search that visitors have often asked for, hours after the start.
    """
    flags = os.environ.get("XLA_FLAGS")
    if not flags or not _installed("tensorflow"):
        return
    program = "import tensorflow as tf; tf.function(lambda: tf.constant(1) + 1, jit_compile=True)()"
    variables = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    tried = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True)
    if tried.returncode and b"XLA_FLAGS" in tried.stderr:
        logger.warning("XLA_FLAGS=%s has a flag that XLA does not know, and is ignored", flags)
        del os.environ["XLA_FLAGS"]


def _without_proxy(*hosts: str) -> None:
    given = [os.environ[name] for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)]
    names = [host.strip() for hosts in given for host in hosts.split(",")]
    # Both are set, because programs differ in which one they read.
    joined = ",".join(dict.fromkeys([*filter(None, names), *hosts]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = joined


def _choose_upload_folder() -> None:
    """Sets GRADIO_TEMP_DIR, if it is not set, and checks that files can be written there."""
    given = os.environ.get("GRADIO_TEMP_DIR")
    try:
        folder = Path(given) if given else _own_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentUnusable(
            f"there is no folder for the files of visitors ({error}). Set GRADIO_TEMP_DIR to a "
            "folder that can be written to."
        ) from error
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def _own_folder() -> Path:
    """A temporary folder of this user alone, the same at every start if possible.

    Gradio's default folder belongs to the first user who starts a Gradio page on this machine.
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


def _import_keras() -> ModuleType:
    """Imports Keras and its backend, which takes seconds the first time."""
    if "keras" in sys.modules:
        return sys.modules["keras"]
    with without_notes(), _naming_matplotlibrc():
        return importlib.import_module("keras")


@contextmanager
def _naming_matplotlibrc() -> Iterator[None]:
    """Raises `EnvironmentUnusable` if the user's matplotlibrc keeps Matplotlib from being imported.

    Keras imports Matplotlib. Only Matplotlib's log has the name of the file.
    """
    said: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return False  # the error says it

    log = logging.getLogger("matplotlib")
    log.addFilter(note)
    try:
        yield
    except UnicodeDecodeError as error:
        if not said:
            raise
        raise EnvironmentUnusable(
            f"{said[-1].rstrip('.')}, so Matplotlib cannot be used. Save that file as UTF-8, or "
            "move it away."
        ) from error
    finally:
        log.removeFilter(note)
