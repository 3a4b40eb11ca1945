"""The plan that `train.py --check` prints: what a run would do, and the time and disk it needs.

Times are estimated from measurements: some photos go through the network, and some batches of
made-up features through training steps. No features are kept, and nothing is written to the output
folder.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from threading import Event
from typing import Any

import keras
import numpy as np

from captioner.data.captions_file import DatasetError, abbreviate
from captioner.data.datasets import Record
from captioner.data.text import counted
from captioner.data.views import AS_IT_IS, View, further_views
from captioner.data.vocabulary import Vocabulary
from captioner.errors import CaptionerError
from captioner.evaluation.metrics import MetricsUnavailable, require_metrics
from captioner.model.backbone import build_backbone, convolution_flop
from captioner.model.backend import compiles_whole_steps, on_device, predict
from captioner.model.caption_model import CaptionModel
from captioner.model.feature_cache import FeatureCache
from captioner.model.features import FeatureExtractor, extract
from captioner.training.cross_entropy import CrossEntropyTrainer, RunContext, make_optimizer
from captioner.training.epoch_loop import Progress
from captioner.training.finetuning import SHARE_OF_PHOTOS, room_for_photos, student_of
from captioner.training.resident import room_on_device
from captioner.training.run import RunOptions, backbone_of, config_of, extractor_for
from captioner.training.same_run import RUN, describe_run, is_same_run
from captioner.training.self_critical import SelfCriticalTrainer

GB = 1e9
PHOTOS, STEPS = 64, 3  # how many of each are measured


class NoRoom(CaptionerError, RuntimeError):
    """The disk has less room than the run is estimated to need."""


class MadeUpFeatures:
    """Takes the place of a feature cache, for batches whose content does not matter."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.one = np.random.default_rng(0).random(shape, np.float32).astype(np.float16)

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """float16 (n, locations, channels)."""
        return np.broadcast_to(self.one, (len(image_ids), *self.one.shape))


@dataclass(frozen=True)
class Part:
    """A part of the work, and its estimated time in seconds."""

    what: str
    seconds: float


def plan(records: Sequence[Record], options: RunOptions) -> Iterator[str]:
    """Describes, line by line, what a run with these options would do.

    Raises:
        DatasetError: More photos are missing than may be left out.
        FeatureError: The folder of features has those of another network.
        NoRoom: The disk is too small.
        TrainingError: The output folder has another run.
    """
    training, output = options.training, options.output
    network = build_backbone(options.backbone_weights, name=options.backbone)
    extractor = extractor_for(network, training)
    train, val = ([r for r in records if r.split == split] for split in ("train", "val"))
    vocabulary = Vocabulary.build(
        (c for r in train for c in r.captions), training.vocabulary_limit, training.min_count
    )
    config = config_of(options, extractor, backbone_of(options, extractor), vocabulary)
    described = describe_run(config, records, vocabulary.rule)
    if options.skip_unreadable:  # the run will find out which photos and words are left
        del described["records"], described["model"]["vocabulary_size"]
    going_on = is_same_run(output / RUN, described)
    yield f"Output: {output}" + (", which holds this run already: it goes on" if going_on else "")
    folder = options.features_folder
    missing = _missing(train, val, extractor, folder, options)
    yield f"Features: {folder}"
    for view, (some, left) in missing.items():
        shown = view.name or "photos as they are"
        yield f"  {shown}: {len(some) - len(left):,} are there, {len(left):,} are to be made"
    absent = absent_photos(
        [r for _, left in missing.values() for r in left], options.skip_unreadable
    )
    if absent:
        yield f"  {absent:,} of the photos are not there yet and would be downloaded first"
    try:
        require_metrics()
    except MetricsUnavailable as error:
        yield f"Scores: none, because {error}"
    made_up: Any = MadeUpFeatures(extractor.shape)
    context = RunContext(config, vocabulary, made_up, train, val, output)
    todo = sum(len(left) for _, left in missing.values())
    yield from _disk(context, extractor, todo, folder)  # first, because times take long to measure
    yield from too_little_memory(context, sum(len(some) for some, _ in missing.values()))
    parts = list(_parts(context, extractor, todo, [*train, *val]))
    of_all = " of all epochs, also of those that are done" * going_on
    yield f"Time{of_all}, estimated now from at most {PHOTOS} photos and {STEPS} steps:"
    for part in parts:
        yield f"  {part.what}: {_duration(part.seconds)}"
    yield f"  together: {_duration(sum(part.seconds for part in parts))}"


def _missing(
    train: list[Record],
    val: list[Record],
    extractor: FeatureExtractor,
    folder: Path,
    options: RunOptions,
) -> dict[View, tuple[list[Record], list[Record]]]:
    """For each view, the photos that have this view, and those of them without features."""
    found = {}
    views = further_views(options.training.mirror, options.training.crops)
    for view in (AS_IT_IS, *views):
        some = [r for r in train if view.suits(r)] + val * (view == AS_IT_IS)
        place = folder / view.name
        made: FeatureCache | tuple[()] = ()
        if (place / "stamp.json").exists():  # otherwise, opening the cache would create it
            made = FeatureCache(place, extractor.showing(view).stamp(), some)
        found[view] = some, [r for r in some if r.image_id not in made]
    return found


def absent_photos(records: Sequence[Record], skip: int) -> int:
    """Counts the photos that would be downloaded.

    Raises `DatasetError` if more than `skip` others are missing.
    """
    absent = {r.image_id: r for r in records if not r.path.is_file()}
    lost = [str(r.path) for r in absent.values() if r.url is None]
    if len(lost) > skip:
        raise DatasetError(
            f"{len(lost)} photos are not there: {abbreviate(lost)}. Put them there, or leave them "
            f"out with --skip-unreadable {len(lost)}."
        )
    return len(absent) - len(lost)


def _parts(
    context: RunContext, extractor: FeatureExtractor, todo: int, records: Sequence[Record]
) -> Iterator[Part]:
    """The parts of the run in their order."""
    training = context.config.training
    photo = _seconds_per_photo(records, extractor)
    yield Part(f"features of {counted(todo, 'photo')}", todo * photo)
    steps, step = _step_of_cross_entropy(context)
    # A step of validation has no backward pass, and takes a third of the time.
    epoch = steps * step + ceil(len(context.val) / training.batch_size) * step / 3
    yield Part(
        f"cross-entropy, {counted(training.epochs, 'epoch')} at most", training.epochs * epoch
    )
    if training.finetune_from:
        seconds = _seconds_of_finetuning(context, extractor.backbone) + epoch
        epochs = training.finetune_epochs
        yield Part(f"fine-tuning, {counted(epochs, 'epoch')} at most (a formula)", epochs * seconds)
        views = 1 + len(further_views(training.mirror, training.crops))
        again = len(context.train) * views + len(context.val)
        yield Part(f"features of the tuned network, {again:,} at most", again * photo)
        epochs = training.polish_epochs
        yield Part(f"polishing, {counted(epochs, 'epoch')} at most", epochs * epoch)
    if training.cider_epochs:
        steps, step = _step_of_self_critical(context)
        epochs = training.cider_epochs
        yield Part(f"self-critical training, {counted(epochs, 'epoch')}", epochs * steps * step)


def _seconds_per_photo(records: Sequence[Record], extractor: FeatureExtractor) -> float:
    blank = np.zeros((1, extractor.image_size, extractor.image_size, 3), np.uint8)
    extractor.start(blank)()  # compiles
    some = [r for r in records if r.path.is_file()][:PHOTOS]
    start = time.perf_counter()
    if some:
        with tempfile.TemporaryDirectory() as folder:
            extract(some, extractor, Path(folder), skip=len(some))
    else:
        extractor.start(blank)()
    return (time.perf_counter() - start) / (len(some) or extractor.batch_size)


def _step_of_cross_entropy(context: RunContext) -> tuple[int, float]:
    """The number of steps in an epoch, and the seconds that one takes."""
    training = context.config.training
    model = CaptionModel(context.config.model, training.label_smoothing, training.mixed_precision)
    trainer = CrossEntropyTrainer(model, context, partial(make_optimizer, training))
    count = min(STEPS, trainer.batches)
    last: Progress = {"batches": trainer.batches - count}
    # These are the steps of a run, of which one call may take several.
    return trainer.batches, _seconds_of(lambda: trainer.train_epoch(0, last, Event())) / count


def _seconds_of_finetuning(context: RunContext, network: keras.Model) -> float:
    """The seconds that the network takes in an epoch.

    Only its forward pass is measured, because compiling the backward pass takes up to half a
    minute. The backward pass through a block takes twice as long as the forward pass, and ends at
    the first block that learns.
    """
    training = context.config.training
    student = student_of(network, context.config)
    student.compile(jit_compile=compiles_whole_steps())
    photos = on_device(np.zeros((training.batch_size, *student.input_shape[1:]), np.float32))
    forward = _seconds_of(lambda: predict(student, photos)) / training.batch_size
    learning = convolution_flop(layer for layer in student.layers if layer.trainable)
    both = forward * (1 + 2 * learning / convolution_flop(student.layers))
    return both * len(context.train) + forward * len(context.val)


def _step_of_self_critical(context: RunContext) -> tuple[int, float]:
    training = context.config.training
    sampler = CaptionModel(
        replace(context.config.model, dropout=0.0), mixed_precision=training.mixed_precision
    )
    optimizer = keras.optimizers.Adam(training.cider_learning_rate)
    sampler.compile(optimizer, jit_compile=compiles_whole_steps())
    trainer = SelfCriticalTrainer(sampler, context)
    steps = trainer.batches
    last = {"batches": steps - 1, "rewards": 0.0}
    return steps, _seconds_of(lambda: trainer.train_epoch(0, dict(last), Event()))


def _seconds_of(step: Callable[[], object]) -> float:
    for _ in range(2):  # compiles, and may compile again for other shapes
        step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS


def _disk(
    context: RunContext, extractor: FeatureExtractor, todo: int, folder: Path
) -> Iterator[str]:
    """Describes, in lines, the disk space that is needed. Raises `NoRoom` if there is less."""
    training, output = context.config.training, context.output
    one = 2 * np.prod(extractor.shape)  # float16
    features = todo * one
    decoder = CaptionModel(context.config.model).count_params()
    backbone = extractor.backbone.count_params()
    phases = 1 + bool(training.cider_epochs) + bool(training.finetune_from)
    # In float32: the best weights, the state (weights and two moments of each), and the checkpoint.
    states = phases * 16 * decoder + 4 * decoder + 2 * backbone
    if training.finetune_from:
        states += 16 * (backbone + decoder)
        views = 1 + len(further_views(training.mirror, training.crops))
        states += one * (views * len(context.train) + len(context.val))
    yield "Disk, estimated:"
    needs = {folder: features, output: states}
    if _device(folder) == _device(output):
        needs = {output: features + states}
    for place, size in needs.items():
        free = shutil.disk_usage(_existing(place)).free
        yield f"  {size / GB:.1f} GB in {place}, where {free / GB:.1f} GB are free"
        if size > free:
            raise NoRoom(
                f"about {size / GB:.1f} GB are needed in {place}, and {free / GB:.1f} GB are free. "
                "Make room, or give another --output or --features."
            )


def too_little_memory(context: RunContext, features: int) -> Iterator[str]:
    """Says, in lines, what the run would hold in memory if there was more of it.

    Args:
        context: The run.
        features: The number of its features, of all views.
    """
    training, model = context.config.training, context.config.model
    room = room_on_device()
    size = features * 2 * model.locations * model.channels  # float16
    if 0 < room < size:  # without a device they are read from disk in any case
        yield (
            f"Memory: the features, {size / GB:.1f} GB, are read from disk in each epoch, because "
            f"there is room for {room / GB:.1f} GB in the memory of the device and of this machine"
        )
    one = 3 * training.finetune_image_size**2
    count = len(context.train) + len(context.val)
    kept = room_for_photos() // one
    if training.finetune_from and kept < count and room_on_device(SHARE_OF_PHOTOS) < count * one:
        yield (
            f"Memory: {count - kept:,} of {count:,} photos for fine-tuning are decoded again in "
            f"each epoch, because they take {count * one / GB:.1f} GB, and there is room for "
            f"{kept * one / GB:.1f} GB"
        )


def _existing(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
