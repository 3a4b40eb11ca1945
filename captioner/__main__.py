"""Captions photos and folders of photos: `python -m captioner PHOTO...`, or `captioner PHOTO...`.

It prints one line per caption, best first: the file, a tab, and the caption. Files that are not
pictures are reported on standard error and skipped; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.data.names import is_picture
from captioner.environment import BUNDLED_CHECKPOINT, settle
from captioner.errors import CaptionerError, report
from captioner.files import remedy, user_path
from captioner.model.decoding_options import (
    DEFAULTS,
    STRATEGIES,
    DecodingOptions,
    OptionError,
    as_typed,
    help_of,
)

if TYPE_CHECKING:
    import numpy as np

    from captioner.captioner import Caption, Captioner

CSV_COLUMNS = ("file", "rank", "caption", "mean_log_prob")
SEARCH = {  # the options of the search, and their types
    "strategy": str,
    "num_captions": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "beam_width": int,
    "seed": int,
}


def parser() -> argparse.ArgumentParser:
    """The parser of the command line. The search has the defaults of `Captioner.caption`."""
    lines = argparse.ArgumentParser("captioner", description=__doc__)
    add = lines.add_argument
    add(
        "photos",
        nargs="+",
        type=user_path,
        metavar="PHOTO",
        help="pictures, and folders of pictures",
    )
    add("--json", action="store_true", help="print a JSON object per photo, with the attention")
    add("--csv", type=user_path, metavar="FILE", help="also write a table of all captions")
    add(
        "--grid",
        type=user_path,
        metavar="FOLDER",
        help="also write a PNG for each photo, with the attention of its best caption",
    )
    add(
        "--html",
        type=user_path,
        metavar="FOLDER",
        help="also write a page for each photo, with its best caption",
    )
    add(
        "--checkpoint",
        default=str(BUNDLED_CHECKPOINT),
        metavar="PATH_OR_HUB_ID",
        help="a directory, or USER/NAME on the Hugging Face Hub (default: assets/checkpoint)",
    )
    add("--revision", help="a branch, tag or commit on the Hub")
    search = lines.add_argument_group("how to search")
    add = search.add_argument
    for name, kind in SEARCH.items():
        add(
            f"--{name.replace('_', '-')}",
            type=kind,
            choices=STRATEGIES if name == "strategy" else None,
            default=getattr(DEFAULTS, name),
            metavar={int: "N", float: "X"}.get(kind),
            help=help_of(name),
        )
    add("--prefix", default="", metavar="TEXT", help="the captions begin with these words")
    add(
        "--region",
        type=_region,
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="look at this part of each photo, in fractions of it: 0,0,0.5,1 for its left half",
    )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Captions the photos that the command line names. Returns the exit status."""
    lines = parser()
    options = lines.parse_args(arguments)
    try:
        search = DecodingOptions(
            distinct=DEFAULTS.distinct, **{name: getattr(options, name) for name in SEARCH}
        )
    except OptionError as error:
        lines.error(as_typed(str(error)))
    try:
        _check_outputs(options)
        photos, failed = find_photos(options.photos)
        if not photos:
            raise OptionError("there is no photo to caption.")
        settle(page=True)  # only now that the options are read, because TensorFlow takes seconds
        return _caption_all(options, search, photos, failed)
    except (CaptionerError, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        return 130


def find_photos(given: Sequence[Path]) -> tuple[list[Path], int]:
    """Finds the photos that the command line names.

    Args:
        given: Photos, and folders that are searched with all their subfolders.

    Returns:
        The files, in the order of `given`, those of a folder sorted by path; and how many of
        `given` do not exist. Those are reported.
    """
    photos: list[Path] = []
    failed = 0
    for path in given:
        if path.is_dir():
            files = sorted(_files_in(path))
            pictures = [file for file in files if _may_be_photo(file)]
            if others := len(files) - len(pictures):
                _report(f"{path}: files that are not pictures are left out ({others}).")
            photos += pictures
        elif path.exists():
            photos.append(path)
        else:
            _report(f"{path} does not exist. Check the path.")
            failed += 1
    return list(dict.fromkeys(photos)), failed


def _files_in(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, those behind links too, but no folder twice."""
    visited: set[str] = set()

    def unreadable(error: OSError) -> None:
        what = remedy(error) or "Check the path"
        _report(f"{error.filename} cannot be read ({error.strerror}). {what}.")

    for here, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:  # links may form a circle
            folders.clear()
        else:
            visited.add(real)
            yield from (Path(here, name) for name in names)


def _may_be_photo(file: Path) -> bool:
    """Whether a file in a folder is to be captioned: by its name or, if that has no extension, by
    its content. HEIC photos are, too, so that the user is told what to do with them."""
    from captioner.data.image_repair import known_format

    if file.is_symlink() and not file.exists():
        return is_picture(file.name)  # which will be reported
    if not file.is_file():
        return False
    if file.suffix:
        return is_picture(file.name) or file.suffix.lower() in (".heic", ".heif")
    try:
        with file.open("rb") as content:
            return bool(known_format(content.read(64)))
    except OSError:
        return False


def _caption_all(
    options: argparse.Namespace, search: DecodingOptions, photos: list[Path], failed: int
) -> int:
    from tqdm import tqdm

    from captioner.captioner import Captioner
    from captioner.data.images import ImageError

    captioner = Captioner.from_pretrained(options.checkpoint, options.revision)
    table: list[tuple[str, int, str, float]] = []
    grids = _grid_names(photos)
    progress = tqdm(total=len(photos), unit="photo", disable=None, file=sys.stderr)
    with progress, _written_at_the_end(table, options.csv):
        for path, captions in _captions(captioner, photos, search, options):
            progress.update()
            if isinstance(captions, CaptionerError):
                failed += 1
                progress.clear()
                _report(f"{_on_one_line(path)}: {captions}")
                if options.json:
                    print(json.dumps({"file": str(path), "error": str(captions)}))
                continue
            progress.clear()
            _print(path, captions, options.json)
            table += [
                (str(path), rank, c.text, round(c.mean_log_prob, 6))
                for rank, c in enumerate(captions, start=1)
            ]
            try:
                if options.grid:
                    _write_grid(options.grid / grids[path], path, captions[0])
                if options.html:
                    target = (options.html / grids[path]).with_suffix(".html")
                    _write_html(target, path, captions[0])
            except ImageError as error:  # the photo has been deleted meanwhile
                failed += 1
                _report(f"{path}: {error}")
    sys.stdout.flush()
    return 1 if failed else 0


@contextlib.contextmanager
def _written_at_the_end(
    table: Sequence[tuple[str, int, str, float]], target: Path | None
) -> Iterator[None]:
    """Writes the table, if that is asked for: also after Ctrl-C or an error, as far as it goes."""
    from captioner.files import write_bytes

    try:
        yield
    finally:
        if target:
            file = io.StringIO(newline="")
            csv.writer(file).writerows([CSV_COLUMNS, *table])
            write_bytes(target, file.getvalue().encode("utf-8", "backslashreplace"))


def _captions(
    captioner: Captioner, photos: list[Path], search: DecodingOptions, options: argparse.Namespace
) -> Iterator[tuple[Path, list[Caption] | CaptionerError]]:
    """Yields each photo, in order, with its captions or with the reason why it has none."""
    from captioner.data.images import ImageError

    forced = captioner.forced_words(options.prefix, search) if options.prefix else None
    bias = None if options.region is None else captioner.region_bias(options.region)
    size = captioner.extractor.batch_size
    for start in range(0, len(photos), size):
        pixels: list[np.ndarray] = []
        found: dict[Path, Any] = dict.fromkeys(photos[start : start + size])
        for path in found:
            try:
                pixels.append(captioner.pixels(path))
            except ImageError as error:
                found[path] = error
        if pixels:
            captions = iter(captioner.caption_pixels(pixels, search, forced, bias))
            for path in found:
                found[path] = found[path] or next(captions)
        yield from found.items()


def _print(path: Path, captions: Sequence[Caption], as_json: bool) -> None:
    if as_json:
        content = [
            {
                "text": c.text,
                "words": c.words,
                "log_probs": [round(p, 6) for p in c.log_probs],
                "attention": c.attention.astype(float).round(6).tolist(),
            }
            for c in captions
        ]
        print(json.dumps({"file": str(path), "captions": content}), flush=True)
        return
    for caption in captions:
        print(f"{_on_one_line(path)}\t{caption.text}", flush=True)


def _on_one_line(path: Path) -> str:
    """The path, with line ends and tabs in it as Python writes them, so that a line of the output
    stays one line."""
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: repr(found[0])[1:-1], str(path))


def _write_grid(target: Path, path: Path, caption: Caption) -> None:
    from captioner.data.images import load_image
    from captioner.drawing.overlay import attention_grid_png
    from captioner.files import write_bytes

    write_bytes(target, attention_grid_png(load_image(path), caption))


def _write_html(target: Path, path: Path, caption: Caption) -> None:
    from captioner.data.images import load_image
    from captioner.drawing.embed import caption_html
    from captioner.files import write_bytes

    write_bytes(target, caption_html(load_image(path), caption).encode())


def _grid_names(photos: Sequence[Path]) -> dict[Path, str]:
    """The file name of each photo's grid: the photo's name, with a number if it occurred before."""
    from captioner.files import unique_names

    names = unique_names(path.stem for path in photos)
    return {path: f"{name}.png" for path, name in zip(photos, names, strict=True)}


def _check_outputs(options: argparse.Namespace) -> None:
    """Raises OptionError for mistakes that would otherwise appear only after the work."""
    for folder in filter(None, (options.grid, options.html)):
        folder.mkdir(parents=True, exist_ok=True)
    if options.csv and (options.csv.is_dir() or not options.csv.parent.is_dir()):
        raise OptionError(f"--csv: {options.csv} is not a file in a folder that exists.")
    for folder in (options.grid, options.html, options.csv and options.csv.parent):
        if folder and not os.access(folder, os.W_OK):
            raise OptionError(f"{folder} cannot be written to. Give another folder.")


def _report(message: str) -> None:
    print(message, file=sys.stderr)


def _region(text: str) -> tuple[float, ...]:
    try:
        left, top, right, bottom = sides = tuple(float(side) for side in text.split(","))
    except ValueError:  # there are more or fewer sides, or one is not a number
        message = "four numbers are needed: LEFT,TOP,RIGHT,BOTTOM"
        raise argparse.ArgumentTypeError(message) from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise argparse.ArgumentTypeError(
            "the numbers must be from 0 to 1, with left below right and top below bottom"
        )
    return sides


if __name__ == "__main__":
    sys.exit(main())
