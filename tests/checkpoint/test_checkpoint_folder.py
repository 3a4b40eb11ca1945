"""Checkpoint directories: round trip, and what happens to damaged and hostile ones."""

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from captioner.checkpoint.checkpoint_folder import (
    CheckpointError,
    CheckpointUnreadable,
    decoder_arrays,
    file_sha256,
    find_faults,
    read_checkpoint,
    read_config,
    write_checkpoint,
)
from captioner.checkpoint.hub import find_checkpoint

BUNDLED = Path(__file__).parents[2] / "assets" / "checkpoint"


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint(BUNDLED)


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "checkpoint"))


def test_git_changes_no_byte_of_the_bundled_checkpoint():
    """Git for Windows turns line ends into CR LF, unless it is told not to."""
    if not (BUNDLED.parents[1] / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no clone")
    command = ["git", "check-attr", "text", *sorted(BUNDLED.iterdir())]
    said = subprocess.run(command, cwd=BUNDLED, capture_output=True, text=True, check=True).stdout
    attributes = {line.rpartition(" ")[2] for line in said.splitlines()}
    assert attributes == {"unset"} and len(said.splitlines()) > 5


def rehash(folder: Path) -> None:
    """As an attacker would: hashes that match the tampered files."""
    config = json.loads((folder / "config.json").read_text())
    config["files"] = {name: file_sha256(folder / name) for name in config["files"]}
    (folder / "config.json").write_text(json.dumps(config))


def change(folder: Path, **sections) -> None:
    config = json.loads((folder / "config.json").read_text())
    for section, values in sections.items():
        config[section] = config[section] | values if isinstance(values, dict) else values
    (folder / "config.json").write_text(json.dumps(config))


def test_round_trip(checkpoint, tmp_path):
    folder = tmp_path / "again"
    write_checkpoint(folder, checkpoint, {"scores": []}, {"README.md": b"hello"})
    again = read_checkpoint(folder)
    assert again.config == checkpoint.config
    assert again.vocabulary.words == checkpoint.vocabulary.words
    before, after = decoder_arrays(checkpoint.model), decoder_arrays(again.model)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert (folder / "README.md").read_bytes() == b"hello"
    assert (folder / "backbone.safetensors").stat().st_size < 50_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["again"]  # no temporary folders


def test_writing_over_a_checkpoint_replaces_all_of_it(checkpoint, copy):
    (copy / "stray.txt").write_text("old")
    write_checkpoint(copy, checkpoint, {"scores": []}, {})
    assert not (copy / "stray.txt").exists()
    read_checkpoint(copy)


@pytest.mark.parametrize("name", ["decoder.safetensors", "backbone.safetensors", "vocabulary.json"])
def test_a_flipped_bit_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged or was changed.*again"):
        read_checkpoint(copy)


@pytest.mark.parametrize("name", ["decoder.safetensors", "backbone.safetensors"])
def test_a_truncated_file_is_found_even_if_its_hash_matches(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    rehash(copy)
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(copy)


@pytest.mark.parametrize("files", [{"config.json"}, {"vocabulary.json": "0" * 64}])
def test_a_whole_checkpoint_that_cannot_be_read_is_not_to_be_fetched_again(copy, files):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # no file more may be opened
    try:
        with pytest.raises(CheckpointUnreadable, match="Too many open files") as caught:
            read_config(copy) if isinstance(files, set) else list(find_faults(copy, files))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(name in str(caught.value) for name in files)
    assert "ulimit -n" in str(caught.value) and "etch" not in str(caught.value)
    read_checkpoint(copy)


@pytest.mark.parametrize("name", ["decoder.safetensors", "vocabulary.json", "config.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(copy)


def test_git_lfs_pointers_are_recognised(copy):
    (copy / "decoder.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n...")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_checkpoint(copy)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"model": {"units": 60_000}}, r"gru/recurrent_kernel is of shape .* needs \(60000"),
        ({"model": {"attention_units": 7}}, "attention/key/kernel is of shape"),
        ({"model": {"channels": 10**12}}, "model.channels"),
        ({"model": {"colour": "red"}}, "config.model.colour is not an option"),
        ({"model": {"gate": 1}}, "config.model.gate is 1: it must be true or false"),
        ({"model": {"gate": False}}, "tensors of another model.*gate"),
        (
            {"backbone": {"name": "vgg16"}},
            'no backbone "vgg16"; there are inception_v3',
        ),
        ({"backbone": {"image_size": 74}}, "74 pixels: InceptionV3 needs at least 75"),
        ({"model": {"vocabulary_size": 7}}, "vocabulary.json has"),
        ({"backbone": {"fingerprint": "0"}}, "not those that"),
        ({"files": {"../../etc/passwd": "0"}}, '"files" should hold'),
    ],
)
def test_configurations_that_do_not_fit(copy, sections, message):
    change(copy, **sections)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(copy)


def test_a_tensor_of_another_shape_is_named(copy):
    path = copy / "decoder.safetensors"
    arrays = load_file(path)
    arrays["gru/bias"] = np.zeros((3, 3), np.float32)
    save_file(arrays, path)
    rehash(copy)
    with pytest.raises(CheckpointError, match=r"gru/bias is of shape \(3, 3\)"):
        read_checkpoint(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"version": 2}', "\x00\xff"])
def test_configurations_that_are_no_configuration(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_checkpoint(copy)


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="there is no folder"):
        read_checkpoint(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"architectures": ["Blip"]}')
    with pytest.raises(CheckpointError, match=r"config\.json: .* another program wrote it. Give"):
        read_checkpoint(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "config.json").rename(tmp_path / "checkpoint" / "config.json")
    message = rf"is the output folder of a run. Give {tmp_path}/checkpoint\.$"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="changing the user takes root")
def test_a_folder_that_is_closed_to_the_user(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(CheckpointError):
        find_checkpoint("x" * 300)  # imports what the other user may not be able to read
    tmp_path.chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match=r"Permission denied\)\. Let your user read it"):
            find_checkpoint(tmp_path / "checkpoint")
        with pytest.raises(CheckpointError, match="neither a checkpoint directory nor a Hub id"):
            find_checkpoint("x" * 300)
    finally:
        os.seteuid(0)
        tmp_path.chmod(0o700)


def test_a_folder_has_no_revisions(tmp_path):
    assert find_checkpoint(tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match=r"is a folder on this computer.*no revision v2"):
        find_checkpoint(tmp_path, revision="v2")
