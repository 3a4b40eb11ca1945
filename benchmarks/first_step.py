"""How long does `train.py` take from its start to the end of its first training step, under JAX?

    python benchmarks/first_step.py [--rounds 2] -- OPTIONS OF TRAIN.PY, --features among them

Each round starts `train.py` twice: with an empty folder for the programs that JAX compiles, and
with the folder that the first start has filled. Both stop after the first step. The features should
already exist, because extracting them would be counted. `--output` is a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Runs train.py, makes the first call of the compiled loop do a single step, and stops after it.
PROGRAM = """
import os, time
import train
from captioner import environment
environment.settle()
from captioner.training import device_steps
begin = device_steps.DeviceSteps.__init__
def watched(self, model):
    begin(self, model)
    steps = self._train
    def one_step(state, pool, arrays, count):
        ready = time.time()
        steps(state, pool, arrays, 1)[1].block_until_ready()
        with open(os.environ["MOMENTS"], "w") as file:
            file.write(f"{ready} {time.time()}")
        os._exit(0)
    self._train = one_step
device_steps.DeviceSteps.__init__ = watched
raise SystemExit(train.main())
"""


def start(options: list[str], compiled: Path) -> tuple[float, float, float]:
    """Runs train.py in a new process up to its first step.

    Returns the seconds until the step begins, the seconds until it is done, and the seconds of
    processor time.
    """
    with tempfile.TemporaryDirectory() as work:
        moments = Path(work) / "moments"
        variables = {
            "KERAS_BACKEND": "jax",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "MOMENTS": str(moments),
        }
        begin, busy = time.time(), processor_seconds()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *options, "--output", str(Path(work) / "output")],
            env=os.environ | variables,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not moments.exists():
            sys.exit(f"train.py ended before its first step:\n{done.stderr}")
        ready, end = map(float, moments.read_text().split())
        return ready - begin, end - begin, processor_seconds() - busy


def processor_seconds() -> float:
    """The processor time of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("train", nargs="+", help="options of train.py, behind --")
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {"empty": [], "filled": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for times in found.values():
                times.append(start(options.train, Path(folder)))
    print("| what is compiled | first step begins, s | is done, s | min - max | of processors, s |")
    print("| --- | --- | --- | --- | --- |")
    for name, times in found.items():
        begins, ends, busy = zip(*times, strict=True)
        print(
            f"| {name} | {statistics.median(begins):.1f} | {statistics.median(ends):.1f} "
            f"| {min(ends):.1f} - {max(ends):.1f} | {statistics.median(busy):.1f} |"
        )


if __name__ == "__main__":
    main()
