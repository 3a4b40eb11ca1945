"""What differs between the backends of Keras, and the precision of a model's products.

All other code is written with `keras.ops` alone, and asks here where it has to know.
"""

from __future__ import annotations

import keras
import numpy as np

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


def copy_weights(target: keras.Model, source: keras.Model) -> None:
    """Gives `target` the values of `source`'s weights, in memory of its own.

    After `variable.assign(other)`, both variables share their memory under JAX, and the next
    compiled step of either of them gives that memory away.
    """
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        ours.assign(np.array(theirs))
