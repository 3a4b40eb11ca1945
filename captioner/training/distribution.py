"""Data-parallel training: several devices of one host, or several hosts, by Keras's own engine.

Under JAX, `keras.distribution.DataParallel` holds the weights on every device and gives each its
rows of the batch, as parts of one global array. The loss, its mean over the words of the batch, the
clipping of the gradient and the dropout masks are then those of the whole batch: any number of
devices and hosts takes the steps that one device would have taken, up to the order of sums, and a
run may go on with another number of them than it began with.

TensorFlow's strategies do not give that with Keras 3.15, and are refused. Under `MirroredStrategy`
each replica averages over its own words, clips its own gradient before the sum, and repeats the
dropout masks of the others; `MultiWorkerMirroredStrategy` stops in `fit` at inputs that are
dictionaries.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from captioner.errors import CaptionerError
from captioner.model import backend

KINDS = ("none", "devices", "hosts")
# How JAX's runtime words it when another process is gone; the exception's class says nothing.
_LOST = re.compile(
    "(gloo|nccl|coordination|heartbeat|connection (closed|reset|refused)).{,160}", re.IGNORECASE
)


class DistributionError(CaptionerError, RuntimeError):
    """Devices or hosts that cannot train together (any longer); the message says what to do."""


@dataclass(frozen=True)
class Distribution:
    """The place of this process among those of a run: by itself, a process trains alone.

    `part` of `parts` is the share that this process takes of the work that is split, be it the
    rows of a batch or the shards of the features.
    """

    part: int = 0
    parts: int = 1
    engine: keras.distribution.DataParallel | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes to the output folder."""
        return self.part == 0

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Models made in here are trained by all devices.

        At its end the processes part: each goes on by itself, with models made outside. Raises
        `DistributionError` if another process ended before.
        """
        if self.engine is None:
            yield
            return
        try:
            with self.engine.scope():
                yield
            if self.parts > 1:
                self.agree("the end of training", "")
                _disconnect()
        except Exception as error:
            lost = _LOST.search(str(error))
            if self.parts == 1 or not lost:
                raise
            raise DistributionError(
                f"another process of this run has ended ({lost[0]}). Its own output says why. "
                "Start the same command on all hosts again: it goes on from the last epoch that "
                "was saved."
            ) from error

    def agree(self, what: str, value: str) -> None:
        """Waits for the other processes; raises `DistributionError` if their `value` is another.

        Processes that differ in what they are about to do would wait for each other forever.
        """
        if self.parts == 1:
            return
        from jax.experimental import multihost_utils

        digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.int32)
        others = multihost_utils.process_allgather(digest)  # (parts, 8)
        if (others != digest).any():
            raise DistributionError(
                f"the processes differ in {what}: all need the same options, data and versions, "
                "and an output folder that they share."
            )


def distribute(kind: str, batch_size: int) -> Distribution:
    """Sets up training on one device ("none"), on all of this host ("devices"), or on all devices
    of several hosts ("hosts"). `batch_size` is that of all devices together.

    For "hosts" the same program runs on each, and has computed nothing yet. Each is told of the
    others by the variables of `keras.distribution.initialize`: KERAS_DISTRIBUTION_JOB_ADDRESSES
    (host:port of the first process), KERAS_DISTRIBUTION_NUM_PROCESSES and
    KERAS_DISTRIBUTION_PROCESS_ID (from 0); under Slurm, Open MPI and on TPUs JAX finds out by
    itself. The hosts share the folders of features and output.

    Raises `DistributionError`.
    """
    if kind not in KINDS:
        raise DistributionError(f"--distribute {kind}: it must be one of {', '.join(KINDS)}.")
    if kind == "none":
        return Distribution()
    if backend.name() != "jax":
        raise DistributionError(
            f"--distribute {kind} needs JAX, and Keras runs on {backend.name()}, where "
            "several devices would not take the same steps as one. Install jax and set "
            "KERAS_BACKEND=jax."
        )
    if kind == "hosts":
        _connect()
    import jax

    devices = jax.device_count()
    if batch_size % devices:
        raise DistributionError(
            f"--batch-size {batch_size} cannot be divided among {devices} devices: give "
            f"{max(1, round(batch_size / devices)) * devices}."
        )
    engine = keras.distribution.DataParallel(auto_shard_dataset=False)
    return Distribution(jax.process_index(), jax.process_count(), engine)


def _connect() -> None:
    try:
        keras.distribution.initialize()
    except Exception as error:  # JAX's own differ from one cause to the next
        raise DistributionError(
            f"the hosts do not find each other ({error}). Set KERAS_DISTRIBUTION_JOB_ADDRESSES, "
            "KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID on each."
        ) from error
    # After JAX's handler, and so called before it.
    atexit.register(_leave)


def _disconnect() -> None:
    import jax

    jax.distributed.shutdown()
    atexit.unregister(_leave)


def _leave() -> None:
    """Ends a process that failed. JAX would first wait for the others, of which some may be dead,
    for minutes; meanwhile they would not learn of this one's end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
