"""The benchmark of training, on tiny sizes and without a GPU: that it runs, and what it reports."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.distribution import COMPILE_QUICKLY

ROOT = Path(__file__).parents[2]
# A small network in InceptionV3's place, and what one measures with.
PROGRAM = """
from dataclasses import replace
import gpu, small_backbone
from captioner.training import run
gpu.build_backbone = run.build_backbone = (
    lambda weights, size=80, name="inception_v3": small_backbone.small_backbone("", size)
)
sizes = {"embedding_dim": 8, "units": 16, "attention_units": 8}
gpu.RECIPES = {"best": replace(gpu.RECIPES["best"], model=sizes)}
made_up = gpu.made_up

def short(folder, count):  # captions of one length: for each, JAX compiles everything
    return [replace(r, captions=("a thing on the left",) * 5) for r in made_up(folder, count)]

gpu.made_up = short
gpu.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_the_gpu_benchmark_runs_without_one(tmp_path):
    figures = tmp_path / "figures.json"
    options = "--photos 16 --image-size 80 --batch-size 4 --epochs 1 --rounds 2"
    options += f" --finetune-from mixed9 --backbone-weights small --json {figures}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *options.split()],
        env=os.environ
        | {
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("", "benchmarks", "tests")),
            "PATH": str(Path(sys.executable).parent),  # without Java there are no scores
            "XLA_FLAGS": COMPILE_QUICKLY,
        },
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(figures.read_text())
    parts = [m["part"] for m in content["measured"]]
    assert [p.split(",")[0].split(" from")[0] for p in parts] == [
        "building the network",
        "extraction in float32",
        "extraction in bfloat16",
        "extraction",
        "cross-entropy",
        "self-critical training",
        "fine-tuning",
        "from photos to a checkpoint",
    ]
    assert all(m["amount"] > 0 for m in content["measured"])
    assert content["peak_flop_per_s"] is None, "a CPU has none that is known here"
    for part in parts:
        assert f"| {part} |" in done.stdout
    assert "663 captions/s" in done.stdout
