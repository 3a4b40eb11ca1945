"""The bundled model says today what it said when `golden/captions.json` was written.

After the bundled weights or the search were changed on purpose, `python -m tests.test_golden`
writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import gradio
import matplotlib
import numpy as np
import pytest

from captioner import Captioner, DecodingOptions

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "captions.json"
PHOTOS = {
    "photographer": ROOT / "assets" / "examples" / "photographer.png",
    "portrait": Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
    "lion": Path(gradio.__file__).parent / "media_assets" / "images" / "lion.jpg",
}
SEARCHES = {
    "greedy": DecodingOptions("greedy"),
    "beam": DecodingOptions("beam", num_captions=3),
    "sample": DecodingOptions("sample", num_captions=5, temperature=0.7, seed=3),
    "top-k": DecodingOptions("sample", top_k=20, temperature=1.0),
    "top-p": DecodingOptions("sample", top_p=0.8, temperature=1.0),
}
# A sum in another order, as on another processor, changes the last digits of a float32.
TOLERANCE = 1e-4


def captions_now(captioner: Captioner) -> dict[str, list[dict]]:
    """Every search on every photo, a beginning to complete, and a region."""
    found = {}
    for photo, path in PHOTOS.items():
        features = captioner.features([path])
        for name, options in SEARCHES.items():
            found[f"{photo}, {name}"] = captioner.caption_features(features, options)[0]
        one = DecodingOptions("beam", num_captions=1)
        forced = captioner.forced_words("a man in", one)
        found[f"{photo}, prefix"] = captioner.caption_features(features, one, forced)[0]
        bias = captioner.region_bias((0, 0, 0.5, 1))
        found[f"{photo}, region"] = captioner.caption_features(features, one, bias=bias)[0]
    return {
        name: [
            {
                "text": caption.text,
                "log_probs": [round(p, 6) for p in caption.log_probs],
                "brightest": caption.attention.reshape(len(caption.words), -1).argmax(1).tolist(),
            }
            for caption in captions
        ]
        for name, captions in found.items()
    }


@pytest.fixture(scope="module")
def now() -> dict[str, list[dict]]:
    return captions_now(Captioner.from_pretrained(ROOT / "assets" / "checkpoint"))


@pytest.mark.parametrize("name", json.loads(GOLDEN.read_text()) if GOLDEN.exists() else [])
def test_the_same_captions(name: str, now: dict[str, list[dict]]) -> None:
    before = json.loads(GOLDEN.read_text())[name]
    assert [c["text"] for c in now[name]] == [c["text"] for c in before]
    for ours, theirs in zip(now[name], before, strict=True):
        assert np.allclose(ours["log_probs"], theirs["log_probs"], atol=TOLERANCE)
        assert ours["brightest"] == theirs["brightest"]


def test_nothing_is_left_out(now: dict[str, list[dict]]) -> None:
    assert now.keys() == json.loads(GOLDEN.read_text()).keys()


if __name__ == "__main__":
    bundled = Captioner.from_pretrained(ROOT / "assets" / "checkpoint")
    GOLDEN.write_text(json.dumps(captions_now(bundled), indent=1) + "\n")
