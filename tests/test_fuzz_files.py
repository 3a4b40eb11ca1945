"""Hostile checkpoints and captions files: a result or a message, never another exception.

With CAPTIONER_FUZZ_FILES=10000 in the environment there are 10,000 of each instead of a hundred.
"""

from __future__ import annotations

import functools
import json
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from captioner.checkpoint import checkpoint_folder
from captioner.checkpoint.checkpoint_folder import CONFIG, DECODER, VOCABULARY, decoder_arrays
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig
from captioner.data.datasets import read_folder
from captioner.data.vocabulary import Vocabulary
from captioner.errors import CaptionerError
from captioner.files import file_sha256
from captioner.model.caption_model import CaptionModel

COUNT = int(os.environ.get("CAPTIONER_FUZZ_FILES", "100"))
SPICE = (
    b"\0",
    b"\xff\xfe",
    b"NaN",
    b"1e999",
    b"-1",
    b"[",
    b"{}",
    b'"',
    b"null",
    b"\r",
    b"\xed\xa0\x80",
)


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """`content` as it is, or with up to three faults: a flipped bit, a piece that is missing or
    doubled, or something strange put in."""
    data = bytearray(content)
    for _ in range(random.integers(0, 4)):
        where = int(random.integers(len(data) + 1))
        match random.integers(4):
            case 0 if where < len(data):
                data[where] ^= 1 << int(random.integers(8))
            case 1:
                del data[where : where + int(random.integers(1, 40))]
            case 2:
                data[where:where] = data[where : where + int(random.integers(1, 200))]
            case _:
                data[where:where] = SPICE[random.integers(len(SPICE))]
    return bytes(data)


def outcomes(attempt: Callable[[np.random.Generator], object]) -> Counter:
    """How many attempts gave a result, and how many a message of ours."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Counter()
    for seed in range(COUNT):
        try:
            attempt(np.random.default_rng(seed))
            found["result"] += 1
        except CaptionerError as error:
            assert str(error), seed
            found["message"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kB"
    return found


CSV = "image,caption,split\n" + "".join(
    f'{i}.png,"A {c}, thing",{s}\n'
    for i, (c, s) in enumerate([("red", "train"), ("blue", "train"), ("öde", "val")])
)
KARPATHY = json.dumps(
    {
        "images": [
            {"filename": f"{i}.png", "split": s, "sentences": [{"raw": "A thing.", "imgid": i}]}
            for i, s in enumerate(["train", "test", "val"])
        ]
    }
)
COCO = json.dumps(
    {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
        "annotations": [{"image_id": i, "id": i, "caption": "A thing."} for i in range(3)],
    }
)
LINES = "".join(json.dumps({"file_name": f"{i}.png", "text": "A thing"}) + "\n" for i in range(3))


@pytest.mark.timeout(300 + COUNT)
def test_captions_files(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    whole = [
        ("captions.csv", CSV),
        ("captions.json", KARPATHY),
        ("captions.json", COCO),
        ("captions.jsonl", LINES),
    ]

    def attempt(random: np.random.Generator) -> None:
        name, content = whole[random.integers(len(whole))]
        path = tmp_path / name
        path.write_bytes(mutated(content.encode(), random))
        try:
            read_folder(tmp_path)
        finally:
            path.unlink()

    found = outcomes(attempt)
    assert min(found["result"], found["message"]) > COUNT / 10, found


@pytest.mark.timeout(300 + COUNT)
def test_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ModelConfig(
        9, rows=2, columns=2, channels=4, embedding_dim=3, units=5, attention_units=2
    )
    config = CaptionerConfig(sizes, BackboneConfig("inception_v3", 75, fingerprint="0" * 64))
    Vocabulary.build(["a red thing here today"], 5, 1).save(tmp_path / VOCABULARY)
    (tmp_path / DECODER).write_bytes(save(decoder_arrays(CaptionModel(sizes))))
    names = (VOCABULARY, DECODER)
    digests = {name: file_sha256(tmp_path / name) for name in names}
    (tmp_path / CONFIG).write_text(json.dumps(config.to_dict() | {"files": digests}))
    whole = {name: (tmp_path / name).read_bytes() for name in (CONFIG, *names)}
    # A model takes a while to build; whether a file fits it, its variables say each time anew.
    monkeypatch.setattr(checkpoint_folder, "CaptionModel", functools.lru_cache(8)(CaptionModel))

    def read() -> None:
        # As `read_checkpoint`, but for the backbone, which would take a second each time.
        found, files = checkpoint_folder.read_config(tmp_path)
        for _, fault in checkpoint_folder.find_faults(tmp_path, files):
            raise checkpoint_folder.CheckpointError(fault)
        Vocabulary.load(tmp_path / VOCABULARY)
        checkpoint_folder._read_decoder(tmp_path / DECODER, found.model)

    def attempt(random: np.random.Generator) -> None:
        for name, content in whole.items():
            (tmp_path / name).write_bytes(content)
        victim = (CONFIG, *names)[random.integers(3)]
        (tmp_path / victim).write_bytes(mutated(whole[victim], random))
        if victim != CONFIG:  # as an attacker would: the SHA-256 that is stated is the file's
            told = json.loads(whole[CONFIG])
            told["files"][victim] = file_sha256(tmp_path / victim)
            (tmp_path / CONFIG).write_text(json.dumps(told))
        read()

    found = outcomes(attempt)
    assert min(found["result"], found["message"]) > COUNT / 10, found
