"""Checks of a run's options that are done before Keras is imported, because that takes seconds.

Neither this module nor any that it imports needs Keras.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from captioner.checkpoint import hub_access
from captioner.checkpoint.file_names import CONFIG, DECODER, foreign_files
from captioner.config import ConfigError, Recipe, TrainingConfig, with_settings
from captioner.data.checks import check_trainable
from captioner.data.datasets import (
    DATASETS,
    DatasetError,
    Record,
    abbreviate,
    check_no_leak,
    title_of,
)
from captioner.data.mixture import Source, rewarded_records, summary
from captioner.data.text import counted
from captioner.data.vocabulary import SPECIAL_TOKENS, Vocabulary
from captioner.errors import CaptionerError
from captioner.files import check_writable, write_fault
from captioner.model.backbones import backbone


class OptionsError(CaptionerError, ValueError):
    """Options cannot be used. The message names them and the remedy."""


def settings_of(
    recipe: Recipe, settings: Sequence[str], given: Mapping[str, Any]
) -> tuple[Recipe, TrainingConfig]:
    """Applies the command line's changes to a recipe, and checks its options of training.

    Args:
        recipe: The recipe.
        settings: The values of `--set`, SECTION.FIELD=VALUE.
        given: The values of the other options by name. Only those count that have the name of a
            field of `TrainingConfig` and are not None.

    Raises:
        ConfigError: A value is out of range, or a field is set twice.
    """
    known = {field.name for field in fields(TrainingConfig)}
    given = {name: v for name, v in given.items() if name in known and v is not None}
    for setting in settings:
        section, _, name = setting.partition("=")[0].strip().partition(".")
        if section == "training" and name in given:
            raise ConfigError(
                f"{_option(name)} and --set training.{name} are the same: give one of them."
            )
    recipe = with_settings(recipe, settings)
    recipe = Recipe(recipe.model, recipe.training | given)
    try:
        return recipe, TrainingConfig(**recipe.training)
    except ConfigError as error:
        message = str(error)
        for name in given:  # name the option as it was typed
            message = message.replace(f"training.{name} is", f"{_option(name)} is")
        raise ConfigError(message) from None


def check_places(options: argparse.Namespace) -> None:
    """Checks the files, folders and names in train.py's options.

    Raises:
        BackboneError: The weights of the backbone are not there.
        OptionsError: A folder cannot be written to, or files that are there would be deleted.
        HubError: The checkpoint cannot be pushed.
    """
    if options.push_to_hub is not None:
        hub_access.check_repo_id(options.push_to_hub)
        hub_access.require_login()
    elif options.private:
        raise OptionsError("--private is of no use without --push-to-hub USER/NAME.")
    backbone(options.backbone).check_weights(options.backbone_weights)
    if options.distribute == "hosts":  # only the first host writes
        return
    _check_folder(options.output, "--output")
    if all((options.output / name).is_file() for name in (CONFIG, DECODER)):
        raise OptionsError(
            f"{options.output} is a checkpoint, not the output folder of a run. Give its parent "
            "folder to go on with its run, or another --output."
        )
    folder = options.output / "checkpoint"
    if options.features and options.features.resolve().is_relative_to(folder.resolve()):
        raise OptionsError(
            f"--features is in {folder}, which the new checkpoint would replace. Give another "
            "folder."
        )
    if folder.is_file():
        raise OptionsError(f"{folder} is a file. Move it away, or give another --output.")
    if foreign := foreign_files(folder):
        raise OptionsError(
            f"{folder} holds other files ({abbreviate(foreign)}), which the new checkpoint would "
            "replace. Move them away, or give another --output."
        )
    # A folder with complete features need not be writable.
    if options.features is not None and not (options.features / "stamp.json").is_file():
        _check_folder(options.features, "--features")


def check_backbone(name: str, training: TrainingConfig) -> None:
    """Raises `BackboneError` if there is no such backbone, or if it cannot be fine-tuned so."""
    entry = backbone(name)
    if training.finetune_from:
        entry.check_block(training.finetune_from)
        entry.check_image_size(training.finetune_image_size)


def describe_data(records: Sequence[Record], training: TrainingConfig) -> list[str]:
    """Describes what was read, in lines: data sets, numbers of photos and captions, words."""
    lines = ["Data:"]
    for part in summary(records):
        captions = counted(part["captions_by_people"] + part["captions_by_model"], "caption")
        lines.append(
            f"  {title_of(part['dataset'])}: "
            f"{counted(part['train_images'], 'training photo')} with {captions}, "
            f"{counted(part['val_images'], 'validation photo')}"
        )
    known = Vocabulary.build(
        (caption for r in records if r.split == "train" for caption in r.captions),
        training.vocabulary_limit,
        training.min_count,
    )
    words = counted(len(known) - len(SPECIAL_TOKENS), "word")
    often = f"occur {training.min_count} times or more" * (training.min_count > 1)
    return [
        *lines,
        f"Vocabulary: {words} of the training captions {often}".rstrip(),
    ]


def describe_downloads(sources: Sequence[Source], images: int | str | None) -> list[str]:
    """Describes, in lines, what is missing and would be downloaded."""
    lines = []
    for source in sources:
        entry = DATASETS[source.kind]
        if source.is_incomplete:
            count = entry.fetch_images if images is None else images
            lines.append(
                f"{entry.title} is not in {source.folder} yet: {count} photos and their captions "
                f"would be downloaded ({entry.fetch_size})."
            )
    return lines


def check_records(records: Sequence[Record], training: TrainingConfig) -> None:
    """Checks the records. Raises `DatasetError` if nothing can be learnt from them."""
    check_no_leak(records)
    check_trainable(records, training.min_count)
    train = (r for r in records if r.split == "train")
    if training.cider_epochs and not any(rewarded_records(train, training.cider_captions)):
        raise DatasetError(
            "no training photo has captions by people, which self-critical training shall reward "
            "(--set training.cider_captions=all rewards those by models, too)"
        )


def _check_folder(folder: Path, option: str) -> None:
    try:
        check_writable(folder)
    except OSError as error:
        raise OptionsError(write_fault(folder, error, option)) from error


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"
