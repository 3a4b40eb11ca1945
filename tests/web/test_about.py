"""The model card as the page shows it."""

from __future__ import annotations

from pathlib import Path

from captioner.web.about import model_card


def test_the_card_has_no_metadata_and_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: mit\n---\n\n# A model\n\n![loss](loss.png)\n![a][b] ![c]\n\n"
        "<img src='https://example.org/1.png'> <img src=x\n\nText with `code`, 1 < 2.\n\n"
        "[b]: https://example.org/2.png\n[c]: https://example.org/3.png\n"
    )
    card = model_card(tmp_path)
    assert card.startswith("# A model")
    assert "Text with `code`, 1 &lt; 2." in card
    assert "![" not in card and "<" not in card and "license" not in card


def test_without_a_card_there_is_none(tmp_path: Path) -> None:
    assert model_card(tmp_path) is None
    assert model_card(None) is None
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    assert model_card(tmp_path) is None
