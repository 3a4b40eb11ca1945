"""Each flush to the disk and each rename fails once: what stands under its final name is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from captioner.checkpoint.checkpoint_folder import (
    Checkpoint,
    CheckpointError,
    find_faults,
    read_config,
    write_checkpoint,
)
from captioner.checkpoint.hub import find_checkpoint, save_checkpoint
from captioner.checkpoint.hub_errors import reason
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig
from captioner.data.vocabulary import Vocabulary
from captioner.files import make_folder, move
from captioner.model.caption_model import CaptionModel
from captioner.model.feature_cache import FeatureCache, Stamp, write_shard

SIZES = ModelConfig(9, rows=2, columns=2, channels=4, embedding_dim=3, units=5, attention_units=2)
SOLE = keras.Sequential()  # the public network is not written
STAMP = Stamp("inception_v3", "0" * 64, 75)


class Faults:
    """The `n`-th call of `os.fsync` or `os.replace` raises what a failing disk does."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int) -> None:
        self.left = n
        for name in ("fsync", "replace"):
            patch.setattr(os, name, self._failing(getattr(os, name)))

    def _failing(self, real: Callable) -> Callable:
        def call(*arguments: object) -> object:
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        return call


def at_every_step(write: Callable[[], None], check: Callable[[], None]) -> int:
    """Lets `write` fail at its first step, its second and so on; `check` looks after each of them,
    and after the same call without a fault. Gives the number of steps."""
    for n in range(1, 100):
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, n)
            try:
                write()
            except OSError as error:
                assert error.errno == errno.EIO
            else:
                assert faults.left > 0
                return n - 1
        check()
        write()
        check()
    raise AssertionError("it never ends")


def test_a_checkpoint_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    config = CaptionerConfig(SIZES, BackboneConfig("inception_v3", 299, fingerprint="0" * 64))
    words = Vocabulary.build(["a red thing here today"], 5, 1)
    parts = Checkpoint(config, words, CaptionModel(SIZES), SOLE)

    def write() -> None:
        write_checkpoint(folder, parts, {"scores": []}, {"README.md": b"A card."})

    def check() -> None:
        found, files = read_config(folder)
        assert found == config and list(find_faults(folder, files)) == []
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]

    write()
    assert at_every_step(write, check) > 10


def test_a_kill_between_the_renames_of_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    folder, new, old = (tmp_path / n for n in ("checkpoint", ".checkpoint.new", ".checkpoint.old"))
    words = Vocabulary.build(["a red thing here today"], 5, 1)

    def write(note: str) -> None:
        config = CaptionerConfig(
            SIZES, BackboneConfig("inception_v3", 299, fingerprint="0" * 64, note=note)
        )
        write_checkpoint(folder, Checkpoint(config, words, CaptionModel(SIZES), SOLE), {}, {})

    def note() -> str:
        config, files = read_config(folder)
        assert not list(find_faults(folder, files))
        return config.backbone.note

    write("old")
    folder.rename(old)
    assert note() == "old", "the new one was lost with its disk"
    folder.rename(old)
    write("new")
    assert note() == "new" and not old.exists()
    write("newer")
    folder.rename(tmp_path / "kept")
    write("old")
    folder.rename(old)
    (tmp_path / "kept").rename(new)
    assert note() == "newer", "it was whole before the first rename"


def test_writing_a_checkpoint_leaves_what_people_put_beside_it(tmp_path: Path) -> None:
    folder, real, backup = (tmp_path / name for name in ("best", "elsewhere", "best.old"))
    config = CaptionerConfig(SIZES, BackboneConfig("inception_v3", 299, fingerprint="0" * 64))
    words = Vocabulary.build(["a red thing here today"], 5, 1)
    parts = Checkpoint(config, words, CaptionModel(SIZES), SOLE)
    for name in ("best.old", "best.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    with pytest.raises(CheckpointError, match=r"is not a checkpoint|there is no folder"):
        read_config(folder)
    assert (backup / "mine").exists()
    real.mkdir()
    folder.symlink_to(real)
    for _ in range(3):
        write_checkpoint(folder, parts, {}, {})
    assert folder.is_symlink() and read_config(real)[0] == config
    assert {p.name for p in tmp_path.iterdir()} == {"best", "elsewhere", "best.old", "best.new"}
    assert (backup / "mine").exists() and (tmp_path / "best.new" / "mine").exists()
    (backup / "mine").write_text("notes")
    with pytest.raises(CheckpointError, match="mine is a file, not a checkpoint directory"):
        save_checkpoint(parts, backup / "mine")
    with pytest.raises(NotADirectoryError):
        save_checkpoint(parts, backup / "mine" / "below")
    assert (backup / "mine").read_text() == "notes"
    with pytest.raises(CheckpointError, match="mine is a file, not a checkpoint directory"):
        find_checkpoint(backup / "mine")


def test_no_room_for_a_folder_has_a_remedy(tmp_path: Path, monkeypatch) -> None:
    def full(path: str, *more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(os, "mkdir", full)
    monkeypatch.setattr(os, "replace", full)
    for make in (
        lambda: FeatureCache(tmp_path / "new", STAMP),
        lambda: make_folder(tmp_path / "new"),
        lambda: move(tmp_path, tmp_path / "new"),
    ):
        with pytest.raises(OSError, match="No space left on device; make room, then run the same"):
            make()


def test_a_cache_of_features_has_whole_shards_alone(tmp_path: Path) -> None:
    FeatureCache(tmp_path, STAMP)  # leaves the stamp
    features = np.random.default_rng(0).random((3, 4, 4)).astype(np.float16)

    def write() -> None:
        number = len(list(tmp_path.glob("shard-*.json")))
        write_shard(tmp_path, {f"{number}.{i}": None for i in range(3)}, features)

    def check() -> None:
        cache = FeatureCache(tmp_path, STAMP)
        for i in range(len(cache) // 3):
            np.testing.assert_array_equal(cache.gather([f"{i}.{k}" for k in range(3)]), features)
        assert not list(tmp_path.glob("*.tmp"))

    assert at_every_step(write, check) == 4


def test_a_fault_of_the_disk_during_a_push_is_not_the_hub_s() -> None:
    fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    said = reason(fault, "USER/NAME", writing=True)
    assert said.endswith("No space left on device. Make room on the disk, then try again.")
