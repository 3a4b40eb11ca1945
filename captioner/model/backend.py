"""What differs between the backends of Keras, and the precision of a model's products.

All other code is written with `keras.ops` alone, and asks here where it has to know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

Tensor = Any

FLOAT32, BFLOAT16 = "float32", "mixed_bfloat16"  # as Keras names its policies


def name() -> str:
    """ "tensorflow" or "jax"."""
    return keras.backend.backend()


def compiles_whole_steps() -> bool:
    """Whether a training step, or a whole search, is compiled as one by default.

    TensorFlow's XLA cannot compile the gradient of a loop of unknown length, and its own graphs
    start faster than XLA's programs. JAX runs operation by operation without this.
    """
    return name() == "jax"


def wants_few_shapes() -> bool:
    """Whether each new shape of a batch takes seconds, because everything is compiled anew."""
    return name() == "jax"


def precision(mixed: bool) -> keras.DTypePolicy:
    """The policy of the layers that multiply: bfloat16 products of float32 variables if `mixed`.

    It is given to those layers and to no others. Under a policy of the whole process, or of a whole
    model, Keras would cast every input that is a float, random draws among them.
    """
    return keras.DTypePolicy(BFLOAT16 if mixed else FLOAT32)


@contextmanager
def own_settings() -> Iterator[None]:
    """Keras builds its layers inside as this program needs them.

    Another program, or keras.json in its user's home folder, may have chosen half precision or
    images with their channels first. Afterwards that holds again.
    """
    kept = keras.config.floatx(), keras.config.image_data_format()
    keras.config.set_floatx(FLOAT32)
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_floatx(kept[0])
        keras.config.set_image_data_format(kept[1])


def copy_weights(target: keras.Model, source: keras.Model) -> None:
    """Gives `target` the values of `source`'s weights, in memory of its own.

    After `variable.assign(other)`, both variables share their memory under JAX, and the next
    compiled step of either of them gives that memory away.
    """
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        ours.assign(np.array(theirs))


def free_device_memory() -> int:
    """Bytes that are free on the accelerator; 0 on a CPU, whose memory holds the data anyway."""
    if name() != "jax":
        return 0
    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit", 0) - statistics.get("bytes_in_use", 0)


def on_device(array: np.ndarray) -> Tensor:
    """The array in the memory of the device on which the backend computes."""
    return keras.ops.convert_to_tensor(array)


def keep_compiled(folder: Path | None = None, limit: int = 2**30) -> None:
    """Under JAX, keeps what is compiled on disk, so that the next run need not compile it again.

    `folder` is by default the user's cache folder, which then holds at most `limit` bytes of it; a
    folder that JAX was given by its own variable stays. What is used least goes first.
    """
    if name() != "jax":
        return
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = folder or Path(caches) / "captioner" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", limit)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
