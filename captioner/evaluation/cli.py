"""What programs that measure a checkpoint share: options, photos, and where results go."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner.captioner import Captioner
from captioner.checkpoint.checkpoint_folder import (
    METRICS,
    CheckpointError,
    read_config,
    read_json,
    write_json,
)
from captioner.checkpoint.model_card import is_untouched, model_card
from captioner.data.datasets import DATASETS, DatasetError, Record, read_split
from captioner.data.images import ImageError
from captioner.data.mixture import Source, names_in
from captioner.files import write_bytes
from captioner.model.feature_cache import FeatureCache, FeatureError
from captioner.model.features import extract

logger = logging.getLogger(__name__)

EXPECTED = (DatasetError, CheckpointError, FeatureError, ImageError)  # their messages say it all


@dataclass(frozen=True)
class Subject:
    """A checkpoint, and the photos it is measured on."""

    captioner: Captioner
    records: list[Record]
    cache: FeatureCache | None
    name: str  # of the data set, as scores and model card call it
    train_captions: list[str]  # what the checkpoint was trained on, as far as `data_dir` has it


def measuring_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The options of `load_subject`, and `--save`."""
    parser = argparse.ArgumentParser(
        program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="a checkpoint directory or a Hub id")
    parser.add_argument("--dataset", choices=tuple(DATASETS), required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--split", choices=("test", "val"), required=True)
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument(
        "--features", type=Path, help="a feature cache; photos that it lacks are added to it"
    )
    parser.add_argument(
        "--save", action="store_true", help="also into metrics.json and the card of the checkpoint"
    )
    return parser


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program if something is wrong that would otherwise show after minutes of work."""
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit is {options.limit}: at least 1")
    if options.save and not Path(options.checkpoint).is_dir():
        parser.error(f"--save needs a checkpoint directory, and {options.checkpoint} is none")


def load_subject(options: argparse.Namespace) -> Subject:
    """Raises the errors of `EXPECTED`."""
    captioner = Captioner.from_pretrained(options.checkpoint)
    config = captioner.config
    records, train_captions = read_split(
        options.dataset, options.data_dir, options.split, config.training.seed
    )
    records = records[: options.limit]
    cache = options.features and extract(records, captioner.extractor, options.features)
    trained_on = names_in(config.dataset)
    name = options.dataset
    if len(trained_on) > 1:  # there, a folder goes by its own name
        name = Source(options.dataset, options.data_dir).name
    if name not in trained_on:
        train_captions = []  # it was trained on others
    return Subject(captioner, records, cache, name, train_captions)


def features_of(
    captioner: Captioner, records: Sequence[Record], cache: FeatureCache | None
) -> np.ndarray:
    """float16 (records, locations, channels) of up to a batch; with `cache`, photos are not read.

    Raises `ImageError`.
    """
    if cache is not None:
        return cache.gather([r.image_id for r in records])
    return captioner.features([r.path for r in records])


def save_result(folder: Path, section: str, entry: Mapping[str, Any], same: Sequence[str]) -> None:
    """Adds `entry` to a list in the checkpoint's metrics, in place of the one with equal values of
    `same`, and to its model card, unless somebody has edited that."""
    metrics = read_json(folder / METRICS)
    others = [e for e in metrics.get(section, ()) if any(e.get(k) != entry.get(k) for k in same)]
    metrics[section] = [*others, dict(entry)]
    write_json(folder / METRICS, metrics)
    card = folder / "README.md"
    if card.exists() and not is_untouched(card.read_text(encoding="utf-8")):
        logger.warning("%s was edited by hand and is left as it is", card)
        return
    write_bytes(card, model_card(read_config(folder)[0], metrics).encode())
