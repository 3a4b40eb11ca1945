"""What the programs that measure a checkpoint share: model and photos, and saved results."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner.captioner import Captioner
from captioner.checkpoint.checkpoint_folder import read_config, read_json, write_json
from captioner.checkpoint.file_names import CARD, METRICS
from captioner.checkpoint.model_card import is_untouched, model_card
from captioner.data.datasets import DatasetError, Record, read_split
from captioner.data.images import ImageError, load_image
from captioner.data.mixture import Source, names_in
from captioner.errors import CaptionerError
from captioner.files import write_bytes
from captioner.machine import cores
from captioner.model.feature_cache import FeatureCache
from captioner.model.features import Unreadable, extract, report_unreadable, unreadable_photo

logger = logging.getLogger(__name__)

EXPECTED = (CaptionerError, OSError)  # errors that people can solve


@dataclass(frozen=True)
class Subject:
    """A checkpoint, and the photos that it is measured on."""

    captioner: Captioner
    records: list[Record]
    cache: FeatureCache | None  # the features of the photos; None to read the photos
    name: str  # the data set's name in the scores and the model card
    train_captions: list[str]  # empty if the checkpoint was not trained on this data set


def load_subject(options: argparse.Namespace) -> Subject:
    """Loads the checkpoint and reads the photos that the options name.

    Raises the errors of `EXPECTED`, also if a result could not be saved at the end.
    """
    if options.save:
        read_metrics(Path(options.checkpoint))
    captioner = Captioner.from_pretrained(options.checkpoint)
    config = captioner.config
    records, train_captions = read_split(
        options.dataset, options.data_dir, options.split, config.training.seed
    )
    records = records[: options.limit]
    cache, skip = None, options.skip_unreadable
    if options.features:
        cache = extract(records, captioner.extractor, options.features, skip=skip)
        records = [r for r in records if r.image_id in cache]
    elif skip:
        records = _readable(records, skip)
    if not records:
        raise DatasetError("none of the photos can be read.")
    trained_on = names_in(config.dataset)
    name = options.dataset
    if len(trained_on) > 1:  # a model that was trained on several calls a folder by its own name
        name = Source(options.dataset, options.data_dir).name
    if name not in trained_on:
        train_captions = []
    return Subject(captioner, records, cache, name, train_captions)


def _readable(records: Sequence[Record], skip: int) -> list[Record]:
    """The records whose photos can be read, before anything slow is done with them.

    Raises `FeatureError` if more than `skip` photos cannot be read, or one by the system's fault.
    """

    def fault(record: Record) -> Unreadable | None:
        try:
            load_image(record.path)
        except ImageError as error:
            return unreadable_photo(record, error)

    with ThreadPoolExecutor(cores(), "captioner checking") as pool:
        faults = [*pool.map(fault, records)]
    report_unreadable([*filter(None, faults)], len(records), skip, kept=False)
    return [record for record, found in zip(records, faults, strict=True) if found is None]


def features_of(
    captioner: Captioner, records: Sequence[Record], cache: FeatureCache | None
) -> np.ndarray:
    """The features of up to a batch of photos, float16 (records, locations, channels).

    They come from `cache`, or from the photos if it is None. Raises `ImageError` with the path of a
    photo that cannot be read.
    """
    if cache is not None:
        return cache.gather([r.image_id for r in records])
    return captioner.features_of_pixels(np.stack([_pixels(captioner, r) for r in records]))


def _pixels(captioner: Captioner, record: Record) -> np.ndarray:
    try:
        return captioner.pixels(record.path)
    except ImageError as error:  # which has the file's name only
        raise ImageError(f"{record.path}: {error}") from error


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics of a checkpoint; empty if it has none yet. Raises `CheckpointError`."""
    path = folder / METRICS
    return read_json(path, "Put a copy in its place, or move it away.") if path.exists() else {}


def save_result(folder: Path, section: str, entry: Mapping[str, Any], same: Sequence[str]) -> None:
    """Adds a result to the metrics and the model card of a checkpoint.

    A result on fewer photos (`--limit`) does not replace one on more photos. A model card that was
    edited by hand is not changed.

    Args:
        folder: The checkpoint directory.
        section: The key of the list in the metrics to which the result is added.
        entry: The result.
        same: An earlier result is replaced if it is equal in these fields.

    Raises the errors of `EXPECTED`.
    """

    def stays(other: Mapping[str, Any]) -> bool:
        differs = any(other.get(key) != entry.get(key) for key in same)
        return differs or other.get("images", 0) > entry.get("images", 0)

    metrics = read_metrics(folder)
    others = [other for other in metrics.get(section, ()) if stays(other)]
    metrics[section] = [*others, dict(entry)]
    write_json(folder / METRICS, metrics)
    card = folder / CARD
    if card.exists() and not is_untouched(card.read_text(encoding="utf-8")):
        logger.warning("%s was edited by hand, so it is not changed", card)
        return
    write_bytes(card, model_card(read_config(folder)[0], metrics).encode())
