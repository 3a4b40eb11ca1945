"""The program with huggingface_hub's own client in it, in a process that takes calls.

The client reads its settings when it is imported, so each set of them has a process of its own.
They use Keras's NumPy backend, which starts in half the time: moving files computes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_server import Hub, Repository
from sizes import GRID, INPUT

from captioner.checkpoint.model_card import model_card
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig

ROOT = Path(__file__).parents[1]
# huggingface_hub hands files to its HTTP library in a way that the latter calls outdated.
UPLOADS = "ignore:Use 'content=:DeprecationWarning"
WORKER = """
import json, logging, sys
logging.basicConfig(level="DEBUG", stream=sys.stderr)
from captioner.checkpoint import hub
notes = []
class Notes(logging.Handler):
    def emit(self, record):
        notes.append(record.getMessage())
logging.getLogger("captioner").addHandler(Notes())
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    name, attempts, args, options = json.loads(line)
    notes.clear()
    hub.ATTEMPTS = attempts
    try:
        answer = {"result": str(getattr(hub, name)(*args, **options))}
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer | {"notes": "; ".join(notes)}), file=answers, flush=True)
"""


@dataclass
class Reply:
    result: str = ""
    error: str = ""
    message: str = ""
    notes: str = ""


class Client:
    """A process with the program and the real client in it."""

    def __init__(self, home: Path, endpoint: str, token: str | None, **settings: str) -> None:
        self.home, self.log = home, home.parent / f"log-{time.monotonic_ns()}.txt"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment = kept | {
            "HF_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",  # the server has Git LFS only
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_VERBOSITY": "debug",
            "HOME": str(home.parent),
        }
        environment |= settings | ({} if token is None else {"HF_TOKEN": token})
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-W", UPLOADS, "-c", WORKER],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __call__(self, function: str, *args: Any, attempts: int = 3, **options: Any) -> Reply:
        call = [function, attempts, [str(a) if isinstance(a, Path) else a for a in args], options]
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()[-3000:]
        return Reply(**json.loads(answer))

    def forget_cache(self) -> None:
        """As on a machine that has never downloaded anything."""
        shutil.rmtree(self.home / "hub", ignore_errors=True)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def make_checkpoint(
    folder: Path, seed: int = 0, weights: str = "bundled", size: int = 300_000
) -> Path:
    """A directory that looks like a checkpoint if only its files and hashes are checked."""
    folder.mkdir()
    config = CaptionerConfig(
        ModelConfig(1000, **GRID), BackboneConfig(**INPUT, weights=weights), dataset="flickr8k"
    )
    names = ["vocabulary.json", "decoder.safetensors", "backbone.safetensors"]
    hashes = {}
    for name in names[: 3 if weights == "bundled" else 2]:
        (folder / name).write_bytes(random.Random(f"{name}{seed}").randbytes(size))
        hashes[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"files": hashes}))
    score = {"dataset": "flickr8k", "split": "test", "strategy": "beam", "BLEU-4": 20.0 + seed}
    metrics = {"history": [{"nll": 3.0, "val_nll": 3.1}], "scores": [score]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "README.md").write_text(model_card(config, metrics))
    (folder / "loss.png").write_bytes(b"\x89PNG" + random.Random(seed).randbytes(2000))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def publish(hub: Hub, repo_id: str, folder: Path) -> str:
    """Puts a checkpoint on the server without a client, and returns the commit."""
    repository = hub.repositories.setdefault(repo_id, Repository())
    return repository.commit(contents(folder), "by hand")


def weights_path(folder: Path, name: str = "decoder.safetensors") -> str:
    return f"/lfs/{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"
