"""The code of docs/extending.md runs as it stands, and what it adds works."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Photo
from sizes import GRID, INPUT

from captioner import Captioner
from captioner.checkpoint.model_card import model_card
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig, TrainingConfig
from captioner.data.datasets import DATASETS, DatasetError, Record, read_split
from captioner.data.images import NETWORK_INPUT
from captioner.data.mixture import joined_name, parse_sources, read_mixture
from captioner.model.backbone import FoldedBackbone, build_backbone
from captioner.model.backbones import BACKBONES
from captioner.training.run import RunOptions, run_training

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def code_of(heading: str) -> str:
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return code


def test_adding_a_data_set(tmp_path: Path) -> None:
    for name in ("train/dog", "train/dogs", "val/cat"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jpg").write_bytes(b"")
        (tmp_path / f"{name}.txt").write_text(f"A {name} .\r\n\nOne {name}", "utf-8")
    try:
        exec(compile(code_of("A data set"), str(PAGE), "exec"), {"__name__": "extending"})
        sources = parse_sources([f"sidecars:{tmp_path}"])
        records = read_mixture(sources)
        assert [(r.image_id, r.split, r.captions) for r in records] == [
            (name, name.split("/")[0], (f"A {name} .", f"One {name}"))
            for name in ("train/dog", "train/dogs", "val/cat")
        ]
        assert len(read_mixture(sources, num_images=1)) == 2
        found, train_captions = read_split("sidecars", tmp_path, "val", 0)
        assert [r.image_id for r in found] == ["val/cat"] and len(train_captions) == 4
        with pytest.raises(DatasetError, match=r"has no train/\*\.jpg"):
            read_mixture(parse_sources([f"sidecars:{tmp_path / 'val'}"]))
        config = CaptionerConfig(
            ModelConfig(9, **GRID), BackboneConfig(**INPUT), dataset=joined_name(sources)
        )
        card = model_card(config, {})
        assert "trained on Photos with text files" in card
        assert "Photos with text files: Creative Commons Attribution 4.0." in card
    finally:
        DATASETS.pop("sidecars", None)


@pytest.mark.slow
def test_adding_a_backbone(tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen with, trained on, fine-tuned, described and read back."""
    monkeypatch.setenv("PATH", "")  # without Java there are no scores, which have their own tests
    try:
        exec(compile(code_of("A backbone"), str(PAGE), "exec"), {"__name__": "extending"})
        entry = BACKBONES["mobilenet_v2"]
        network = entry.build(entry.image_size, None)
        assert network.output_shape[1:] == entry.shape
        random = np.random.default_rng(0)
        for variable in network.variables:
            if variable.name == "moving_variance":
                variable.assign(random.uniform(0.5, 1.5, variable.shape))
            elif variable.name == "kernel":  # of each channel alone, if the last size is 1
                fan_in = np.prod(variable.shape[: 2 if variable.shape[-1] == 1 else 3])
                variable.assign(random.normal(0, np.sqrt(2 / fan_in), variable.shape))
        file = tmp_path / "random.weights.h5"
        network.save_weights(file)
        plain = build_backbone(file, name="mobilenet_v2")
        folded = FoldedBackbone(plain)
        pixels = np.asarray(photo(0, 224, 224))[None]
        wanted = plain.predict_on_batch(NETWORK_INPUT[pixels])
        assert wanted.std() > 0.01
        np.testing.assert_allclose(
            folded.predict_on_batch(pixels), wanted, rtol=1e-3, atol=1e-4 * wanted.max()
        )
        records = []
        for i in range(8):
            photo(i).save(tmp_path / f"{i}.png")
            split = "train" if i < 6 else "val"
            records.append(Record(str(i), tmp_path / f"{i}.png", ("a thing",), split))
        options = RunOptions(
            "folder",
            tmp_path / "output",
            backbone="mobilenet_v2",
            backbone_weights=str(file),
            training=TrainingConfig(
                epochs=1,
                batch_size=4,
                finetune_from="out_relu",
                finetune_epochs=1,
                finetune_image_size=96,
            ),
            model={"embedding_dim": 8, "units": 8, "attention_units": 8},
        )
        folder = run_training(records, options)
        stamp = json.loads((tmp_path / "output" / "features" / "stamp.json").read_text())
        assert stamp["backbone"] == "mobilenet_v2"
        captioner = Captioner.from_pretrained(folder)
        assert captioner.config.backbone.name == "mobilenet_v2"
        assert captioner.caption(records[0].path, 1)[0].attention.shape[1:] == (7, 7)
        card = (folder / "README.md").read_text("utf-8")
        assert "MobileNetV2 features (7 x 7 x\n1280)" in card
    finally:
        BACKBONES.pop("mobilenet_v2", None)
