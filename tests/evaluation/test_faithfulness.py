"""Blanking what is attended to: a toy captioner that needs it, and one that does not."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import CONFIDENCE, toy_captioner

from captioner.captioner import Caption
from captioner.data.datasets import Record
from captioner.evaluation.command_lines import faithfulness_options
from captioner.evaluation.faithfulness import (
    blank,
    choose_targets,
    faithfulness,
    most_attended,
    run,
    scattered,
    shifted,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Record]:
    """Grey, with a red and a blue patch of a quarter of the photo each, in places of their own."""
    folder = tmp_path_factory.mktemp("photos")
    records = []
    for i, (red, blue) in enumerate([(0, 8), (2, 4), (8, 0), (6, 2), (4, 8), (0, 0)] * 3):
        pixels = np.full((16, 16, 3), 128, np.uint8)
        pixels[red : red + 8, :8] = (255, 0, 0)
        pixels[blue : blue + 8, 8:] = (0, 0, 255)
        if i % 2:
            pixels = pixels.swapaxes(0, 1)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        records.append(Record(str(i), folder / f"{i}.png", ("A red patch.",), "val"))
    return records


def test_attention_that_is_used(photos):
    found = faithfulness(toy_captioner(looks_at=0, glance=False), photos)
    assert (found["images"], found["content_words"]) == (18, 36)  # "red", "patch"; not "a"
    # Without its quarter no red is left: "red" falls from one known probability to another.
    # "patch" depends on nothing that is seen.
    half = CONFIDENCE / 2
    before, after = 1 / (1 + math.exp(-half)), 1 / (1 + math.exp(half))
    assert found["probability_drop"]["attended"] == pytest.approx((before - after) / 2, abs=0.01)
    drop = math.log(before / after) / 2
    assert found["log_prob_drop"]["attended"] == pytest.approx(drop, abs=0.02)
    for name, control in found["controls"].items():
        assert control["difference_95"][0] > 0, name
    # Any other quarter leaves some red in sight, which is enough.
    assert found["controls"]["scattered"]["ratio"] is None or (
        found["controls"]["scattered"]["ratio"] > 20
    )
    assert found["log_prob_drop"]["other_photo"] < 0.5 * drop


def test_attention_that_is_not_used(photos):
    """It looks at blue, and says "red" for the red it sees without looking."""
    found = faithfulness(toy_captioner(looks_at=2, glance=True), photos)
    assert found["log_prob_drop"]["attended"] == pytest.approx(0, abs=0.02)
    assert found["log_prob_drop"]["shifted"] > 0.05
    for name in ("shifted", "scattered"):
        control = found["controls"][name]
        assert control["ratio"] < 0.3 and control["ratio_95"][1] < 1, name
        assert control["difference_95"][1] < 0, name


def test_the_seed_decides(photos):
    captioner = toy_captioner(looks_at=2, glance=True)
    first = faithfulness(captioner, photos[:4], seed=3)
    assert faithfulness(captioner, photos[:4], seed=3) == first
    assert faithfulness(captioner, photos[:4], seed=4) != first
    assert set(faithfulness(captioner, photos[:1])["controls"]) == {"shifted", "scattered"}


def test_most_attended():
    attention = np.zeros((4, 4), np.float32)
    attention[1, 2], attention[3, 0], attention[0, 0], attention[2, 2] = 0.4, 0.3, 0.2, 0.1
    mask = most_attended(attention)
    assert set(zip(*map(list, np.nonzero(mask)), strict=True)) == {(1, 2), (3, 0), (0, 0), (2, 2)}
    assert most_attended(np.full((8, 8), 1 / 64)).sum() == 16


def test_random_quarters_are_fair():
    """Every cell is as likely as any other, and the shape stays, up to wrapping around."""
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 8), bool)
    mask[3:5, 0:8] = True
    moved = [shifted(mask, rng) for _ in range(4000)]
    assert all((m.all(axis=1).sum(), m.sum()) == (2, 16) for m in moved)
    np.testing.assert_allclose(np.mean(moved, axis=0), 0.25, atol=0.04)
    anywhere = [scattered(mask, rng) for _ in range(4000)]
    assert {int(m.sum()) for m in anywhere} == {16}
    np.testing.assert_allclose(np.mean(anywhere, axis=0), 0.25, atol=0.04)


def test_blank():
    pixels = np.random.default_rng(0).uniform(-1, 1, (299, 299, 3)).astype(np.float32)
    mask = np.zeros((8, 8), bool)
    mask[0, 7] = True
    blanked = blank(pixels, mask)
    changed = (blanked != pixels).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), columns.max()) == (0, 298)
    assert rows.max() + 1 == pytest.approx(299 / 8, abs=1)
    assert columns.min() == pytest.approx(299 * 7 / 8, abs=1)
    np.testing.assert_allclose(blanked[0, 298], pixels.mean(axis=(0, 1)), atol=1e-5)
    assert blanked.dtype == np.float32
    assert (blank(pixels, np.zeros((8, 8), bool)) == pixels).all()


def test_only_content_words_of_other_photos_are_compared():
    maps = np.random.default_rng(0).dirichlet(np.ones(64), 5).reshape(5, 8, 8)
    captions = [
        Caption("a dog in the snow", ["a", "dog", "in", "the", "snow"], [0.0] * 5, maps),
        Caption("the", ["the"], [0.0], maps[:1]),
        Caption("two men", ["two", "men"], [0.0] * 2, 1 - maps[:2]),
    ]
    targets = choose_targets(captions)
    assert [(t.image, t.word) for t in targets] == [(0, 1), (0, 4), (2, 0), (2, 1)]
    for target in targets:
        others = [t.masks["attended"] for t in targets if t.image != target.image]
        assert any((target.masks["other_photo"] == m).all() for m in others)


@pytest.mark.slow
def test_the_program(shared, tmp_path, capsys):
    bundled = Path(__file__).parents[2] / "assets" / "checkpoint"
    checkpoint = shutil.copytree(bundled, tmp_path / "checkpoint")
    metrics = json.loads((checkpoint / "metrics.json").read_text())
    del metrics["faithfulness"]  # of more photos, which `--limit` would not replace
    (checkpoint / "metrics.json").write_text(json.dumps(metrics))
    arguments = ["--dataset", "flickr8k", "--data-dir", str(shared / "data" / "flickr8k")]
    arguments += ["--split", "val", "--limit", "3", "--save"]
    assert run(faithfulness_options([str(checkpoint), *arguments])) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["images"] == 3 and found["content_words"] >= 3
    assert found["log_prob_drop"].keys() == {"attended", "shifted", "scattered", "other_photo"}
    assert json.loads((checkpoint / "metrics.json").read_text())["faithfulness"] == [found]
    assert "photos of Flickr8k, val" in (checkpoint / "README.md").read_text()


def test_missing_data_is_named(tmp_path, capsys):
    arguments = ["--dataset", "flickr8k", "--data-dir", str(tmp_path), "--split", "val"]
    assert run(faithfulness_options([str(tmp_path / "nothing"), *arguments])) == 1
    error = capsys.readouterr().err
    assert "error:" in error and str(tmp_path / "nothing") in error
