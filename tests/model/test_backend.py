"""What differs under JAX: kept programs, shared weights, the precision of products, seeds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.model import backend

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os
import jax
from captioner.model.backend import keep_compiled
caches, os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"], jax.__file__
keep_compiled()  # where nothing can be written
del os.environ["XDG_CACHE_HOME"]
os.environ["HOME"] = "~"  # as where a user has none
keep_compiled()
print(jax.config.values["jax_compilation_cache_dir"])
os.environ["XDG_CACHE_HOME"] = caches
keep_compiled()
print(jax.config.values["jax_compilation_cache_dir"])
print(jax.config.values["jax_compilation_cache_max_size"])
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
@pytest.mark.parametrize("own", [False, True])
def test_what_jax_compiles_is_kept_for_the_next_run(tmp_path, own):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    if own:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "own")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    unwritable, folder, limit = done.stdout.split()
    assert unwritable == (folder if own else "None")
    assert Path(folder) == tmp_path / ("own" if own else "captioner/compiled")
    assert limit == ("-1" if own else str(2**30))


THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import jax
import keras
import numpy as np
from captioner.model.backend import float32_products, predict, set_random_seed

class Watch(keras.layers.Layer):
    def call(self, x):
        products.add(jax.config.jax_default_matmul_precision)
        return x

products = set()
model = keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(64) for _ in range(8)), Watch()])
twin = keras.Model(model.inputs, model.outputs)  # another program, the same weights
inputs = np.ones((32, 64), np.float32)
products.clear()  # building the model has called it, too
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda i: np.asarray(predict((model, twin)[i % 2], inputs)), range(64)))
assert all((one == found[0]).all() for one in found[2::2])
assert products == {"float32"}, "a GPU would multiply in TF32"

def product():
    return jax.jit(keras.ops.matmul).lower(inputs, inputs.T).as_text()

assert "HIGHEST" not in product()
with float32_products():
    assert "HIGHEST" in product()

def weights(seed):
    set_random_seed(seed)
    layer = keras.layers.Dense(3)
    layer.build((3,))
    return np.array(layer.kernel)

assert (weights(1) == weights(1)).all() and (weights(1) != weights(2)).any()
assert "tensorflow" not in sys.modules, "it takes three seconds"
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_threads_share_a_model_under_jax_and_products_are_float32():
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_keras_copies_layers_without_tensorflow_under_jax(monkeypatch):
    imported = importlib.import_module("tensorflow")
    monkeypatch.setattr(backend, "name", lambda: "jax")
    with backend.without_tensorflow():
        assert importlib.import_module("tensorflow") is imported, "it is there already"
    monkeypatch.delitem(sys.modules, "tensorflow")
    with backend.without_tensorflow(), pytest.raises(ImportError):
        importlib.import_module("tensorflow")
    assert "tensorflow" not in sys.modules, "others may import it"
    monkeypatch.setattr(backend, "name", lambda: "tensorflow")
    with backend.without_tensorflow():
        assert "tensorflow" not in sys.modules
