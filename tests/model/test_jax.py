"""The tests of the model under the other backend; `make test-jax` runs more, and takes longer."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from benchmarks.distribution import COMPILE_QUICKLY

ROOT = Path(__file__).parents[2]
TESTS = "tests/model/test_caption_model.py"


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="this is JAX already")
def test_the_model_passes_its_tests_under_jax():
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            TESTS,
        ],
        env=os.environ | {"KERAS_BACKEND": "jax", "XLA_FLAGS": COMPILE_QUICKLY},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
