"""Data-parallel training on several devices of one host, or on several hosts, by Keras's engine.

Under JAX, `keras.distribution.DataParallel` keeps the weights on every device and gives each device
its rows of the batch, as parts of one global array. The loss, its mean over the words, the clipping
of the gradient and the dropout masks are then those of the whole batch. Therefore any number of
devices and hosts takes the steps that one device would have taken, up to the order of sums, and a
run may continue with another number of them.

TensorFlow's strategies do not do this with Keras 3.15, and are refused. Under `MirroredStrategy`
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
# The words of JAX's runtime when another process has ended. The exception's class does not tell.
_LOST = re.compile(
    "(gloo|nccl|coordination|heartbeat|connection (closed|reset|refused)).{,160}", re.IGNORECASE
)


class DistributionError(CaptionerError, RuntimeError):
    """Devices or hosts cannot train together. The message says what to do."""


@dataclass(frozen=True)
class Distribution:
    """The place of this process among the processes of a run. By default it is the only one.

    Args:
        part: Which part of the work this process does, be it rows of a batch or shards of features.
        parts: The number of processes.
        engine: Keras's engine, if there are several devices.
    """

    part: int = 0
    parts: int = 1
    engine: keras.distribution.DataParallel | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes to the output folder, which only one does."""
        return self.part == 0

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Within this context, models are made on all devices and trained by them.

        When it ends, the connection between the processes ends, and each continues alone.

        Raises:
            DistributionError: Another process has ended before.
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
        """Waits for the other processes, and checks that all have the same value.

        Processes that are about to do different things would wait for each other forever.

        Args:
            what: What the value is, for the message.
            value: The value of this process.

        Raises:
            DistributionError: Another process has another value.
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
    """Sets up training on one or several devices.

    With "hosts", the same program must run on each host, and must not have computed anything yet.
    The processes find each other by the variables of `keras.distribution.initialize`:
    KERAS_DISTRIBUTION_JOB_ADDRESSES (host:port of the first process),
    KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID (from 0). Under Slurm, Open
    MPI and on TPUs, JAX does not need them. The hosts share the folders of features and output.

    Args:
        kind: "none" for one device, "devices" for all devices of this host, "hosts" for all devices
            of several hosts.
        batch_size: The number of images that all devices together take in one step.

    Raises:
        DistributionError: The devices or hosts cannot train together.
    """
    check(kind, batch_size)
    if kind == "none":
        return Distribution()
    if kind == "hosts":
        _connect()
        _check_batch_size(batch_size)
    import jax

    engine = keras.distribution.DataParallel(auto_shard_dataset=False)
    return Distribution(jax.process_index(), jax.process_count(), engine)


def check(kind: str, batch_size: int) -> None:
    """Raises what `distribute` would raise, as far as this can be known without the other hosts."""
    if kind not in KINDS:
        raise DistributionError(f"--distribute {kind}: it must be one of {', '.join(KINDS)}.")
    if kind != "none" and backend.name() != "jax":
        raise DistributionError(
            f"--distribute {kind} needs JAX, and Keras runs on {backend.name()}, where "
            "several devices would not take the same steps as one. Install jax and set "
            "KERAS_BACKEND=jax."
        )
    if kind == "devices":
        _check_batch_size(batch_size)


def _check_batch_size(batch_size: int) -> None:
    import jax

    devices = jax.device_count()
    if batch_size % devices:
        raise DistributionError(
            f"--batch-size {batch_size} cannot be divided among {devices} devices: give "
            f"{max(1, round(batch_size / devices)) * devices}."
        )


def _connect() -> None:
    try:
        with backend.without_tensorflow():
            keras.distribution.initialize()
    except Exception as error:  # JAX raises different exceptions for different causes
        raise DistributionError(
            f"the hosts do not find each other ({error}). Set KERAS_DISTRIBUTION_JOB_ADDRESSES, "
            "KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID on each."
        ) from error
    # It is registered after JAX's handler, and is therefore called before it.
    atexit.register(_leave)


def _disconnect() -> None:
    import jax

    jax.distributed.shutdown()
    atexit.unregister(_leave)


def _leave() -> None:
    """Ends a process that has failed. JAX would first wait for minutes for the other processes,
    some of which may have ended, and these would not notice that this one has failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
