"""Several devices and hosts: the steps of one, the end of one, and features made by shares."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import distribution as runs
from captioner.config import TrainingConfig
from captioner.data.datasets import Record
from captioner.data.views import AS_IT_IS
from captioner.data.vocabulary import Vocabulary
from captioner.model.feature_cache import VERIFIED, FeatureCache, FeatureError, Stamp
from captioner.model.features import LOCK, FeatureExtractor, extract
from captioner.training.batches import CaptionBatches
from captioner.training.distribution import Distribution, DistributionError, distribute

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5  # for losses and weights, whose sums are computed in another order
EPOCHS = 4
needs_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def one_process(compiled, tmp_path_factory):
    """The folder and the history of a run on one device.

    The processes of the benchmark train a tiny model with dropout on made-up features.
    """
    output = tmp_path_factory.mktemp("run") / "none"
    return output, runs.finish(runs.start("none", output, EPOCHS, compiled), output)


# ------------------------------------------------------------------ the same steps


def assert_same_run(found, output: Path, one_process) -> None:
    reference, wanted = one_process
    assert len(found) == len(wanted) == EPOCHS
    for name in ("nll", "val_nll"):
        curve = [h[name] for h in wanted]
        assert max(curve) - min(curve) > 1000 * TOLERANCE, "it learns nothing"
        np.testing.assert_allclose([h[name] for h in found], curve, rtol=TOLERANCE)
    # Weights, the optimizer's moments and step count, the dropout generators.
    ours, theirs = runs.final_state(output), runs.final_state(reference)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=TOLERANCE, err_msg=name)


@needs_jax
@pytest.mark.slow
def test_two_devices_take_the_steps_of_one(one_process, compiled, tmp_path):
    output = tmp_path / "devices"
    found = runs.finish(runs.start("devices", output, EPOCHS, compiled), output)
    assert_same_run(found, output, one_process)


@needs_jax
@pytest.mark.slow
def test_two_hosts_of_which_one_is_killed_take_the_steps_of_one(one_process, compiled, tmp_path):
    output = tmp_path / "hosts"
    code, seconds = runs.kill_one(output, EPOCHS, compiled, victim=1)
    said = runs.log_of(output).read_text()
    # Usually an exception of ours; if JAX's runtime notices first, it aborts the process.
    assert code != 0 and seconds < 30, said
    assert "Start the same command" in said or "another task died" in said
    begun = runs.epochs_in(said)
    assert 0 < begun < EPOCHS, "it was killed too early or too late to show anything"
    found = runs.finish(runs.start("hosts", output, EPOCHS, compiled), output)
    done = re.search(r"going on after epoch (\d+)", runs.log_of(output).read_text())
    # An epoch is said before it is saved: killed between the two, it is done and said again.
    assert done and int(done[1]) in (begun - 1, begun)
    assert_same_run(found, output, one_process)


@needs_jax
@pytest.mark.slow
def test_hosts_with_other_options_are_refused(compiled, tmp_path):
    output = tmp_path / "other"
    processes = runs.start("hosts", output, EPOCHS, compiled, seeds=(0, 1))
    try:
        codes = [p.wait(timeout=60) for p in processes]
    finally:
        for process in processes:
            process.kill()
    said = "".join(runs.log_of(output, part).read_text() for part in (0, 1))
    assert codes == [1, 1], said
    assert "differ in their options" in said
    assert not list(output.iterdir())


# ------------------------------------------------------------------ refusals


def test_alone_nothing_is_set_up():
    alone = distribute("none", 32)
    assert alone == Distribution() and alone.is_main and alone.engine is None
    with alone.scope():
        assert keras.distribution.distribution() is None
    with pytest.raises(ZeroDivisionError), alone.scope():
        _ = 1 // 0  # what fails in there is not called another process's end
    alone.agree("anything", "at all")


def test_an_unknown_kind_is_refused():
    with pytest.raises(DistributionError, match=r"--distribute many: .* none, devices, hosts"):
        distribute("many", 32)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX it is")
@pytest.mark.parametrize("kind", ["devices", "hosts"])
def test_other_backends_are_refused(kind):
    with pytest.raises(DistributionError, match=f"--distribute {kind} needs JAX.*KERAS_BACKEND"):
        distribute(kind, 32)


REFUSED = """
from captioner.training.distribution import DistributionError, distribute
for kind, batch_size in [("hosts", 30), ("devices", 32), ("devices", 1)]:
    try:
        distribute(kind, batch_size)
    except DistributionError as error:
        print(error)
print(distribute("devices", 30).engine.num_model_replicas)
"""


@needs_jax
def test_what_cannot_be_divided_or_found_is_explained():
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KERAS", "SLURM"))}
    environment |= {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    hosts, uneven, too_small, devices = done.stdout.splitlines()
    assert "do not find each other" in hosts and "KERAS_DISTRIBUTION_JOB_ADDRESSES" in hosts
    assert "--batch-size 32 cannot be divided among 3 devices: give 33" in uneven
    assert "give 3." in too_small
    assert devices == "3"


# ------------------------------------------------------------------ batches


class Numbers:
    """Stands for a feature cache: an image's features are its number."""

    def gather(self, image_ids):
        return np.stack([np.full((1, 1), int(i), np.float16) for i in image_ids])


@pytest.mark.parametrize("epoch", [None, 0, 1])
@pytest.mark.parametrize("parts", [2, 4])
def test_the_parts_of_a_batch_are_its_rows(epoch, parts):
    random = np.random.default_rng(0)
    words = [f"word{i}" for i in range(20)]
    records = [
        Record(str(i), Path(f"{i}.jpg"), (" ".join(random.choice(words, 1 + i % 7)),), "train")
        for i in range(1, 18)
    ]
    vocabulary = Vocabulary.build(c for r in records for c in r.captions)
    training = TrainingConfig(batch_size=8, captions_per_image=1)
    everything = (records, Numbers(), vocabulary, training, epoch)
    whole = CaptionBatches(*everything)
    split = [CaptionBatches(*everything, part=part, parts=parts) for part in range(parts)]
    assert {len(batches) for batches in split} == {len(whole)} == {3}
    empty = 0
    for i in range(len(whole)):
        inputs, targets = whole[i]
        pieces = [batches[i] for batches in split]
        assert {len(y) for _, y in pieces} == {8 // parts}
        np.testing.assert_array_equal(np.concatenate([y for _, y in pieces]), targets)
        for name, wanted in inputs.items():
            found = np.concatenate([x[name] for x, _ in pieces])
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
        empty += sum(not y.any() for _, y in pieces)
    assert empty == parts - 1, "the last batch has one image"


# ------------------------------------------------------------------ features by shares


class MeanColours(FeatureExtractor):
    """A network without weights, whose features are the photo's colours. It counts the photos."""

    def __init__(self) -> None:
        self.batch_size, self.image_size, self.shape = 3, 75, (1, 3)
        self.view = AS_IT_IS
        self.images = 0

    def stamp(self) -> Stamp:
        return Stamp("colours", "0" * 64, 75)

    def start(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        self.images += len(images)
        return lambda: images.mean(axis=(1, 2))[:, None].astype(np.float16)


@pytest.fixture(scope="module")
def records(photo, tmp_path_factory) -> list[Record]:
    """Ten photos: with four to a shard, shards 0 and 2 are of part 0, and shard 1 is of part 1."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"photo{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        photo(i).save(path)
    return [Record(p.stem, p, ("a photo",), "train") for p in paths]


def share(records, folder: Path, part: int, stalled: float = 60.0) -> tuple[FeatureCache, int]:
    """The cache after a process of two has done its part, and how many photos that were."""
    extractor = MeanColours()
    cache = extract(records, extractor, folder, 4, part=part, parts=2, stalled=stalled)
    return cache, extractor.images


def shards(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in (VERIFIED, LOCK)}


def test_two_processes_share_the_extraction(records, tmp_path):
    extract(records, MeanColours(), tmp_path / "alone", 4)
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(share, records, tmp_path / "both", 1)
        time.sleep(0.5)  # it waits for the first one's stamp
        first = pool.submit(share, records, tmp_path / "both", 0)
        (cache, six), (other, four) = first.result(), second.result()
    assert (six, four) == (6, 4), "nothing is done twice"
    assert len(cache) == len(other) == 10, "both have all"
    assert shards(tmp_path / "both") == shards(tmp_path / "alone")


def test_a_share_that_nobody_does_is_named(records, tmp_path):
    folder = tmp_path / "features"
    with pytest.raises(FeatureError, match="4 of the photos undone, among them photo4") as caught:
        share(records, folder, 0, stalled=0.3)
    assert str(folder) in str(caught.value) and "same command" in str(caught.value)
    kept = shards(folder)
    cache, images = share(records, folder, 1)  # comes late, and finds the rest done
    assert (len(cache), images) == (10, 4)
    assert kept.items() <= shards(folder).items()
    assert share(records, folder, 0)[1] == 0
    ids = [i for p in folder.glob("shard-*.json") for i in json.loads(p.read_text())["ids"]]
    assert sorted(ids) == sorted(r.image_id for r in records), "each is there once"


def test_one_process_can_finish_what_two_began(records, tmp_path):
    with pytest.raises(FeatureError, match="undone"):
        share(records, tmp_path, 0, stalled=0.3)
    extractor = MeanColours()
    assert len(extract(records, extractor, tmp_path, 4)) == 10
    assert extractor.images == 4


def test_new_photos_are_shared_too(records, tmp_path):
    extract(records[:6], MeanColours(), tmp_path, 4)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda part: share(records, tmp_path, part), (0, 1)))
    assert [images for _, images in done] == [2, 2]
    assert [len(cache) for cache, _ in done] == [10, 10]


def test_without_a_first_process_there_is_no_cache(records, tmp_path):
    with pytest.raises(FeatureError, match=r"first process has not begun .* share that folder"):
        share(records, tmp_path / "features", 1, stalled=0.3)
    assert not (tmp_path / "features").exists()


def test_a_share_with_an_unreadable_photo(records, tmp_path):
    broken = tmp_path / "photo1.png"
    broken.write_bytes(b"no picture")
    mine = [replace(r, path=broken) if r.image_id == "photo1" else r for r in records]
    folder = tmp_path / "features"
    with pytest.raises(FeatureError, match=r"1 of 10 photos cannot be read: .*photo1\.png"):
        share(mine, folder, 0)
    # The other process does its part and then says what it waits for in vain.
    with pytest.raises(FeatureError, match="1 of the photos undone, among them photo1"):
        share(mine, folder, 1, stalled=0.3)
    assert len(FeatureCache(folder, MeanColours().stamp())) == 9
