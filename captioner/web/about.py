"""What the page says about the model: its name, its limits in one line, and its card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import gradio as gr

from captioner.captioner import Captioner
from captioner.checkpoint.file_names import CARD
from captioner.web.shown_models import ShownModel

_LIMITS = (
    "<b>What it cannot do:</b> the model knows the things and words of the photos that it was "
    "trained on, and little else. It miscounts, it cannot read, it knows no names, and it is "
    "sometimes sure when it is wrong."
)
_OPEN_CARD = """
element.querySelector("a").addEventListener("click", (event) => {
  event.preventDefault();
  const card = document.querySelector("#model-card");
  card.querySelector("button[aria-expanded=false], button:not(.open)")?.click();
  card.scrollIntoView({ block: "nearest" });
});
"""


def add_about(models: Sequence[ShownModel]) -> None:
    """Adds the line, and the first model's card, to the `gr.Blocks` that is being built."""
    captioner = models[0].captioner
    card = model_card(captioner.folder)
    link = ' <a href="#model-card">Model card</a>' if card else ""
    names = [f"<b>{escape(model.name or model_name(captioner))}</b>" for model in models]
    named = f"Model: {names[0]}." if len(names) == 1 else f"Models: {' and '.join(names)}."
    gr.HTML(
        f"<p>{_LIMITS} {named}{link}</p>",
        elem_id="about",
        js_on_load=_OPEN_CARD if card else None,
    )
    if card:
        with gr.Accordion(
            f"Model card of {model_name(captioner)}", open=False, elem_id="model-card"
        ):
            gr.Markdown(card)


def model_name(captioner: Captioner) -> str:
    """The name that the model card uses as well, such as "captioner-flickr8k"."""
    return "-".join(filter(None, ("captioner", captioner.config.dataset)))


def model_card(folder: Path | None) -> str | None:
    """The model card in a checkpoint directory as Markdown, without its metadata; None if there is
    none. Pictures are left out, because the page must not load anything from other hosts."""
    try:
        text = (Path(folder or "") / CARD).read_text("utf-8") if folder else ""
    except (OSError, UnicodeDecodeError):
        return None
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])|<[^>]*>", "", text)
    text = text.replace("![", "[").replace("<", "&lt;")  # anything else that might be a picture
    return text.strip() or None
