"""Writes, reads and verifies the checkpoint directory.

    config.json            sizes and options, and the SHA-256 of the three files that follow
    vocabulary.json        the words, by id
    decoder.safetensors    encoder, attention and decoder, float32
    backbone.safetensors   the backbone in float16, unless it is the public ImageNet one
    metrics.json           losses by epoch, and scores
    loss.png, README.md    the loss curve and the model card, for people

Loading a stranger's checkpoint is safe: safetensors files contain names, shapes and numbers, and
nothing that could be executed, and their header is compared with the configuration before any
memory is allocated.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from captioner.checkpoint.file_names import BACKBONE, CONFIG, DECODER, METRICS, VOCABULARY
from captioner.config import CaptionerConfig, ConfigError, ModelConfig
from captioner.data.vocabulary import Vocabulary, VocabularyError
from captioner.errors import CaptionerError
from captioner.files import (
    NOT_PULLED,
    file_sha256,
    is_lfs_pointer,
    make_folder,
    move,
    system_fault,
    write_bytes,
)
from captioner.model import backbones
from captioner.model.backbone import (
    IMAGENET,
    BackboneError,
    backbone_arrays,
    build_backbone,
    fingerprint,
)
from captioner.model.caption_model import CaptionModel

MAX_JSON_BYTES = 64_000_000


class CheckpointError(CaptionerError, ValueError):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


class CheckpointUnreadable(CheckpointError):
    """The system kept the program from reading a checkpoint. The files may be whole, so fetching
    them again would not help."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that captioning needs, as `read_checkpoint` returns it."""

    config: CaptionerConfig
    vocabulary: Vocabulary
    model: CaptionModel
    backbone: keras.Model


def write_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    metrics: Mapping[str, Any],
    extra: Mapping[str, bytes],
) -> None:
    """Writes the directory under a temporary name, then renames it to `folder`.

    A checkpoint that was in `folder` stays there until the new one is whole. If `folder` is a
    symbolic link, the directory that it leads to is replaced.

    Args:
        folder: The checkpoint directory.
        checkpoint: What to write.
        metrics: The content of `metrics.json`.
        extra: The contents of further files by name, such as "README.md" and "loss.png".

    Raises:
        CheckpointError: `folder` is a file.
        OSError: The directory cannot be written.
    """
    check_no_file(folder)
    folder = Path(os.path.realpath(folder))  # "." has no name to put another one beside
    finish_swap(folder)
    new, old = _beside(folder)
    shutil.rmtree(new, ignore_errors=True)
    make_folder(new)
    try:
        _write_files(new, checkpoint, metrics, extra)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            move(folder, old)
        move(new, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(new, ignore_errors=True)  # it may have filled the disk
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """The temporary names of a new checkpoint and of the one that it replaces. They are hidden,
    because people call their own copies `best.old`, which must stay."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def check_no_file(folder: Path) -> None:
    """Raises `CheckpointError` if `folder` is a file, which a checkpoint must not replace."""
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file, not a checkpoint directory. Give another name.")


def finish_swap(folder: Path) -> None:
    """Renames a checkpoint to `folder` if `write_checkpoint` was killed between its two renames.

    The new checkpoint is used, because it is whole by then.
    """
    if folder.exists():
        return
    with suppress(OSError, ValueError):  # the disk is read-only, or the path has no name
        folder = Path(os.path.realpath(folder))
        new, old = _beside(folder)
        if old.is_dir():
            os.replace(new if new.is_dir() else old, folder)


def _write_files(
    new: Path, checkpoint: Checkpoint, metrics: Mapping[str, Any], extra: Mapping[str, bytes]
) -> None:
    checkpoint.vocabulary.save(new / VOCABULARY)
    write_bytes(new / DECODER, save(decoder_arrays(checkpoint.model)))
    hashed = [VOCABULARY, DECODER]
    if checkpoint.config.backbone.weights != IMAGENET:
        write_bytes(new / BACKBONE, save(backbone_arrays(checkpoint.backbone)))
        hashed.append(BACKBONE)
    files = {name: file_sha256(new / name) for name in hashed}
    write_json(new / CONFIG, checkpoint.config.to_dict() | {"files": files})
    write_json(new / METRICS, metrics)
    for name, content in extra.items():
        write_bytes(new / name, content)


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, verified.

    Raises `CheckpointError` if a file is missing, of another version, changed since it was written,
    or does not fit the others.
    """
    config, files = read_config(folder)
    try:
        for _, fault in find_faults(folder, files):
            raise CheckpointError(fault)
        vocabulary = Vocabulary.load(folder / VOCABULARY)
        if len(vocabulary) != config.model.vocabulary_size:
            raise CheckpointError(
                f"{folder / VOCABULARY} has {len(vocabulary)} words, {CONFIG} says "
                f"{config.model.vocabulary_size}: they belong to different checkpoints."
            )
        model = _read_decoder(folder / DECODER, config.model)
        own = config.backbone.weights != IMAGENET
        backbone = build_backbone(
            folder / BACKBONE if own else IMAGENET,
            config.backbone.image_size,
            config.backbone.name,
        )
    except (VocabularyError, BackboneError) as error:
        raise CheckpointError(str(error)) from error
    if fingerprint(backbone) != config.backbone.fingerprint:
        raise CheckpointError(
            f"the backbone's weights are not those that {folder} was trained with. Fetch the "
            "checkpoint again."
        )
    return Checkpoint(config, vocabulary, model, backbone)


def read_config(folder: Path) -> tuple[CaptionerConfig, dict[str, str]]:
    """The configuration, and the SHA-256 (hex) of the files by name."""
    path = folder / CONFIG
    finish_swap(folder)
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}. Give a checkpoint directory.")
    inside = folder / "checkpoint"
    if not path.exists() and (inside / CONFIG).is_file():
        raise CheckpointError(f"{folder} is the output folder of a run. Give {inside}.")
    values = read_json(path)
    files = values.pop("files", None)
    try:
        config = CaptionerConfig.from_dict(values)
        backbones.backbone(config.backbone.name).check_image_size(config.backbone.image_size)
    except (ConfigError, BackboneError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    required = {VOCABULARY, DECODER}
    if config.backbone.weights != IMAGENET:
        required.add(BACKBONE)
    if not isinstance(files, dict) or set(files) != required:
        raise CheckpointError(f'{path}: "files" should hold the SHA-256 of {sorted(required)}')
    return config, files


def find_faults(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Checks whether the files of a checkpoint are there and unchanged.

    Args:
        folder: The checkpoint directory.
        files: The SHA-256 (hex) of each file by name, as `read_config` returns them.

    Yields:
        For each file that is missing or changed, its name and a sentence that says what is wrong.

    Raises:
        CheckpointUnreadable: The system does not let the program read a file.
    """
    for name, expected in files.items():
        path = folder / name
        try:
            fault = _fault(path, expected)
        except (OSError, MemoryError) as error:
            raise CheckpointUnreadable(
                system_fault(error, path) or f"{path} cannot be read ({error})."
            ) from error
        if fault:
            yield name, fault


def _fault(path: Path, sha256: str) -> str | None:
    if not path.is_file():
        return f"{path} is missing. Fetch the checkpoint again."
    if is_lfs_pointer(path):
        return f"{path} {NOT_PULLED}"
    if file_sha256(path) != sha256:
        return (
            f"{path} is damaged or was changed: its SHA-256 is not the one in {CONFIG}. Fetch the "
            "checkpoint again."
        )
    return None


def decoder_arrays(model: CaptionModel) -> dict[str, np.ndarray]:
    """The weights that a checkpoint holds, by path."""
    return {v.path: np.asarray(v, dtype=np.float32) for v in model.weights}


def read_json(path: Path, remedy: str = "Fetch the checkpoint again.") -> dict[str, Any]:
    """The JSON object in a file.

    Raises `CheckpointError`, which names the file and the `remedy`, if the file is missing, huge or
    not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("larger than any real one")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not a checkpoint: it has no {path.name}."
        ) from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        if fault := system_fault(error, path):
            raise CheckpointUnreadable(fault) from None
        raise CheckpointError(f"{path} is damaged ({error}). {remedy}") from None
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def _read_decoder(path: Path, config: ModelConfig) -> CaptionModel:
    # Every size of the configuration is a dimension of one of these tensors. If the file has other
    # sizes, it is refused here, before a model of the configured size is allocated.
    telling = {
        "encoder/dense/kernel": (config.channels, config.embedding_dim),
        "attention/key/kernel": (config.embedding_dim, config.attention_units),
        "gru/recurrent_kernel": (config.units, 3 * config.units),
        "logits/kernel": (config.output_dim, config.vocabulary_size),
    }
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            for name, shape in telling.items():
                found = tuple(file.get_slice(name).get_shape()) if name in names else None
                _check_shape(path, name, found, shape)
            model = CaptionModel(config)
            for variable in model.weights:
                name, shape = variable.path, tuple(variable.shape)
                array = file.get_tensor(name) if name in names else None
                _check_shape(path, name, None if array is None else array.shape, shape)
                variable.assign(np.asarray(array, np.float32))
            if surplus := names - {v.path for v in model.weights}:
                raise CheckpointError(f"{path} holds tensors of another model: {sorted(surplus)}")
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            system_fault(error, path) or f"{path} is damaged ({error}). Fetch it again."
        ) from error
    return model


def _check_shape(path: Path, name: str, found: tuple | None, expected: tuple) -> None:
    if found != expected:
        raise CheckpointError(
            f"{path}: {name} is {'missing' if found is None else f'of shape {found}'}, "
            f"{CONFIG} needs {expected}. The files belong to different checkpoints."
        )
