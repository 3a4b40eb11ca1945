"""The feature cache: nothing computed twice, nothing lost, nothing wrong believed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.data.datasets import Record
from captioner.data.images import load_image, to_network_input
from captioner.model.feature_cache import VERIFIED, FeatureCache, FeatureError, Stamp
from captioner.model.features import LOCK, FeatureExtractor, extract

SHARD = 4  # photos; ten photos are two full shards and a short one


class CountingExtractor(FeatureExtractor):
    """Knows how many photos it was given, padding apart."""

    images = 0

    def start(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        self.images += len(images)
        return super().start(images)


@pytest.fixture
def extractor(backbone) -> CountingExtractor:
    return CountingExtractor(backbone, batch_size=3)


@pytest.fixture(scope="module")
def records(photo, tmp_path_factory) -> list[Record]:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(10):
        photo(seed, width=40 + seed).save(folder / f"photo{seed}.jpg", quality=95)
    return records_in(folder)


@pytest.fixture(scope="module")
def whole(records, backbone, tmp_path_factory) -> Path:
    """A cache that was made without interruption. Tests must not change it."""
    folder = tmp_path_factory.mktemp("whole") / "features"
    extract(records, FeatureExtractor(backbone, batch_size=3), folder, SHARD)
    return folder


def records_in(folder: Path) -> list[Record]:
    paths = sorted(folder.glob("*.jpg"))
    return [Record(image_id=p.stem, path=p, captions=("a photo",), split="train") for p in paths]


def contents(folder: Path) -> dict[str, bytes]:
    """All but what only saves time, and depends on it, and what keeps other runs away."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in (VERIFIED, LOCK)}


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for name, content in contents(folder).items():
        (to / name).write_bytes(content)
    return to


def copy_of_photos(records: Sequence[Record], to: Path) -> Path:
    to.mkdir()
    for record in records:
        (to / record.path.name).write_bytes(record.path.read_bytes())
    return to


def features(cache: FeatureCache, records: Sequence[Record]) -> np.ndarray:
    return cache.gather([r.image_id for r in records])


def shard_of(folder: Path, image_id: str) -> Path:
    return next(p for p in folder.glob("shard-*.json") if f'"{image_id}"' in p.read_text())


# ------------------------------------------------------------------ extraction


def test_without_a_terminal_the_log_says_how_far_it_is(
    records, extractor, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("captioner.model.features.REPORT_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        extract(records[:7], extractor, tmp_path / "features", SHARD)
    assert [m.split(", about")[0] for m in caplog.messages] == [
        f"features: {min(7, n + SHARD)} of 7 photos" for n in range(0, 7, SHARD)
    ]
    assert all(m.endswith(" min left") for m in caplog.messages)


def test_cached_features_are_those_of_the_network(records, whole, extractor, backbone) -> None:
    cache = FeatureCache(whole, extractor.stamp())
    assert len(cache) == 10 and "photo3" in cache and "photo10" not in cache
    found = features(cache, records)
    assert found.shape == (10, 1, 2048) and found.dtype == np.float16
    photos = np.stack([to_network_input(load_image(r.path), 75) for r in records])
    wanted = backbone.predict_on_batch(photos).reshape(10, 1, 2048)
    # float16's own rounding, and that of sums taken in another order for another batch size.
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    distances = np.abs(wanted[:, None] - wanted).max(axis=(2, 3)) + np.eye(10)
    assert distances.min() > 0.01, "mixing photos up would have shown"
    np.testing.assert_array_equal(extractor.padded(photos[:3]), found[:3])
    assert [len(np.load(p)) for p in whole.glob("*.npy")].count(SHARD) == 2


def test_gathering_by_id_in_any_order(records, whole, extractor) -> None:
    cache = FeatureCache(whole, extractor.stamp())
    everything = features(cache, records)
    order = [7, 0, 9, 9, 4]
    found = features(cache, [records[i] for i in order])
    np.testing.assert_array_equal(found, everything[order])
    with pytest.raises(KeyError, match="nobody"):
        cache.gather(["photo1", "nobody"])


def test_a_padded_batch_does_not_depend_on_its_padding(extractor) -> None:
    photos = np.random.default_rng(0).uniform(-1, 1, (3, 75, 75, 3)).astype(np.float32)
    found = extractor.padded(photos[:1])
    assert found.shape == (1, 1, 2048)
    np.testing.assert_array_equal(found, extractor.padded(photos)[:1])


def test_a_photo_listed_twice_is_seen_once(records, extractor, tmp_path: Path) -> None:
    cache = extract([*records[:3], *records[:2]], extractor, tmp_path / "features", SHARD)
    assert extractor.images == 3 and len(cache) == 3


# ------------------------------------------------------------------ resuming


def test_a_second_run_extracts_nothing(records, whole, extractor) -> None:
    before = contents(whole)
    cache = extract(records[::-1], extractor, whole, SHARD)
    assert extractor.images == 0 and len(cache) == 10
    assert contents(whole) == before


def test_new_photos_alone_are_extracted(records, whole, extractor, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    extract(records[: SHARD + 1], extractor, folder, SHARD)
    before, extractor.images = contents(folder), 0
    cache = extract(records, extractor, folder, SHARD)
    assert extractor.images == 10 - SHARD - 1
    assert before.items() <= contents(folder).items(), "what was there was not touched"
    reference = FeatureCache(whole, extractor.stamp())
    found, wanted = features(cache, records), features(reference, records)
    np.testing.assert_allclose(found.astype(float), wanted.astype(float), atol=2e-4)


KILLED = """
import os, signal, sys
from pathlib import Path
from captioner.model.backbone import build_backbone
from captioner.model.features import LOCK, FeatureExtractor, extract
from test_features import SHARD, records_in

class Killed(FeatureExtractor):
    calls = 0
    def start(self, images):
        self.calls += 1
        if self.calls == 5:  # a shard is two batches: in the third one, while the second is written
            return lambda: os.kill(os.getpid(), signal.SIGKILL)
        return super().start(images)

weights, photos, folder = sys.argv[1:]
extractor = Killed(build_backbone(weights, 75), batch_size=3)
extract(records_in(Path(photos)), extractor, Path(folder), SHARD)
"""


def test_a_killed_run_goes_on_where_it_was(
    records, whole, extractor, backbone_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, backbone_file, records[0].path.parent, folder],
        env=os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = len(FeatureCache(folder, extractor.stamp()))
    assert kept in (SHARD, 2 * SHARD), "the first shard is safe"
    extract(records, extractor, folder, SHARD)
    assert extractor.images == 10 - kept
    assert contents(folder) == contents(whole)


def test_killed_while_a_shard_was_written(records, whole, extractor, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path / "features")
    index_file = shard_of(folder, "photo5")
    index_file.rename(f"{index_file}.tmp")  # the array was complete, its index on the way
    data_file = shard_of(folder, "photo9").with_suffix(".npy")
    data_file.with_name(f"{data_file.name}.tmp").write_bytes(data_file.read_bytes()[:1000])
    data_file.with_suffix(".json").unlink()
    data_file.unlink()  # not even the array
    (folder / "stamp.json.tmp").write_bytes(b"{")
    cache = extract(records, extractor, folder, SHARD)
    assert extractor.images == SHARD + 2 and len(cache) == 10
    found = contents(folder)
    found.pop("stamp.json.tmp")
    assert found == contents(whole)


# ------------------------------------------------------------------ damage


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"flip": data, "half": data[: len(data) // 2], "empty": b""}[how])


@pytest.mark.parametrize(
    "suffix, how",
    [
        *((".npy", how) for how in ("flip", "half", "empty", "missing")),
        *((".json", how) for how in ("flip", "half", "empty")),  # without one there is no shard
    ],
)
def test_a_damaged_shard_is_named_and_the_remedy_works(
    records, whole, extractor, tmp_path: Path, suffix: str, how: str
) -> None:
    folder = copy_of(whole, tmp_path / "features")
    index_file = shard_of(folder, "photo5")
    victim = index_file.with_suffix(suffix)
    if how == "missing":
        victim.unlink()
    else:
        damage(victim, how)
    data_file = index_file.with_suffix(".npy")
    for attempt in (
        lambda: FeatureCache(folder, extractor.stamp()),
        lambda: extract(records, extractor, folder, SHARD),
    ):
        with pytest.raises(FeatureError) as caught:
            attempt()
        assert str(data_file) in str(caught.value)
        assert f"Delete {index_file.name} and {data_file.name}" in str(caught.value)
    index_file.unlink()
    data_file.unlink(missing_ok=True)
    extract(records, extractor, folder, SHARD)
    assert extractor.images == SHARD, "only the images of that shard"
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_no_flipped_bit_goes_unnoticed(
    records, whole, extractor, tmp_path: Path, suffix: str
) -> None:
    stamp = extractor.stamp()
    wanted = features(FeatureCache(whole, stamp), records[8:])
    folder = tmp_path / "features"
    folder.mkdir()
    index_file = shard_of(whole, "photo9")
    for path in (whole / "stamp.json", index_file, index_file.with_suffix(".npy")):
        (folder / path.name).write_bytes(path.read_bytes())
    victim = (folder / index_file.name).with_suffix(suffix)
    data = bytearray(victim.read_bytes())
    bits = 8 * min(len(data), 132)  # the array's header has 128 bytes
    noticed = 0
    for bit in range(bits):
        data[bit // 8] ^= 1 << bit % 8
        victim.write_bytes(data)
        data[bit // 8] ^= 1 << bit % 8
        try:
            found = features(FeatureCache(folder, stamp), records[8:])
        except FeatureError:
            noticed += 1
        else:  # a blank, perhaps; it must not make a difference
            assert found.dtype == wanted.dtype, bit
            np.testing.assert_array_equal(found, wanted, err_msg=str(bit))
    assert noticed > 0.75 * bits


# ------------------------------------------------------------------ the stamp


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "vgg16"},
        {"fingerprint": "0" * 64},
        {"image_size": 299},
        {"preprocessing": "cropped"},
        {"dtype": "float32"},
    ],
)
def test_a_cache_made_by_something_else_is_refused(whole, extractor, change: dict) -> None:
    ((key, value),) = change.items()
    with pytest.raises(FeatureError, match=f"made with {key} = ") as caught:
        FeatureCache(whole, replace(extractor.stamp(), **change))
    assert repr(value) in str(caught.value) and str(whole) in str(caught.value)
    assert "--features" in str(caught.value) and "elete" not in str(caught.value)


def test_the_stamp_says_what_made_the_features(whole, extractor) -> None:
    stamp = json.loads((whole / "stamp.json").read_text())
    assert stamp == asdict(extractor.stamp())
    assert stamp["image_size"] == 75 and len(stamp["fingerprint"]) == 64


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"stamp"', b"{}", b"\xff"])
def test_a_damaged_stamp(whole, extractor, tmp_path: Path, content: bytes) -> None:
    folder = copy_of(whole, tmp_path / "features")
    (folder / "stamp.json").write_bytes(content)
    with pytest.raises(FeatureError, match=r"what made the features is unknown.*--features"):
        FeatureCache(folder, extractor.stamp())


def test_shards_without_a_stamp_are_nobodys(whole, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path / "features")
    (folder / "stamp.json").unlink()
    with pytest.raises(FeatureError, match=r"what made the features is unknown.*--features"):
        FeatureCache(folder, Stamp("inception_v3", "0" * 64, 75))
    assert not (folder / "stamp.json").exists()


# ------------------------------------------------------------------ photos that cannot be read


def test_unreadable_photos_are_named_after_all_others_are_cached(
    records, photo, extractor, tmp_path: Path
) -> None:
    photos = copy_of_photos(records, tmp_path / "photos")
    (photos / "photo2.jpg").write_bytes(b"<html>404</html>")
    for name in ("photo4", "photo5", "photo6", "photo7"):  # a whole shard of them
        damage(photos / f"{name}.jpg", "half")
    mine = records_in(photos)
    (photos / "photo9.jpg").unlink()
    folder = tmp_path / "features"
    for _ in range(2):  # the second run tries no others
        with pytest.raises(FeatureError, match="6 of 10 photos cannot be read") as caught:
            extract(mine, extractor, folder, SHARD)
        message = str(caught.value)
        assert "photo2.jpg is not a picture" in message
        assert "photo4.jpg is damaged" in message and "run again" in message
        assert "photo9.jpg" not in message and "..." in message, "not a list of thousands"
        cache = FeatureCache(folder, extractor.stamp())
        good = ["photo0", "photo1", "photo3", "photo8"]
        assert [r.image_id for r in mine if r.image_id in cache] == good
        assert extractor.images == 4
        assert len(list(folder.glob("shard-*.npy"))) == 2, "none of nothing"
    for record in mine:
        if record.image_id not in cache:
            photo(99).save(record.path)
    assert len(extract(mine, extractor, folder, SHARD)) == 10
    assert extractor.images == 10


def test_a_few_unreadable_photos_may_be_left_out(
    records, extractor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = copy_of_photos(records[:4], tmp_path / "photos")
    mine, folder = records_in(photos), tmp_path / "features"
    extract(mine[2:], extractor, folder, SHARD)
    (photos / "photo1.jpg").write_bytes(b"<html>404</html>")
    damage(photos / "photo2.jpg", "half")  # after its features were made
    for _ in range(2):  # the same again at the next run
        caplog.clear()
        cache = extract(mine, extractor, folder, SHARD, skip=2)
        assert [r.image_id for r in mine if r.image_id in cache] == ["photo0", "photo3"]
        (said,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
        assert said.startswith("2 of 4 photos cannot be read and are left out:\n")
        assert "photo1.jpg is not a picture" in said and "photo2.jpg is damaged" in said
    with pytest.raises(FeatureError, match=r"2 of 4 photos cannot be read: .*photo1.*photo2"):
        extract(mine, extractor, folder, SHARD, skip=1)
    with pytest.raises(FeatureError, match="--skip-unreadable works on one host alone"):
        extract(mine, extractor, folder, SHARD, parts=2, skip=2)


def test_a_fault_of_the_system_leaves_no_photo_out(
    records, extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Image.open

    def full(path, *more, **options):
        if Path(path).name == "photo1.jpg":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return real(path, *more, **options)

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(FeatureError, match=r"photo1\.jpg cannot be read \(Too many open files\)"):
        extract(records[:3], extractor, tmp_path / "features", SHARD, skip=3)
