"""The endpoint `/caption` of the real app with the bundled checkpoint, as programs call it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import zlib
from argparse import Namespace
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import matplotlib
import numpy as np
import pytest
from app_process import ROOT, App
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from captioner import CheckpointError
from captioner.web.examples import example_photos, examples


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """A real photo, in the public domain: Grace Hopper, as it ships with matplotlib."""
    with Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")) as image:
        return image.convert("RGB").resize((240, 280))


def ask(client: Client, path: Path, **options: Any) -> tuple[list[dict], Path]:
    answer, grid = client.predict(handle_file(path), api_name="/caption", **options)
    return answer["captions"], Path(grid)


def same_captions(client: Client, path: Path, plain: Image.Image) -> None:
    """Asserts that a file gives what its pixels, as a plain PNG, give."""
    plain.save(path.with_name("plain.png"))
    expected, _ = ask(client, path.with_name("plain.png"))
    captions, grid = ask(client, path)
    assert [c["text"] for c in captions] == [c["text"] for c in expected]
    for caption, like in zip(captions, expected, strict=True):
        assert caption["log_probs"] == pytest.approx(like["log_probs"], abs=1e-4)
    with Image.open(grid) as picture:
        assert picture.format == "PNG"


def refusal(app: App, client: Client, path: Path, portrait: Image.Image) -> str:
    """The message that a bad file is refused with; what every such message must be is asserted."""
    with pytest.raises(AppError) as caught:
        ask(client, path)
    message = str(caught.value)
    assert path.name in message
    assert message in app.log
    assert "/" not in message and "\\" not in message  # no folder
    assert "Traceback" not in message
    portrait.save(path.with_name("good.png"))
    captions, _ = ask(client, path.with_name("good.png"))  # the server goes on
    assert len(captions) == 3
    return message


def test_the_answer_is_what_the_contract_says(
    client: Client, portrait: Image.Image, tmp_path: Path
) -> None:
    portrait.save(tmp_path / "photo.jpg")
    captions, grid = ask(client, tmp_path / "photo.jpg", num_captions=2)
    assert len(captions) == 2
    for caption in captions:
        assert set(caption) == {"text", "words", "log_probs", "attention"}
        assert caption["text"] == " ".join(caption["words"]) != ""
        assert len(caption["log_probs"]) == len(caption["words"])
        assert max(caption["log_probs"]) <= 0
        attention = np.array(caption["attention"])
        assert attention.shape == (len(caption["words"]), 8, 8)
        assert attention.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-3)
    means = [np.mean(caption["log_probs"]) for caption in captions]
    assert means == sorted(means, reverse=True)
    with Image.open(grid) as picture:
        assert picture.format == "PNG"
        rows = np.asarray(picture.convert("RGB"))
        assert (rows[0] == 255).all() and rows.min() < 60  # a white sheet with a photo on it


def test_the_same_seed_gives_the_same_captions(
    client: Client, portrait: Image.Image, tmp_path: Path
) -> None:
    portrait.save(tmp_path / "photo.jpg")
    options = {"num_captions": 3, "strategy": "sample", "temperature": 1.5}
    first, grid = ask(client, tmp_path / "photo.jpg", seed=7, **options)
    again, same_grid = ask(client, tmp_path / "photo.jpg", seed=7, **options)
    other, _ = ask(client, tmp_path / "photo.jpg", seed=8, **options)
    assert first == again
    assert grid.read_bytes() == same_grid.read_bytes()
    assert first != other


def test_every_strategy_answers(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    portrait.save(tmp_path / "photo.jpg")
    beam, _ = ask(client, tmp_path / "photo.jpg", strategy="beam", num_captions=3)
    greedy, _ = ask(client, tmp_path / "photo.jpg", strategy="greedy", num_captions=3)
    assert len({caption["text"] for caption in beam}) == 3
    assert len(greedy) == 1


def test_plain_http(app: App, portrait: Image.Image, tmp_path: Path) -> None:
    portrait.save(tmp_path / "photo.jpg")
    with httpx.Client(base_url=app.url + "gradio_api/", timeout=60) as http:
        with (tmp_path / "photo.jpg").open("rb") as file:
            uploaded = http.post("upload", files={"files": file}).json()[0]
        kind, data = call(http, {"path": uploaded, "meta": {"_type": "gradio.FileData"}})
        assert kind == "complete"
        assert len(data[0]["captions"]) == 3
        picture = http.get(data[1]["url"])
        assert picture.headers["content-type"] == "image/png"


def call(http: httpx.Client, image: Any) -> tuple[str, Any]:
    """The last event of a call of `/caption`, and its data."""
    request = {"data": [image, 3, "sample", 0.7, 0]}
    event = http.post("call/caption", json=request).json()["event_id"]
    lines = http.get(f"call/caption/{event}").text.split("\n")
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return kinds[-1], json.loads(data[-1])


@pytest.mark.parametrize(
    "image",
    [
        {"path": str(ROOT / "pyproject.toml"), "meta": {"_type": "gradio.FileData"}},
        {"path": str(ROOT / "pyproject.toml")},
        {"path": "../../app.py", "meta": {"_type": "gradio.FileData"}},
        {"url": (ROOT / "assets").as_uri(), "meta": {"_type": "gradio.FileData"}},
        str(ROOT / "pyproject.toml"),
        17,
        {"url": "data:image/png;base64,=", "meta": {"_type": "gradio.FileData"}},
        {"path": "http://127.0.0.1:9/photo.jpg", "meta": {"_type": "gradio.FileData"}},
        None,
    ],
)
def test_only_uploaded_files_are_read(app: App, image: Any) -> None:
    with httpx.Client(base_url=app.url + "gradio_api/", timeout=60) as http:
        kind, data = call(http, image)
    assert kind == "error"
    text = json.dumps(data)
    assert str(ROOT) not in text and "Traceback" not in text
    if isinstance(image, dict) and image.get("path", "").startswith("http"):
        assert "does not fetch addresses" in text


@pytest.mark.parametrize("form", ["path", "relative", "null", "empty", "address", "complete"])
def test_a_picture_of_the_server_is_not_read(app: App, form: str) -> None:
    """Gradio itself checks only paths with the mark of an uploaded file."""
    picture = example_photos()[0]
    given: dict[str, Any] = {"path": str(picture)}
    if form == "relative":
        given = {"path": str(picture.relative_to(ROOT))}
    elif form in ("null", "empty"):
        given |= {"meta": None if form == "null" else {}}
    elif form == "address":
        given = {"path": f"{app.url}gradio_api/file={picture}"}
    with httpx.Client(base_url=app.url + "gradio_api/", timeout=60) as http:
        if form == "complete":
            body = {"data": [given, "a", 3, "greedy", 0.7, 0]}
            event = http.post("call/complete", json=body).json()["event_id"]
            text = http.get(f"call/complete/{event}").text
        else:
            kind, data = call(http, given)
            text = f"event: {kind} {data}"
    assert "event: error" in text and "captions" not in text.replace("Image captions", "")
    if form not in ("null", "empty"):
        assert "opens only files that it has been sent" in text


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_captions", 0, "whole number from 1 to 10"),
        ("num_captions", 11, "whole number from 1 to 10"),
        ("num_captions", 1.5, "whole number from 1 to 10"),
        ("num_captions", "three", "whole number from 1 to 10"),
        ("num_captions", True, "whole number from 1 to 10"),
        ("strategy", "guess", "one of sample, greedy, beam"),
        ("strategy", ["beam"], "one of sample, greedy, beam"),
        ("temperature", 0, "number from 0.1 to 2"),
        ("temperature", "hot", "number from 0.1 to 2"),
        ("temperature", None, "number from 0.1 to 2"),
        ("seed", -1, "whole number from 0"),
        ("seed", 2**40, "whole number from 0"),
    ],
)
def test_bad_options_are_named(
    client: Client, portrait: Image.Image, tmp_path: Path, option: str, value: Any, message: str
) -> None:
    portrait.save(tmp_path / "photo.png")
    with pytest.raises(AppError, match=message) as caught:
        ask(client, tmp_path / "photo.png", **{option: value})
    assert str(caught.value).startswith(option)


def test_an_empty_file(app: App, client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "nothing.jpg").write_bytes(b"")
    assert "empty" in refusal(app, client, tmp_path / "nothing.jpg", portrait)


def test_text_named_jpg(app: App, client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam,\n" * 50)
    assert "not a picture" in refusal(app, client, tmp_path / "letter.jpg", portrait)


def test_an_svg(app: App, client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'></svg>")
    assert "not a picture" in refusal(app, client, tmp_path / "logo.svg", portrait)


def test_a_truncated_jpeg(app: App, client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    portrait.save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    assert "damaged or cut short" in refusal(app, client, tmp_path / "half.jpg", portrait)


def test_a_decompression_bomb(
    app: App, client: Client, portrait: Image.Image, tmp_path: Path
) -> None:
    side = 20_000
    packer = zlib.compressobj(level=1)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])  # 8-bit greyscale
    with (tmp_path / "bomb.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            checksum = zlib.crc32(kind + data).to_bytes(4, "big")
            file.write(len(data).to_bytes(4, "big") + kind + data + checksum)
    assert (tmp_path / "bomb.png").stat().st_size < 5e6  # or the limit on uploads would stop it
    assert "million pixels" in refusal(app, client, tmp_path / "bomb.png", portrait)


def test_an_upload_over_20_megabytes_is_refused(app: App) -> None:
    files = {"files": ("large.png", bytes(21 * 2**20))}
    answer = httpx.post(app.url + "gradio_api/upload", files=files, timeout=60)
    assert answer.status_code == 413


def test_one_pixel(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "teal").save(tmp_path / "pixel.png")
    captions, grid = ask(client, tmp_path / "pixel.png")
    assert len(captions) == 3
    with Image.open(grid) as picture:
        assert min(picture.size) > 160


def test_a_cmyk_jpeg(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    portrait.convert("CMYK").save(tmp_path / "print.jpg")
    with Image.open(tmp_path / "print.jpg") as image:
        assert image.mode == "CMYK"
        same_captions(client, tmp_path / "print.jpg", image.convert("RGB"))


def test_an_rgba_png(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    alpha = Image.new("L", portrait.size, 255)
    alpha.paste(0, (0, 0, 240, 100))
    image = portrait.copy()
    image.putalpha(alpha)
    image.save(tmp_path / "cut-out.png")
    over_white = portrait.copy()
    over_white.paste("white", (0, 0, 240, 100))
    same_captions(client, tmp_path / "cut-out.png", over_white)


def test_a_16_bit_png(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    grey = portrait.convert("L")
    Image.fromarray(np.asarray(grey, np.uint16) * 257).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode.startswith("I")
    same_captions(client, tmp_path / "deep.png", grey.convert("RGB"))


def test_an_animated_gif(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    first = portrait.quantize(64)
    frames = [Image.new("P", portrait.size, shade) for shade in range(3)]
    first.save(tmp_path / "film.gif", save_all=True, append_images=frames)
    same_captions(client, tmp_path / "film.gif", first.convert("RGB"))


def test_a_photo_that_exif_turns(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned a quarter clockwise
    portrait.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    same_captions(client, tmp_path / "turned.png", portrait)


def test_a_data_url(app: App, portrait: Image.Image, tmp_path: Path) -> None:
    import base64

    portrait.save(tmp_path / "photo.png")
    url = (
        "data:image/png;base64," + base64.b64encode((tmp_path / "photo.png").read_bytes()).decode()
    )
    with httpx.Client(base_url=app.url + "gradio_api/", timeout=60) as http:
        kind, data = call(http, {"url": url, "meta": {"_type": "gradio.FileData"}})
    assert kind == "complete"
    assert len(data[0]["captions"]) == 3


def test_the_example_photos_are_all_there_and_their_origin_is_told() -> None:
    folder = ROOT / "assets" / "examples"
    origins = (folder / "README.md").read_text(encoding="utf-8")
    paths = [example.path for example in examples()]
    ours = [path.name for path in paths if path.is_relative_to(folder)]
    assert len(paths) == 9 and {*ours} == {p.name for p in folder.iterdir()} - {"README.md"}
    assert all(f"`{name}`" in origins for name in ours)
    assert [example.path.stem for example in examples() if example.goes_wrong] == [
        "flower",
        "photographer",
        "rocket",
    ]
    for path in paths:
        with Image.open(path) as image:
            image.load()


def test_the_page_asks_nothing_of_other_hosts(app: App) -> None:
    with urllib.request.urlopen(app.url) as response:
        page = response.read().decode()
    assert "fonts.googleapis.com" not in page


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_bad_checkpoint_is_one_sentence(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "checkpoint"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content)
    command = [sys.executable, "app.py", "--checkpoint", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Cannot use this checkpoint: ")
    assert str(folder) in last
    assert "Traceback" not in done.stderr


def test_no_checkpoint_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty name, as from a variable that is not set, does not show the other model alone."""
    monkeypatch.syspath_prepend(ROOT)
    options = Namespace(checkpoint="", revision=None, compare="assets/checkpoint")
    with ExitStack() as at_the_end, pytest.raises(CheckpointError, match="name is empty"):
        import_module("app")._load(options, at_the_end)
