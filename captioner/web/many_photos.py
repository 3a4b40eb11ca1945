"""The part of the page for many photos. They are captioned one group after another, and the results
can be downloaded as a table, as JSON, and as attention grids."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import PurePosixPath
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from captioner.captioner import Caption, Captioner
from captioner.data.images import ImageError
from captioner.drawing.overlay import attention_grid_png
from captioner.files import unique_names
from captioner.model.decoding_options import DEFAULTS
from captioner.web import responses, sent_files
from captioner.web.downloads import add_to_zip, file_name
from captioner.web.reading import read_picture
from captioner.web.sent_files import MAX_MEGABYTES, source

MAX_PHOTOS = 100  # at a time
CSV_COLUMNS = ("name", "rank", "caption", "probability", "mean_log_prob", "grid", "problem")
_GROUP = 8  # photos that go through the network together
_TILE = 200  # pixels per tile of the attention grids
_AT_ONCE = 2  # visitors, because each holds the grids of up to 100 photos, about 60 MB
_FORMULAS = tuple("=+-@\t\r")

_HINT = (
    "Drop photos or a folder anywhere on this page, "
    f"up to {MAX_PHOTOS} photos at a time, each of at most {MAX_MEGABYTES} MB. Each gets "
    f"{DEFAULTS.num_captions} captions; the best is shown here, with the mean probability of its "
    "words. Nothing is kept on the server for more than two hours."
)
_SENT = """() => '<p role="status">The photos are sent. ' +
    'They wait until those of other visitors are done, if there are any.</p>'"""


@dataclass(frozen=True)
class Captioned:
    """A file that was sent: its captions, best first, or the reason why it has none."""

    name: str  # as it was sent
    grid: str  # the name of its attention grid in the archive
    captions: Sequence[Caption] = ()
    problem: str = ""


def add_many_photos(captioner: Captioner) -> None:
    """Adds the part to the `gr.Blocks` that is being built."""
    files = gr.File(label="Photos", file_count="multiple", height=150, elem_id="many-files")
    folder = gr.UploadButton("Choose a folder", file_count="directory", elem_id="many-folder")
    gr.Markdown(_HINT, elem_id="many-hint")
    with gr.Row():  # above the table, which may be long
        taken = [
            gr.DownloadButton(label, visible=False, elem_id=f"many-{kind}")
            for label, kind in (
                ("Captions as CSV", "csv"),
                ("Captions as JSON lines", "jsonl"),
                ("Attention grids as ZIP", "zip"),
            )
        ]
    table = gr.HTML("", elem_id="many-table")
    ways = [files, folder]

    def caption_folder(given: Any) -> Iterator[list[Any]]:
        """Sorts the files by name, because browsers send a folder in the order of its disk."""
        yield from caption_all(sorted(given or [], key=lambda file: _name(file).lower()))

    def caption_all(given: Any) -> Iterator[list[Any]]:
        """Shows the table while it grows, and offers the files in the end."""
        for content, paths in answer(captioner, given):
            busy = paths is None
            buttons = [gr.update(visible=bool(p), value=p) for p in paths or (None,) * len(taken)]
            inputs = [gr.update(value=None, interactive=not busy) for _ in ways]
            yield [content, *buttons, *inputs]

    for way, run in ((files, caption_all), (folder, caption_folder)):
        way.upload(fn=None, outputs=[table], js=_SENT)  # until the first answer
        way.upload(
            run,
            [way],
            [table, *taken, *ways],
            preprocess=False,
            concurrency_id="many photos",
            concurrency_limit=_AT_ONCE,
            show_progress="hidden",
            api_visibility="private",
        )


def answer(captioner: Captioner, given: Any) -> Iterator[tuple[str, list[str | None] | None]]:
    """Captions the photos one group after another.

    Args:
        captioner: Captions the photos.
        given: The uploaded files, as Gradio hands them over unprocessed.

    Yields:
        After each group, the table as HTML, and None. In the end, the table and the paths of the
        files: CSV, JSON lines, and a ZIP of the attention grids, each None if it would be empty.
    """
    files = given if isinstance(given, list) else [given] if given else []
    total, rest = min(len(files), MAX_PHOTOS), len(files) - MAX_PHOTOS
    note = f"{rest} more files were left out: send {MAX_PHOTOS} at a time." if rest > 0 else ""
    rows: list[Captioned] = []
    drawings = io.BytesIO()
    yield table_html(rows, total, note), None
    try:
        for found, photos in _groups(captioner, files[:MAX_PHOTOS]):
            with responses.messages_for_visitors():
                _draw(drawings, found, photos)
            rows += found
            yield table_html(rows, total, note), None
    except gr.Error as error:  # the photos that are done by now are kept
        note = f"It stopped here. {error.message} {note}"
    try:
        paths = _write_files(rows, drawings.getvalue())
    except gr.Error as error:
        note, paths = f"{error.message} {note}", []
    yield table_html(rows, total, note), paths


def _groups(
    captioner: Captioner, files: Sequence[Any]
) -> Iterator[tuple[list[Captioned], list[Image.Image | None]]]:
    names = [_name(file) for file in files]
    # Several folders may have photos of the same name, but names in a ZIP must be unique.
    grids = [f"{name}.png" for name in unique_names(PurePosixPath(name).stem for name in names)]
    for start in range(0, len(files), _GROUP):
        group = slice(start, start + _GROUP)
        blank = [Captioned(*both) for both in zip(names[group], grids[group], strict=True)]
        with responses.messages_for_visitors():
            found = _caption_group(captioner, blank, files[group])
        yield found


def _draw(
    drawings: io.BytesIO, rows: Sequence[Captioned], photos: Sequence[Image.Image | None]
) -> None:
    """Adds the attention grids of the best captions to an archive."""
    add_to_zip(
        drawings,
        (
            (row.grid, attention_grid_png(photo, row.captions[0], _TILE))
            for row, photo in zip(rows, photos, strict=True)
            if photo is not None
        ),
    )


def _write_files(rows: Sequence[Captioned], drawings: bytes) -> list[str | None]:
    contents = {
        "captions.csv": to_csv(rows),
        "captions.jsonl": to_json_lines(rows),
        "attention.zip": drawings if any(row.captions for row in rows) else b"",
    }
    with responses.messages_for_visitors():
        return [
            responses.cache_file(content, name) if content else None
            for name, content in contents.items()
        ]


def _caption_group(
    captioner: Captioner, blank: Sequence[Captioned], files: Sequence[Any]
) -> tuple[list[Captioned], list[Image.Image | None]]:
    """Captions some files.

    Returns:
        For each file its row, and its photo, made small enough to be kept, or None.
    """
    photos: list[Image.Image | None] = []
    problems: list[str] = []
    pixels: list[np.ndarray] = []
    for file in files:
        try:
            photo, (given,) = read_picture(source(file), [captioner])
            pixels.append(given)
            photos.append(photo)
            problems.append("")
        except ImageError as error:
            photos.append(None)
            problems.append(str(error))
    found: Iterator[list[Caption]] = iter(())
    if pixels:
        features = captioner.features_of_pixels(np.stack(pixels))
        found = iter(captioner.caption_features(features, DEFAULTS))
    rows = [
        replace(row, problem=problem) if problem else replace(row, captions=next(found))
        for row, problem in zip(blank, problems, strict=True)
    ]
    return rows, photos


def table_html(rows: Sequence[Captioned], total: int, left_out: str) -> str:
    """The progress and a table of the photos as HTML. Each row has the best caption and the mean
    probability of its words, or the reason why there is no caption."""
    failed = sum(bool(row.problem) for row in rows)
    state = f"{len(rows)} of {total} files are done"
    state += f", {failed} of which could not be captioned." if failed else "."
    lines = []
    for row in rows:
        cells = f'<th scope="row" dir="auto">{escape(row.name)}</th>'
        if row.problem:
            cells += f'<td class="problem" colspan="2">{escape(row.problem)}</td>'
        else:
            best = row.captions[0]
            cells += f'<td dir="auto">{escape(best.text)}</td>'
            cells += f"<td>{math.exp(best.mean_log_prob):.0%}</td>"
        lines.append(f"<tr>{cells}</tr>")
    head = "".join(f'<th scope="col">{h}</th>' for h in ("Photo", "Caption", "Per word"))
    return (
        f'<p role="status">{state} {escape(left_out)}</p>'
        f'<progress aria-label="Files done" value="{len(rows)}" max="{max(total, 1)}"></progress>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def to_csv(rows: Sequence[Captioned]) -> bytes:
    """A table of all captions. Files without captions have the reason in the last column.

    The text is UTF-8 with a byte order mark, by which spreadsheets recognise it.
    """
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(CSV_COLUMNS)
    for row in rows:
        if row.problem:
            table.writerow([_cell(row.name), "", "", "", "", "", _cell(row.problem)])
        for rank, caption in enumerate(row.captions, start=1):
            per_word = caption.mean_log_prob
            grid = _cell(row.grid) if rank == 1 else ""  # only the best caption is drawn
            numbers = (round(math.exp(per_word), 4), round(per_word, 6))
            table.writerow([_cell(row.name), rank, _cell(caption.text), *numbers, grid, ""])
    return file.getvalue().encode("utf-8-sig", "backslashreplace")


def to_json_lines(rows: Sequence[Captioned]) -> bytes:
    """One line per file, with a JSON object: the file's name, and its captions or the problem."""
    lines = []
    for row in rows:
        captions = [responses.to_json(caption) for caption in row.captions]
        content = {"grid": row.grid, "captions": captions}
        if row.problem:
            content = {"problem": row.problem}
        lines.append(json.dumps({"name": row.name} | content) + "\n")
    return "".join(lines).encode()


def _cell(text: str) -> str:
    """`text`, changed where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(_FORMULAS) else text


def _name(file: Any) -> str:
    """The file's name as the sender has it, without folders."""
    return file_name(sent_files.name(file))
