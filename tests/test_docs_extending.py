"""The code of docs/extending.md runs as it stands, and what it adds works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captioner.checkpoint.model_card import model_card
from captioner.config import CaptionerConfig, ModelConfig
from captioner.data.datasets import DATASETS, DatasetError, read_split
from captioner.data.mixture import parse_sources, read_mixture, title_of

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
        config = CaptionerConfig(ModelConfig(vocabulary_size=9), dataset=title_of(sources))
        card = model_card(config, {})
        assert "trained on Photos with text files" in card
        assert "Photos with text files: Creative Commons Attribution 4.0." in card
    finally:
        DATASETS.pop("sidecars", None)
