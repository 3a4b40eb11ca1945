"""What does training on several devices and hosts change, and what does a dead host cost?

    python benchmarks/distribution.py

The program trains a tiny model on made-up features three times, with the same global batch: in one
process on one device, in one process on two devices, and in two processes that find each other over
loopback, as two hosts would. Then it kills one of two processes. It needs JAX, no GPU, and about
two minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import checkout  # noqa: F401 - finds the package
import numpy as np

if TYPE_CHECKING:
    from captioner.training.cross_entropy import RunContext
    from captioner.training.distribution import Distribution

BATCH, TRAIN, VAL = 4, 10, 3  # the last batch has two images, so its second half is empty
LIMIT = 180  # seconds, longer than any run here
HISTORY = "losses: "  # what stands before them in the output of a process
# Options of XLA with which it compiles in half the time or less. The programs are slower.
COMPILE_QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# XLA ends the process at an option that it does not have. Versions 0.9 to 0.11 have this one.
if find_spec("jaxlib") and version("jaxlib").startswith(("0.9.", "0.10.", "0.11.")):
    COMPILE_QUICKLY += " --xla_cpu_use_fusion_emitters=false"


class MadeUpFeatures:
    """Takes the place of a feature cache, with random features that all processes share."""

    def gather(self, image_ids: list[str]) -> np.ndarray:
        rows = [np.random.default_rng(int(i)).normal(size=(4, 8)) for i in image_ids]
        return np.stack(rows).astype(np.float16)


def work(kind: str, output: Path, epochs: int, seed: int) -> int:
    """One process of a run, which does what `train.py` does, but without photos."""
    from captioner.training.distribution import DistributionError, distribute

    logging.basicConfig(level="INFO", format="%(message)s")
    try:
        distribution = distribute(kind, BATCH)
        from captioner.model.backend import set_random_seed
        from captioner.model.caption_model import CaptionModel
        from captioner.training.cross_entropy import fit_cross_entropy

        set_random_seed(seed)
        context = context_of(output, epochs, seed, distribution)
        config = context.config
        with distribution.scope():
            distribution.agree("their options", str(config))
            model = CaptionModel(config.model, config.training.label_smoothing)
            print(HISTORY + json.dumps(fit_cross_entropy(model, context)))  # in all digits
    except DistributionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def context_of(output: Path, epochs: int, seed: int, distribution: Distribution) -> RunContext:
    """A small run on made-up captions and features."""
    from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig, TrainingConfig
    from captioner.data.datasets import Record
    from captioner.data.vocabulary import Vocabulary
    from captioner.training.cross_entropy import RunContext

    random = np.random.default_rng(0)
    words = [f"word{i}" for i in range(20)]
    records = [
        Record(
            image_id=str(i),
            path=Path(f"{i}.jpg"),
            # With four to seven words and the end, all batches have eight steps under JAX.
            captions=tuple(" ".join(random.choice(words, n)) for n in random.integers(4, 8, 2)),
            split="train" if i < TRAIN else "val",
        )
        for i in range(TRAIN + VAL)
    ]
    train, val = records[:TRAIN], records[TRAIN:]
    vocabulary = Vocabulary.build(c for r in train for c in r.captions)
    training = TrainingConfig(
        epochs=epochs,
        batch_size=BATCH,
        captions_per_image=2,
        learning_rate=1e-2,
        warmup_steps=4,
        patience=epochs,
        seed=seed,
    )
    sizes = {"embedding_dim": 8, "units": 12, "attention_units": 8, "rows": 2, "columns": 2}
    model = ModelConfig(len(vocabulary), channels=8, **sizes)
    backbone = BackboneConfig("none", image_size=75)  # the features are made up
    config = CaptionerConfig(model, backbone, training)
    return RunContext(
        config, vocabulary, MadeUpFeatures(), train, val, output, distribution=distribution
    )


def start(
    kind: str, output: Path, epochs: int, cache: Path, seeds: tuple[int, ...] = (0, 0)
) -> list[subprocess.Popen]:
    """Starts the process of a run, or the two processes for "hosts".

    Their output goes to files beside `output`, and the programs that JAX compiles to `cache`.
    """
    output.mkdir(exist_ok=True)
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 if kind == 'devices' else 1} "
        + COMPILE_QUICKLY,  # because speed is not measured here
    }
    parts = 2 if kind == "hosts" else 1
    if kind == "hosts":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = address
        environment["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(parts)
    processes = []
    for part in range(parts):
        command = [sys.executable, __file__, "--worker", kind, "--output", output]
        command += ["--epochs", epochs, "--seed", seeds[part]]
        with log_of(output, part).open("w") as log:
            processes.append(
                subprocess.Popen(
                    [str(c) for c in command],
                    env=environment | {"KERAS_DISTRIBUTION_PROCESS_ID": str(part)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def log_of(output: Path, part: int = 0) -> Path:
    return output.with_name(f"{output.name}-{part}.log")


def finish(processes: list[subprocess.Popen], output: Path) -> list[dict[str, float]]:
    """Waits for a run that should succeed, and returns its history."""
    try:
        codes = [p.wait(timeout=LIMIT) for p in processes]
    finally:
        for p in processes:
            p.kill()
    said = [log_of(output, part).read_text() for part in range(len(processes))]
    if any(codes):
        raise RuntimeError("\n".join(said))
    last = next(line for line in said[0].splitlines() if line.startswith(HISTORY))
    return json.loads(last.removeprefix(HISTORY))


def epochs_in(said: str) -> int:
    """The number of the epochs that a process has finished, from its output."""
    return len(re.findall(r"^epoch \d+: ", said, re.MULTILINE))


def kill_one(
    output: Path, epochs: int, cache: Path, victim: int, how: int = signal.SIGKILL
) -> tuple[int, float]:
    """Kills one of two processes after the first epoch is saved.

    Returns the exit status of the other process, and the seconds until it ended.
    """
    processes = start("hosts", output, epochs, cache)
    try:
        deadline = time.monotonic() + LIMIT
        while not (output / "state.safetensors").exists():
            if time.monotonic() > deadline or any(p.poll() is not None for p in processes):
                raise RuntimeError(log_of(output).read_text())
            time.sleep(0.02)
        processes[victim].send_signal(how)
        then = time.monotonic()
        code = processes[1 - victim].wait(timeout=LIMIT)
        return code, time.monotonic() - then
    finally:
        for p in processes:
            p.kill()
            p.wait()


def final_state(output: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(output / "state.safetensors")


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a[k].astype(np.float64) - b[k].astype(np.float64)).max()) for k in a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--frozen", action="store_true", help="also stop hosts, which takes minutes more"
    )
    options = parser.parse_args()
    if options.worker:
        sys.exit(work(options.worker, options.output, options.epochs, options.seed))
    epochs = options.epochs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "compiled"
        histories, states = {}, {}
        for kind in ("none", "devices", "hosts"):
            output = folder / kind
            histories[kind] = finish(start(kind, output, epochs, cache), output)
            states[kind] = final_state(output)
        print(
            "| --distribute | validation loss after each epoch | largest difference of loss |",
            end="",
        )
        print(" of weights, moments and generators |\n|---|---|---|---|")
        for kind, history in histories.items():
            curve = [h["val_nll"] for h in history]
            gap = max(abs(a - h["val_nll"]) for a, h in zip(curve, histories["none"], strict=True))
            apart = largest_difference(states[kind], states["none"])
            shown = " ".join(f"{loss:.4f}" for loss in curve)
            print(f"| {kind} | {shown} | {gap:.1e} | {apart:.1e} |")
        print()
        signals = [signal.SIGKILL] + [signal.SIGSTOP] * options.frozen
        for how in signals:
            for victim in (1, 0):
                output = folder / f"{how.name}{victim}"
                code, seconds = kill_one(output, epochs, cache, victim, how)
                print(
                    f"process {victim} gets {how.name}: the other ends after {seconds:.1f} s",
                    end="",
                )
                print(f" with status {code}", end="")
                finish(start("hosts", output, epochs, cache), output)
                apart = largest_difference(final_state(output), states["none"])
                print(
                    f"; the same command finishes the run, {apart:.1e} from the uninterrupted one"
                )


if __name__ == "__main__":
    main()
