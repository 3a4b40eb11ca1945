"""The differences between the backends of Keras, and the precision of a model's products.

All other code uses `keras.ops` alone, and asks this module if it has to know the backend.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from captioner.files import check_writable

Tensor = Any

FLOAT32, BFLOAT16 = "float32", "mixed_bfloat16"  # as Keras names its policies
COMPILED_BYTES = 2**30  # the most that `keep_compiled` stores
_PREDICTING = threading.Lock()


def name() -> str:
    """ "tensorflow" or "jax"."""
    return keras.backend.backend()


def compiles_whole_steps() -> bool:
    """Whether a training step, or a whole search, is compiled by XLA as one by default.

    Without that, JAX runs every operation by itself. Under TensorFlow, XLA cannot compile the
    gradient of a loop of unknown length, and TensorFlow's own graphs start faster.
    """
    return name() == "jax"


def wants_few_shapes() -> bool:
    """Whether each new shape of a batch takes seconds, because everything is compiled for it."""
    return name() == "jax"


def precision(mixed: bool) -> keras.DTypePolicy:
    """The policy of layers that compute matrix products: with `mixed`, products are bfloat16 and
    variables float32; otherwise everything is float32.

    Only those layers get it. Under a policy of the whole process, or of a whole model, Keras would
    cast all float inputs, such as random numbers.
    """
    return keras.DTypePolicy(BFLOAT16 if mixed else FLOAT32)


@contextmanager
def own_settings() -> Iterator[None]:
    """Inside this context, Keras has the settings that this program needs.

    Another program, or keras.json in the user's home folder, may have chosen half precision or
    images with the channels first. These settings are restored at the end.
    """
    kept = keras.config.floatx(), keras.config.image_data_format()
    keras.config.set_floatx(FLOAT32)
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_floatx(kept[0])
        keras.config.set_image_data_format(kept[1])


@contextmanager
def without_tensorflow() -> Iterator[None]:
    """Inside this context, Keras does not import TensorFlow under JAX.

    Otherwise it does so when it seeds random numbers, among them TensorFlow's, and when it copies a
    layer, whose configuration might have types of TensorFlow. That takes three seconds and half a
    gigabyte, and TensorFlow prints that no GPU will be used, while JAX uses it.
    """
    if name() != "jax" or "tensorflow" in sys.modules:
        yield
        return
    # In place of a module, None makes an import raise ImportError.
    sys.modules["tensorflow"] = None  # ty: ignore[invalid-assignment]
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


def set_random_seed(seed: int) -> None:
    """`keras.utils.set_random_seed`, which does not import TensorFlow here under JAX."""
    with without_tensorflow():
        keras.utils.set_random_seed(seed)


@contextmanager
def float32_products(wanted: bool = True) -> Iterator[None]:
    """Inside this context, if `wanted`, products of float32 numbers are float32 on every device.

    By default, JAX rounds their factors to TF32 on newer GPUs of NVIDIA, which keeps 10 of the 23
    bits after the point
    (https://docs.jax.dev/en/latest/_autosummary/jax.default_matmul_precision.html). TensorFlow does
    so, too, and has one setting for the whole process: see `environment.settle`.
    """
    if not wanted or name() != "jax":
        yield
        return
    import jax

    with jax.default_matmul_precision("float32"):
        yield


def predict(model: keras.Model, inputs: Any) -> Any:
    """`model.predict_on_batch(inputs)`, with `float32_products`, also for several threads at once.

    Under JAX, Keras lends the buffers of the weights to each compiled call, which frees them, and
    takes them back afterwards. Another thread must not use the weights meanwhile, not even by
    another model that shares them. So only one call runs at a time, on all cores.
    """
    with float32_products(), _PREDICTING if name() == "jax" else nullcontext():
        return model.predict_on_batch(inputs)


def starter(model: keras.Model) -> Callable[[Any], Tensor]:
    """Returns a function like `predict(model, ...)` that does not wait for a device under JAX.

    Its result is a tensor, and reading the tensor waits. So the next batch can be sent and begun
    while one is computed, and while the results of the one before are fetched. Under TensorFlow,
    and where Keras distributes batches over devices, the function is `predict` itself.

    Nothing else may use the model meanwhile, because `predict` frees the buffers of its weights.
    """
    if name() != "jax" or keras.distribution.distribution() is not None:
        return partial(predict, model)
    import jax

    @jax.jit
    def compute(weights: Any, inputs: Any) -> Any:
        return model.stateless_call(*weights, inputs)[0]

    def start(inputs: Any) -> Tensor:
        variables = model.trainable_variables, model.non_trainable_variables
        with float32_products():
            return compute([[v.value for v in some] for some in variables], inputs)

    return start


def copy_weights(target: keras.Model, source: keras.Model) -> None:
    """Copies the values of `source`'s weights to those of `target`.

    `variable.assign(other)` would not do: under JAX, both variables then share their memory, and
    the next compiled step of either model may free it.
    """
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        ours.assign(np.array(theirs))


def accelerator() -> str:
    """What computes in place of the CPU, such as "NVIDIA H200"; empty if nothing does."""
    if name() == "jax":
        import jax

        device = jax.local_devices()[0]
        return "" if device.platform == "cpu" else device.device_kind
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if not found:
        return ""
    return tf.config.experimental.get_device_details(found[0]).get("device_name", "a GPU")


def free_device_memory() -> int:
    """The free bytes of the accelerator's memory; 0 on a CPU, which has no memory of its own."""
    if name() != "jax":
        return 0
    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit", 0) - statistics.get("bytes_in_use", 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or this machine, has too little memory."""
    # The backend's classes would have to be imported, and do not tell under JAX.
    named = type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error)
    return named or isinstance(error, MemoryError)


def on_device(array: np.ndarray) -> Tensor:
    """Copies an array to the memory of the device on which the backend computes."""
    return keras.ops.convert_to_tensor(array)


def keep_compiled() -> None:
    """Under JAX, stores compiled programs on disk, so that the next run need not compile again.

    If JAX's own environment variable names a folder, that is used. Otherwise the folder lies in the
    user's cache folder, if there is one, and has at most `COMPILED_BYTES`; the programs that were
    not used for the longest time are deleted first. If nothing can be written there, nothing is
    stored.
    """
    if name() != "jax":
        return
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = Path(caches) / "captioner" / "compiled"
        if not folder.is_absolute():  # in containers, users may have neither a name nor a home
            return
        try:
            check_writable(folder)
        except OSError:  # JAX would warn of it for each program
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", COMPILED_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
