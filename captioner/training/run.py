"""The training run: features, vocabulary, fit, validate, export.

`run_training` can be killed at any moment: whatever it has finished (images, shards of features,
epochs) is on disk, and the same call with the same output folder continues from there. The order of
the images depends only on seed and epoch, and the optimizer, the schedule and the dropout
generators are saved with the weights. A resumed run therefore takes the steps that an uninterrupted
run would have taken. They agree to the last bit without oneDNN, whose matrix products on a CPU
differ from run to run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
from filelock import FileLock, Timeout

from captioner.captioner import Captioner
from captioner.checkpoint.checkpoint_folder import (
    Checkpoint,
    file_sha256,
    write_checkpoint,
    write_json,
)
from captioner.checkpoint.file_names import CARD, LOSS_PLOT, METRICS
from captioner.checkpoint.model_card import model_card
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig, TrainingConfig
from captioner.data.checks import check_trainable
from captioner.data.datasets import Record
from captioner.data.mixture import by_dataset, summary
from captioner.data.views import further_views
from captioner.data.vocabulary import Vocabulary
from captioner.evaluation.caption_scores import evaluate
from captioner.evaluation.metrics import MetricsUnavailable, require_metrics
from captioner.files import write_bytes, write_fault
from captioner.machine import cores
from captioner.model import backend
from captioner.model.backbone import build_backbone
from captioner.model.backbones import DEFAULT, IMAGENET, model_sizes
from captioner.model.caption_model import CaptionModel
from captioner.model.feature_cache import FeatureCache
from captioner.model.features import SHARD_IMAGES, FeatureExtractor, extract
from captioner.training.cross_entropy import BEST, STATE, RunContext, fit_cross_entropy
from captioner.training.distribution import Distribution
from captioner.training.epoch_report import EpochReport
from captioner.training.finetuning import fit_end_to_end, polish
from captioner.training.preflight import check_backbone, check_records
from captioner.training.same_run import (
    RUN,
    TrainingError,
    describe_run,
    is_same_run,
    record_run,
)
from captioner.training.self_critical import fit_cider
from captioner.training.training_state import History, StateError, load_weights

logger = logging.getLogger(__name__)

LOCK = "run.lock"
ON_CPU, ON_ACCELERATOR = 32, 128  # photos that go through the network at once
SHOWN = ("BLEU-1", "BLEU-4", "METEOR", "CIDEr")  # the scores that the log shows


@dataclass(frozen=True)
class RunOptions:
    """The arguments of `run_training` besides the records."""

    dataset: str
    output: Path
    backbone_weights: str = IMAGENET
    backbone_note: str = ""
    features: Path | None = None  # default: a folder in the output folder
    shard_images: int = SHARD_IMAGES
    skip_unreadable: int = 0  # photos that may be left out because they cannot be read
    training: TrainingConfig = field(default_factory=TrainingConfig)
    distribution: Distribution = field(default_factory=Distribution)
    model: dict[str, Any] = field(default_factory=dict)  # changed fields of ModelConfig
    backbone: str = DEFAULT  # the name of an entry of `BACKBONES`

    @property
    def features_folder(self) -> Path:
        """The folder with the features of the backbone, as it is before any fine-tuning."""
        return self.features or self.output / "features"


def run_training(records: Sequence[Record], options: RunOptions) -> Path:
    """Trains on the records of the splits "train" and "val", or continues to do so.

    Returns:
        The checkpoint directory.

    Raises:
        TrainingError: The run cannot start or continue.
        DatasetError: The records cannot be used.
        FeatureError: The features cannot be extracted or read.
    """
    output = options.output
    lock: AbstractContextManager[Any] = nullcontext()
    try:
        output.mkdir(parents=True, exist_ok=True)
        if options.distribution.is_main:  # the other processes of a run only read there
            lock = FileLock(output / LOCK).acquire(timeout=0)  # until the end of the block below
    except Timeout:
        raise TrainingError(
            f"another run is writing to {output}. Wait for it, or give another --output."
        ) from None
    except OSError as error:
        raise TrainingError(write_fault(output, error, "--output")) from error
    # With mixed precision, speed counts more than the last bits of what stays in float32.
    with lock, backend.float32_products(not options.training.mixed_precision):
        try:
            return _run_locked(records, options)
        except StateError as error:
            raise TrainingError(str(error)) from error
        except Exception as error:
            if not backend.is_out_of_memory(error):
                raise
            raise TrainingError(_out_of_memory(error, options)) from error


def _out_of_memory(error: Exception, options: RunOptions) -> str:
    size = options.training.batch_size
    device = "" if isinstance(error, MemoryError) else backend.accelerator()
    # TensorFlow's messages begin with where it happened, which says nothing to people.
    lines = [line.strip().rstrip(".") for line in str(error).strip().splitlines()]
    detail = next((f": {line}" for line in lines if "llocat" in line), "")
    return (
        f"{device or 'this machine'} has too little memory for this run{detail}. End other "
        "programs that use it, and run the same command again. If that is not enough, begin anew "
        f"with a --batch-size below {size}, another --output, and "
        f"--features {options.features_folder}."
    )


def _run_locked(records: Sequence[Record], options: RunOptions) -> Path:
    """`run_training`, when no other run writes to the output folder."""
    training, distribution = options.training, options.distribution
    check_records(records, training)
    check_backbone(options.backbone, training)
    backend.set_random_seed(training.seed)
    logger.info("training on %s", backend.accelerator() or f"the CPU, {cores()} cores")
    network = build_backbone(options.backbone_weights, name=options.backbone)
    records, context = _prepare(records, network, options)
    report = EpochReport.of(context.val, context.vocabulary, context.cache, options.output)
    if not distribution.engine:  # one process cannot decode with a model that is on several devices
        context = replace(context, after_epoch=report)
    context = context.on_device()
    model, history = _fit_first(records, context)
    folder = options.output / "checkpoint"
    if not distribution.is_main:
        return folder  # the first process writes it
    if distribution.engine:  # the model was on all devices; the phases that follow need only one
        model = _new_model(context.config)
        load_weights(options.output / BEST, model, options.output / STATE)
        context = replace(context, distribution=Distribution()).on_device()
    report = report.after("epoch", history)
    tuning_history: History = []
    if training.finetune_from:
        before = len(report.finished)
        context, report = _finetune(model, network, context, report, records, options)
        tuning_history = [entry for _, phase in report.finished[before:] for entry in phase]
    cider_history: History = []
    if training.cider_epochs:
        cider_history = fit_cider(model, replace(context, after_epoch=report))
        report = report.after("CIDEr epoch", cider_history)
    served = CaptionModel(context.config.model)  # in float32, whatever the precision of training
    backend.copy_weights(served, model)
    checkpoint = Checkpoint(context.config, context.vocabulary, served, network)
    metrics = {
        "data": summary(records),
        "history": history,
        "tuning_history": tuning_history,
        "cider_history": cider_history,
    }
    report.draw()  # again, because the disk may have been full after the last epoch
    _export(folder, checkpoint, metrics, report.plot(), context.val, context.cache)
    return folder


def _prepare(
    records: Sequence[Record], network: keras.Model, options: RunOptions
) -> tuple[list[Record], RunContext]:
    """Extracts the features, builds the vocabulary, and describes the run in the output folder.

    Returns:
        The records without those of photos that cannot be read, and the context of the first phase.

    Raises:
        TrainingError: The output folder has another run.
    """
    training, distribution = options.training, options.distribution
    extractor = extractor_for(network, training)
    # What is known before the features are made, because that may take hours.
    backbone = backbone_of(options, extractor)
    known = {"training": asdict(training), "backbone": asdict(backbone), "dataset": options.dataset}
    is_same_run(options.output / RUN, known)
    cache, views = _extract(records, extractor, options.features_folder, options, distribution)
    readable = [r for r in records if r.split not in ("train", "val") or r.image_id in cache]
    check_trainable(readable, training.min_count)
    train = [r for r in readable if r.split == "train"]
    val = [r for r in readable if r.split == "val"]
    vocabulary = Vocabulary.build(
        (caption for r in train for caption in r.captions),
        training.vocabulary_limit,
        training.min_count,
    )
    config = config_of(options, extractor, backbone, vocabulary)
    described = describe_run(config, readable, vocabulary.rule)
    if distribution.is_main:
        record_run(options.output / RUN, described)
    return readable, RunContext(
        config, vocabulary, cache, train, val, options.output, distribution, views
    )


def _fit_first(records: Sequence[Record], context: RunContext) -> tuple[CaptionModel, History]:
    """Trains a new model by cross-entropy, after all processes have agreed on what they train."""
    distribution, state = context.distribution, context.output / STATE
    with distribution.scope():
        if distribution.parts > 1:
            described = describe_run(context.config, records, context.vocabulary.rule)
            seen = file_sha256(state) if state.exists() else ""
            distribution.agree(
                "options, data or what the output folder holds", f"{described}{seen}"
            )
        model = _new_model(context.config)
        return model, fit_cross_entropy(model, context)


def _new_model(config: CaptionerConfig) -> CaptionModel:
    """A model to train, whose weights are random."""
    training = config.training
    return CaptionModel(config.model, training.label_smoothing, training.mixed_precision)


def extractor_for(network: keras.Model, training: TrainingConfig) -> FeatureExtractor:
    """What makes the features of a run."""
    size = ON_ACCELERATOR if backend.accelerator() else ON_CPU
    return FeatureExtractor(network, batch_size=size, mixed_precision=training.mixed_extraction)


def config_of(
    options: RunOptions,
    extractor: FeatureExtractor,
    backbone: BackboneConfig,
    vocabulary: Vocabulary,
) -> CaptionerConfig:
    """The configuration of the run, before any fine-tuning."""
    sizes: dict[str, Any] = model_sizes(extractor.backbone.output_shape[1:]) | options.model
    return CaptionerConfig(
        model=ModelConfig(len(vocabulary), **sizes),
        backbone=backbone,
        training=options.training,
        dataset=options.dataset,
    )


def backbone_of(options: RunOptions, extractor: FeatureExtractor) -> BackboneConfig:
    """What the run records of its network, before any fine-tuning. All weights are hashed."""
    own = options.backbone_weights != IMAGENET
    return BackboneConfig(
        name=options.backbone,
        image_size=extractor.image_size,
        weights="bundled" if own else IMAGENET,
        fingerprint=extractor.stamp().fingerprint,
        note=options.backbone_note,
    )


def _finetune(
    model: CaptionModel,
    network: keras.Model,
    context: RunContext,
    report: EpochReport,
    records: Sequence[Record],
    options: RunOptions,
) -> tuple[RunContext, EpochReport]:
    """Trains network and model together, then the model alone on the network's new features."""
    context.release()  # the place is needed for photos, and for the new features
    history = fit_end_to_end(model, network, replace(context, after_epoch=report))
    report = report.after("fine-tuning epoch", history)
    extractor = extractor_for(network, options.training)  # with the new weights
    tuned = extractor.stamp().fingerprint
    backbone = replace(context.config.backbone, weights="bundled", fingerprint=tuned)
    folder = options.output / f"features-{tuned[:12]}"
    options = replace(options, skip_unreadable=0)  # all were readable when the run began
    cache, views = _extract(records, extractor, folder, options, Distribution())
    context = replace(
        context,
        config=replace(context.config, backbone=backbone),
        cache=cache,
        views=views,
    ).on_device()
    report = replace(report, cache=cache)
    history = polish(model, replace(context, after_epoch=report))
    return context, report.after("polishing epoch", history)


def _export(
    folder: Path,
    checkpoint: Checkpoint,
    metrics: dict[str, Any],
    plot: bytes,
    val: Sequence[Record],
    cache: FeatureCache,
) -> None:
    """Writes the checkpoint, then adds its scores, so that an error in scoring loses no weights."""
    card = model_card(checkpoint.config, metrics).encode()
    extra = {LOSS_PLOT: plot, CARD: card}
    write_checkpoint(folder, checkpoint, metrics, extra)
    try:
        scores = _scores(checkpoint, val, cache)
    except MetricsUnavailable as error:
        logger.warning("no caption scores: %s", error)
        return
    except Exception:
        logger.exception("no caption scores, because computing them failed; %s is whole", folder)
        return
    for s in scores:
        shown = ", ".join(f"{name} {s[name]:.1f}" for name in SHOWN if name in s)
        logger.info("scores of %s, %s: %s", s["dataset"], s["strategy"], shown)
    metrics = metrics | {"scores": scores}
    write_json(folder / METRICS, metrics)
    write_bytes(folder / CARD, model_card(checkpoint.config, metrics).encode())


def _extract(
    records: Sequence[Record],
    extractor: FeatureExtractor,
    folder: Path,
    options: RunOptions,
    distribution: Distribution,
) -> tuple[FeatureCache, list[FeatureCache]]:
    """Extracts the features of all photos, and those of the further views of training photos."""
    share = {"part": distribution.part, "parts": distribution.parts}
    used = [r for split in ("train", "val") for r in records if r.split == split]
    cache = extract(
        used, extractor, folder, options.shard_images, skip=options.skip_unreadable, **share
    )
    train = [r for r in used if r.split == "train" and r.image_id in cache]
    views = []
    for view in further_views(options.training.mirror, options.training.crops):
        viewer, place = extractor.showing(view), folder / view.name
        suited = [r for r in train if view.suits(r)]
        views.append(extract(suited, viewer, place, options.shard_images, **share))
    return cache, views


def _scores(
    checkpoint: Checkpoint, val: Sequence[Record], cache: FeatureCache
) -> list[dict[str, Any]]:
    """Scores greedy captions and those of a beam search, for each data set and for all together.

    Raises:
        MetricsUnavailable: Java or a package for the scores is missing.
    """
    require_metrics()
    captioner = Captioner(checkpoint)
    groups = by_dataset(val)
    if len(groups) > 1:
        groups[checkpoint.config.dataset] = list(val)  # all data sets together
    else:
        groups = {checkpoint.config.dataset: list(val)}
    return [
        {"dataset": name, "split": "val", "strategy": strategy}
        | evaluate(captioner, some, strategy=strategy, cache=cache)
        for name, some in groups.items()
        for strategy in ("greedy", "beam")
    ]
