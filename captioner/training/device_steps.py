"""Steps of training and validation under JAX, several per call.

Keras's own loop takes one batch per call, and the device waits for Python between two calls. Here
one compiled call takes up to `STEPS` batches of the same shape. Their features are rows of a pool
on the device. The pool has all features of the run if they fit (see `resident.py`). Otherwise it
has those of these batches, which are gathered and sent while the steps before them run.

The number of steps per call does not change a bit of the results, because the steps are passes of
one compiled loop, and their number is an argument of that loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from captioner.machine import cores
from captioner.training.batches import CaptionBatches
from captioner.training.training_state import Model

STEPS = 8  # at most, in one call; Ctrl-C has to wait for two calls


class DeviceSteps:
    """Trains and evaluates a compiled `model` under JAX, on one device."""

    def __init__(self, model: Model) -> None:
        import jax

        self.model = model
        self._train = jax.jit(partial(_loop, model.train_step))
        self._test = jax.jit(partial(_loop, model.test_step))

    def train(self, batches: CaptionBatches, stop: Callable[[], bool]) -> int:
        """Trains on the batches until all are done or `stop()` is true.

        Afterwards, the model's metrics are those of these steps.

        Returns:
            The number of batches that are done.
        """
        return self._run(self._train, batches, stop, [self.model.optimizer.variables])

    def evaluate(self, batches: CaptionBatches) -> float:
        """The mean loss per word of `batches`."""
        self._run(self._test, batches, lambda: False, [])
        return float(self.model.nll.total) / max(float(self.model.nll.count), 1.0)

    def _run(
        self,
        steps: Callable[..., Any],
        batches: CaptionBatches,
        stop: Callable[[], bool],
        optimizer: list[list[keras.Variable]],
    ) -> int:
        model = self.model
        model.reset_metrics()
        groups = [model.trainable_variables, model.non_trainable_variables]
        groups += [*optimizer, model.metrics_variables]
        # The variables keep their values until the last call is done, so no buffer is donated.
        state = tuple([v.value for v in group] for group in groups)
        done, before = 0, None
        with tqdm(total=len(batches), unit="batch", leave=False, disable=None) as progress:
            for count, pool, arrays in calls(batches):
                state, mark = steps(state, pool, arrays, count)
                done += count
                # While one call runs, the next one is queued, so that the device does not wait.
                # No more are queued, so that Ctrl-C does not wait long.
                if before is not None:
                    before.block_until_ready()
                before = mark
                progress.update(count)
                if stop():
                    break
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return done


def _loop(step: Callable[..., Any], state: Any, pool: Any, arrays: Any, count: Any) -> Any:
    """Takes `count` steps, on the first `count` batches in `arrays`. Returns the new state, and a
    small array whose completion marks the end of the call."""
    import jax

    def one(number: Any, state: Any) -> Any:
        batch = {name: array[number] for name, array in arrays.items()}
        features, targets = pool[batch.pop("rows")], batch.pop("targets")
        _, after = step(state, ({"features": features, **batch}, targets))
        return tuple(list(group) for group in after)

    state = jax.lax.fori_loop(0, count, one, state)
    return state, state[-1][0] + 0


def calls(batches: CaptionBatches) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    """For each call, the number of its batches, the pool, and the arrays (STEPS, batch, ...) on the
    device. Threads prepare the arrays of the next calls meanwhile."""
    import jax

    starts = [0]
    for number in range(1, len(batches)):
        full = number - starts[-1] == STEPS
        if full or batches.steps_of(number) != batches.steps_of(number - 1):
            starts.append(number)
    spans = list(zip(starts, [*starts[1:], len(batches)], strict=True))
    with ThreadPoolExecutor(cores(), "captioner batches") as threads:
        waiting: list[list[Future]] = []
        ahead = iter(spans)
        for start, end in spans:
            while len(waiting) < 2 and (span := next(ahead, None)) is not None:
                waiting.append([threads.submit(batches.__getitem__, i) for i in range(*span)])
            parts = [future.result() for future in waiting.pop(0)]
            pool, arrays = _stacked(parts, batches.resident)
            yield end - start, pool, jax.device_put(arrays)


def _stacked(
    parts: list[tuple[dict[str, np.ndarray], np.ndarray]], resident: Any
) -> tuple[Any, dict[str, np.ndarray]]:
    """The pool of features, and the batches' arrays, stacked and filled up to STEPS batches."""
    import jax

    parts = parts + [parts[0]] * (STEPS - len(parts))
    inputs = {name: [x[name] for x, _ in parts] for name in parts[0][0]}
    features = inputs.pop("features")
    arrays = {name: np.stack(some) for name, some in inputs.items()}
    arrays["targets"] = np.stack([y for _, y in parts])
    if resident is not None:  # the batches hold row numbers in place of features
        return resident.pool, arrays | {"rows": np.stack(features)}
    rows = np.arange(STEPS * len(features[0]), dtype=np.int32).reshape(STEPS, -1)
    return jax.device_put(np.concatenate(features)), arrays | {"rows": rows}
