"""Writes a captioned photo as one HTML file that needs no server. Pointing at a word shows where
the model looked. The file can be opened, mailed, or put into another page with an <iframe>."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from captioner.drawing.overlay import ATTENDED, UNATTENDED

if TYPE_CHECKING:
    from captioner.captioner import Caption

_LONGEST_SIDE = 1024  # pixels of the photo inside the file

_PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0; font: 18px/1.5 system-ui, sans-serif; color: #171722; background: white; }}
figure {{ max-width: 720px; margin: 0 auto; padding: 12px; }}
.stage {{ position: relative; line-height: 0; }}
.stage img {{ width: 100%; height: auto; border-radius: 12px; }}
.stage canvas {{ position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 12px; }}
figcaption {{ display: flex; flex-wrap: wrap; gap: 6px; justify-content: center;
  margin-top: 12px; }}
button {{ font: inherit; padding: 4px 10px; min-height: 36px; color: inherit; background: none;
  border: 1px solid #c8c8d2; border-radius: 8px; cursor: pointer; }}
button:hover, button:focus-visible, button[aria-pressed="true"] {{ border-color: #171722; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #f4f4f6; background: #0b0f19; }}
  button:hover, button:focus-visible, button[aria-pressed="true"] {{ border-color: white; }} }}
</style>
<figure><div class="stage"><img src="{photo}" width="{width}" height="{height}" alt="{title}"
><canvas aria-hidden="true"></canvas></div><figcaption dir="auto"></figcaption></figure>
<script>
const data = {data};
const canvas = document.querySelector("canvas");
const show = (map) => {{
  const rows = map.length, columns = map[0].length, high = Math.max(...map.flat());
  const small = Object.assign(document.createElement("canvas"), {{ width: columns, height: rows }});
  const pixels = new ImageData(columns, rows);
  const [warm, warmth] = data.attended, [cold, coldness] = data.unattended;
  map.flat().forEach((value, i) => {{
    const w = high > 0 ? value / high : 1, opacity = w * warmth + (1 - w) * coldness;
    const mix = (c) => (w * warmth * warm[c] + (1 - w) * coldness * cold[c]) / opacity;
    pixels.data.set([mix(0), mix(1), mix(2), 255 * opacity], 4 * i);
  }});
  small.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = [32 * columns, 32 * rows];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}};
const words = data.words.map((word, i) => {{
  const button = Object.assign(document.createElement("button"), {{ textContent: word }});
  const percent = Math.round(100 * Math.exp(data.log_probs[i]));
  button.title = `The model gave this word ${{percent < 1 ? "less than 1" : percent}}%`;
  const light = () => {{
    words.forEach((other) => other.setAttribute("aria-pressed", other === button));
    show(data.attention[i]);
  }};
  for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, light);
  return button;
}});
const caption = document.querySelector("figcaption");
caption.append(...words);
caption.addEventListener("pointerleave", () => {{
  words.forEach((word) => word.setAttribute("aria-pressed", false));
  canvas.width = canvas.width;  // empty again
}});
</script>
"""


def jpeg_url(picture: Image.Image, quality: int = 80) -> str:
    """An RGB picture as a JPEG in a data URL, which a page can show without a further request."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def caption_html(photo: Image.Image, caption: Caption) -> str:
    """A captioned photo as an HTML page, whose words show their attention on hover, tap and focus.

    Args:
        photo: The upright photo.
        caption: Its caption; `caption.attention` is (n_words, rows, columns).

    Returns:
        The page, which contains the photo and the attention and loads nothing from any server.

    Example:
        Path("dog.html").write_text(caption_html(load_image("dog.jpg"), captions[0]), "utf-8")
    """
    small = photo.convert("RGB")
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    content = {
        "words": list(caption.words),
        "log_probs": [round(float(p), 4) for p in caption.log_probs],
        "attention": caption.attention.astype(float).round(5).tolist(),
        "attended": ATTENDED,
        "unattended": UNATTENDED,
    }
    return _PAGE.format(
        title=escape(caption.text, quote=True),
        photo=jpeg_url(small, quality=85),
        width=small.width,
        height=small.height,
        # "</script>" in a word would end the script.
        data=json.dumps(content).replace("<", "\\u003c"),
    )
