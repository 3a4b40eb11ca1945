"""The program among variables, files and limits that others have set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from app_process import ROOT, running_app
from gradio_client import Client, handle_file
from PIL import Image
from safetensors.numpy import load_file

from captioner import environment, streams
from captioner.checkpoint.checkpoint_folder import find_faults, read_config

PHOTO = ROOT / "assets" / "examples" / "photographer.png"
KERAS = {
    "floatx": "float16",
    "image_data_format": "channels_first",
    "epsilon": 0.1,
    "backend": "torch",
}
CHECKPOINT = ROOT / "assets" / "checkpoint"
NOBODY = "http://127.0.0.1:9"
SETTINGS = """
import os, sys
from captioner.environment import EnvironmentUnusable, settle_page
try:
    settle_page("10.1.2.3")
except EnvironmentUnusable as error:
    sys.exit(f"refused: {error}")
import keras, matplotlib, resource
print(keras.backend.backend(), keras.config.floatx(), keras.config.image_data_format())
print(keras.config.epsilon(), keras.config.max_epochs(), matplotlib.get_backend())
print(os.environ["no_proxy"])
print(os.environ.get("ALL_PROXY"), os.environ["HTTP_PROXY"])
print(os.environ["GRADIO_TEMP_DIR"])
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print("\\u0939")
print(sorted(name for name in os.environ if name.startswith("GRADIO_")))
"""
# Another program, which has its own settings and uses this package as a library.
LIBRARY = """
import sys
from captioner import Captioner
captioner = Captioner.from_pretrained("assets/checkpoint")
for strategy in ("greedy", "beam"):
    print(captioner.caption(sys.argv[1], strategy=strategy)[0].text)
import keras
print(keras.config.floatx(), keras.config.image_data_format())
"""


def hostile(folder: Path) -> dict[str, str]:
    (folder / "keras.json").write_text(json.dumps(KERAS))
    (folder / "tmp").mkdir()
    return {
        "KERAS_HOME": str(folder),
        "KERAS_MAX_EPOCHS": "0",
        "JAX_ENABLE_X64": "1",
        "MPLBACKEND": "of-a-notebook",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
        "TMPDIR": str(folder / "tmp"),
        "http_proxy": NOBODY,
        "HTTP_PROXY": NOBODY,
        "https_proxy": NOBODY,
        "ALL_PROXY": "socks4://user:secret@127.0.0.1:9",
        "no_proxy": "example.org, [::1],fd00::/8",
        "SSL_CERT_FILE": str(folder / "gone.pem"),
        "GRADIO_SERVER_PORT": "tcp://10.0.0.1:7860",
        "GRADIO_SHARE": "True",
        "GRADIO_ALLOWED_PATHS": "/",
        "GRADIO_NUM_WORKERS": "2",
    }


def run(program: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if k not in ("GRADIO_TEMP_DIR", "KERAS_BACKEND")}
    limited = ["bash", "-c", 'ulimit -Sn 128; exec "$0" "$@"']
    command = [*limited, sys.executable, "-c", program, *map(str, arguments)]
    environment = kept | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def test_what_others_have_set_is_neutralised(tmp_path: Path) -> None:
    done = run(SETTINGS, **hostile(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["tensorflow float32 channels_last", "1e-07 None agg"]
    assert lines[2] == "example.org,localhost,127.0.0.1,::1,10.1.2.3"
    assert lines[3] == f"None {NOBODY}", "what can be used stays"
    assert Path(lines[4]) == tmp_path / "tmp" / f"gradio-{os.getuid()}"
    assert int(lines[5]) >= 1024
    assert lines[6] == "\\u0939"
    assert lines[7] == "['GRADIO_ANALYTICS_ENABLED', 'GRADIO_TEMP_DIR']"
    assert "ALL_PROXY names a proxy of an unknown kind (socks4)" in done.stderr
    assert "secret" not in done.stderr
    assert "gone.pem cannot be used (No such file or directory) and is ignored" in done.stderr
    (tmp_path / "keras.json").write_text('{"floatx": "float8", "nnx_enabled": true}')
    done = run(
        SETTINGS,
        KERAS_HOME=str(tmp_path),
        XLA_FLAGS="--xla_gpu_no_such=true",
        NO_PROXY="[::1],example.org:80",
        HTTP_PROXY=NOBODY,
        HTTPS_PROXY="http://proxy:port",
        HF_HUB_DOWNLOAD_TIMEOUT="abc",
        TF_NUM_INTRAOP_THREADS="-3",
        TQDM_MININTERVAL="0,5",
        TQDM_MAXINTERVAL="2.5",
    )
    assert done.returncode == 0 and "keras.json cannot be used by Keras and is" in done.stderr
    assert done.stdout.splitlines()[2].startswith("example.org:80,localhost,127.0.0.1,::1,")
    assert "XLA_FLAGS=--xla_gpu_no_such=true has a flag that XLA does not know" in done.stderr
    assert "HTTPS_PROXY names a proxy with a malformed address and is ignored" in done.stderr
    for given in ("HF_HUB_DOWNLOAD_TIMEOUT=abc", "TF_NUM_INTRAOP_THREADS=-3", "MININTERVAL=0,5"):
        assert f"{given} is not a number that can be used, and is ignored" in done.stderr
    assert "MAXINTERVAL" not in done.stderr


def test_a_matplotlibrc_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"font.family: caf\xe9\n")
    done = run(SETTINGS, MATPLOTLIBRC=str(tmp_path))
    assert done.stderr.startswith(f"refused: Cannot decode configuration file '{tmp_path}")
    assert done.stderr.endswith("Save that file as UTF-8, or move it away.\n")
    assert len(done.stderr.splitlines()) == 1


def test_keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"backend": ["jax"]}')
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/.keras", "", str(tmp_path / ".keras")):
        monkeypatch.setenv("KERAS_HOME", given)
        environment._choose_keras_home()
        assert not os.listdir(os.environ["KERAS_HOME"])  # a folder of its own, without keras.json
    for given in ("~/other", ""):
        monkeypatch.setenv("KERAS_HOME", given)
        (tmp_path / ".keras" / "keras.json").write_text('{"backend": "jax"}')
        environment._choose_keras_home()
        assert os.environ.get("KERAS_HOME", "") == (str(tmp_path / "other") if given else "")


def test_variables_of_jax_that_would_make_it_refuse() -> None:
    # The first made a whole checkpoint seem damaged, the second ended in a traceback.
    variables = {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_TRANSFER_GUARD": "disallow"}
    variables["HTTP_PROXY"] = NOBODY
    draws = "import keras; print(keras.random.uniform((1,), seed=keras.random.SeedGenerator(0)))"
    done = run(SETTINGS + draws, KERAS_BACKEND="jax", **variables)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("["), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, limits differ")
def test_a_backend_that_cannot_be_imported_is_one_sentence() -> None:
    start = f'ulimit -v 1000000; exec "{sys.executable}" -m captioner "{PHOTO}"'
    variables = os.environ | {"KERAS_BACKEND": "tensorflow"}
    command = ["bash", "-c", start]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: tensorflow cannot be imported (")
    assert "If the memory is limited (ulimit -v), raise the limit" in done.stderr


def test_notes_are_not_held_back_without_a_place_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with streams.without_notes():
        pass


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"KERAS_BACKEND": "torch"}, "tensorflow or jax"),
        ({"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cuda"}, "JAX has no such device here. Unset"),
        ({"KERAS_BACKEND": "jax", "JAX_DEBUG_NANS": "often"}, "JAX_DEBUG_NANS"),
        ({"GRADIO_TEMP_DIR": "/proc/nowhere"}, "Set GRADIO_TEMP_DIR"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(variables: dict[str, str], reason: str) -> None:
    done = run(SETTINGS, **variables)
    assert done.stderr.startswith("refused: ") and reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


PRINTS = """
import os, sys, time
from captioner.environment import prepare
from captioner.streams import say
prepare()
sys.stdout.isatty(), sys.stderr.isatty(), sys.stdin.isatty()
say("first")
time.sleep(float(sys.argv[1]))
say("second")
with open(sys.argv[2], "w") as file:
    print("still alive", file=file)
"""


@pytest.mark.parametrize(
    ("shell", "wait", "seen"),
    [('exec "$0" "$@" <&- >&- 2>&-', 0, ""), ('"$0" "$@" | head -1', 0.5, "first\n")],
)
def test_streams_that_are_closed_or_break(
    tmp_path: Path, shell: str, wait: float, seen: str
) -> None:
    arguments = [sys.executable, "-c", PRINTS, str(wait), str(tmp_path / "file")]
    done = subprocess.run(
        ["bash", "-c", shell, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (seen, "")
    assert (tmp_path / "file").read_text() == "still alive\n"


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    for program in ("app.py", "train.py"):
        (tmp_path / program).symlink_to(ROOT / program)
        gone = tmp_path / "gone"
        gone.mkdir()
        shell = f'cd "{gone}" && rmdir "{gone}" && exec "$0" "$@"'
        # -I, like PYTHONSAFEPATH, keeps the folder of the program from being searched.
        command = ["bash", "-c", shell, sys.executable, "-I", str(tmp_path / program)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "the working folder cannot be used (No such file" in done.stderr


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="giving files away takes root")
def test_a_folder_of_another_user_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / f"gradio-{os.getuid()}"
    theirs.mkdir()
    os.chown(theirs, 1234, 1234)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    environment._choose_upload_folder()
    ours = Path(os.environ["GRADIO_TEMP_DIR"])
    assert ours.parent == tmp_path and ours != theirs and ours.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_the_page_and_the_library_work_in_a_hostile_environment(tmp_path: Path) -> None:
    variables = hostile(tmp_path) | {"ALL_PROXY": "socks5://127.0.0.1:9"}
    given = [f"{name}={value}" for name, value in variables.items()]
    command = ["env", *given, "bash", "-c", 'ulimit -Sn 128; exec "$0" "$@"']
    (tmp_path / "log").mkdir()
    with running_app(tmp_path / "log", command=[*command, sys.executable, "app.py"]) as app:
        client = Client(app.url, verbose=False)
        result, _ = client.predict(handle_file(PHOTO), 1, "greedy", api_name="/caption")
        text = result["captions"][0]["text"]
        assert len(text.split()) > 3
        assert "Traceback" not in app.log and "rror" not in app.log
    (tmp_path / "keras.json").write_text(json.dumps(KERAS | {"backend": "tensorflow"}))
    done = run(LIBRARY, PHOTO, **variables)
    assert done.returncode == 0, done.stderr
    assert "port.cc" not in done.stderr, "notes of TensorFlow"
    greedy, beam, settings = done.stdout.splitlines()
    assert greedy == text and len(beam.split()) > 3
    assert settings == "float16 channels_first", "the other program's own settings are as they were"


@pytest.mark.slow
def test_training_comes_to_its_end_in_a_hostile_environment(
    tmp_path: Path, photo: Callable[..., Image.Image]
) -> None:
    data, output = tmp_path / "data", tmp_path / "输出"
    data.mkdir()
    lines = ["image,caption"]
    for i in range(12):
        photo(i).save(data / f"é{i}.png")
        lines += [f"é{i}.png,a {colour} thing" for colour in ("red", "green")]
    (data / "captions.csv").write_text("\n".join(lines) + "\n", "utf-8")
    variables = hostile(tmp_path) | {"TMPDIR": "/proc/nowhere"}
    done = train_there(data, output, variables)
    assert done.returncode == 1 and done.stderr.rstrip().endswith(
        "set PYTHONUTF8=1, because this process does not read names of files as UTF-8"
    )
    done = train_there(data, output, variables | {"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "The checkpoint is in" in done.stdout
    checkpoint = output / "checkpoint"
    _, files = read_config(checkpoint)
    assert not list(find_faults(checkpoint, files))
    weights = load_file(checkpoint / "decoder.safetensors").values()
    assert all(w.dtype == np.float32 and np.isfinite(w).all() for w in weights)


def train_there(
    data: Path, output: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    # Without Java there are no scores, which have tests of their own.
    environment = kept | variables | {"PATH": str(Path(sys.executable).parent)}
    options = ["--dataset", "folder", "--data-dir", data, "--output", output, "--epochs", "1"]
    options += ["--recipe", "tutorial", "--backbone-weights", CHECKPOINT / "backbone.safetensors"]
    command = ["/bin/bash", "-c", 'umask 077; ulimit -Sn 128; exec "$0" "$@"', sys.executable]
    command += ["train.py", *map(str, options)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
