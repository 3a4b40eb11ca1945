"""Photos and better captions that visitors leave to whoever runs the page (`app.py --feedback`).

They form a data set of the kind "folder": `captions.jsonl` has one line per caption, and the photos
are beside it in `images/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

from gradio.utils import get_upload_folder

from captioner.data.text import clean
from captioner.data.words import split_words
from captioner.errors import CaptionerError
from captioner.files import write_bytes

CONSENT = (
    "I agree that the photo (at most 1,024 pixels, without its metadata) and my caption are kept "
    "on this server by whoever runs it, who may train models with them."
)
MOST_CHARACTERS, MOST_WORDS = 300, 40  # of a caption
MOST_CAPTIONS, MOST_BYTES = 10_000, 2_000_000_000  # of all captions, and of all photos
_CAPTIONS, _PHOTOS = "captions.jsonl", "images"


class FeedbackUnusable(CaptionerError, OSError):
    """The folder cannot be used for feedback."""


class CaptionRefused(CaptionerError, ValueError):
    """The caption is not kept. The message is for the visitor."""


class Feedback:
    """The data set in a folder, which grows by one caption at a time, from any number of threads.

    Raises:
        FeedbackUnusable: Nothing can be written to the folder, it has other files in it, or what is
            in it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        try:
            (folder / _PHOTOS).mkdir(parents=True, exist_ok=True)
            others = {p.name for p in folder.iterdir() if p.suffix != ".tmp"} - {_CAPTIONS, _PHOTOS}
            probe = folder / _PHOTOS / "probe"
            write_bytes(probe, b"")
            probe.unlink()
            self._lines()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"{_CAPTIONS}: {error}"
            raise FeedbackUnusable(f"{folder}: {reason}.") from error
        if others:
            raise FeedbackUnusable(
                f"{folder} has other files in it ({min(others)}). Give a folder of its own."
            )

    def keep(self, photo: bytes, caption: str) -> None:
        """Adds a caption of a photo. It is written whole or not at all. A caption that is there
        already is not added again.

        Args:
            photo: The bytes of a JPEG file without metadata.
            caption: The caption as the visitor has written it.

        Raises:
            CaptionRefused: It has no words or too many, or there is no room for more captions.
            OSError: It cannot be written.
        """
        caption = checked(caption)
        name = f"{hashlib.sha256(photo).hexdigest()[:32]}.jpg"
        line = json.dumps({"image": name, "caption": caption, "by": "people"})
        path = self._folder / _PHOTOS / name
        with self._lock:
            lines = self._lines()
            if line in lines:
                return
            new = not path.exists()
            size = sum(entry.stat().st_size for entry in os.scandir(path.parent))
            if len(lines) >= MOST_CAPTIONS or (new and size + len(photo) > MOST_BYTES):
                raise CaptionRefused("This server has as many captions as it keeps. Thank you.")
            try:
                if new:  # written first, because a caption is of no use without its photo
                    write_bytes(path, photo)
                text = "".join(f"{each}\n" for each in [*lines, line])
                write_bytes(self._folder / _CAPTIONS, text.encode())
            except OSError:
                if new:
                    path.unlink(missing_ok=True)
                raise

    def _lines(self) -> list[str]:
        path = self._folder / _CAPTIONS
        text = path.read_text("utf-8") if path.exists() else ""
        # `splitlines` would also split a caption that somebody has written with U+2028 in it.
        return [line for line in text.split("\n") if line]


def open_folder(folder: Path) -> Feedback:
    """Opens the data set in a folder, and makes sure that no visitor can read it.

    Raises:
        FeedbackUnusable: The folder cannot be used, or it is inside the server's folder of uploads,
            which visitors can read and whose files are deleted.
    """
    sent = Path(get_upload_folder()).resolve()
    if folder.resolve().is_relative_to(sent):
        raise FeedbackUnusable(f"{folder} is in {sent}, which visitors can read. Give another one.")
    return Feedback(folder)


def checked(caption: str) -> str:
    """Cleans a caption: single spaces, and no control characters.

    Raises:
        CaptionRefused: It has no words or too many.
    """
    text = " ".join(clean(caption).split())
    words = split_words(text)
    if not words:
        raise CaptionRefused("A caption needs words. Write what the photo shows.")
    if len(text) > MOST_CHARACTERS or len(words) > MOST_WORDS:
        raise CaptionRefused(
            f"A caption has at most {MOST_WORDS} words and {MOST_CHARACTERS} characters here. "
            "Make it shorter."
        )
    return text
