"""The endpoints beside `/caption`: completion, regions, several photos at once."""

from __future__ import annotations

import base64
import inspect
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from app_process import ROOT, App
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from captioner.data.images import ImageError
from captioner.model.decoding_options import DEFAULTS
from captioner.web.endpoints import _with_search_options
from captioner.web.examples import example_photos
from captioner.web.sent_files import source


@pytest.fixture(scope="module")
def lion() -> Any:
    return handle_file(example_photos()[1])


def test_the_endpoints_are_described(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    search = ["num_captions", "strategy", "temperature", "seed"]
    assert {name: [p["parameter_name"] for p in e["parameters"]] for name, e in named.items()} == {
        "/caption": ["image", *search],
        "/complete": ["image", "prefix", *search],
        "/caption_region": ["image", "left", "top", "right", "bottom", *search],
        "/caption_batch": ["images", *search],
    }
    for endpoint in named.values():
        assert endpoint["description"].startswith(("Describe", "Complete"))
        assert "Parameters" not in endpoint["description"]
        required = [p for p in endpoint["parameters"] if not p["parameter_has_default"]]
        assert not {p["parameter_name"] for p in required} & set(search)
        defaults = {p["parameter_name"]: p["parameter_default"] for p in endpoint["parameters"]}
        assert {name: defaults[name] for name in search} == {
            name: getattr(DEFAULTS, name) for name in search
        }


def test_endpoints_without_documentation() -> None:
    """`python -OO` and PYTHONOPTIMIZE=2 take it away."""

    def run(image: object, options: object) -> None: ...

    assert "num_captions" in inspect.signature(_with_search_options(run)).parameters


def test_completion(client: Client, lion: Any) -> None:
    answer, grid = client.predict(lion, "a man", 2, api_name="/complete")
    with Image.open(grid) as picture:
        assert picture.format == "PNG"
    assert len(answer["captions"]) == 2
    for caption in answer["captions"]:
        assert caption["words"][:2] == ["a", "man"]
        assert caption["text"] == " ".join(caption["words"])
        assert len(caption["alternatives"]) == len(caption["words"])
        for word, others in zip(caption["words"], caption["alternatives"], strict=True):
            assert len(others) == 5 and word not in [other["word"] for other in others]
            assert max(other["log_prob"] for other in others) < 0


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("a xylophagous man", "does not know the word 'xylophagous'"),
        ("a " * 30, "30 words, but a caption at most 20"),
        (17, "prefix must be text"),
        (None, "prefix must be text"),
    ],
)
def test_bad_beginnings_are_named(client: Client, lion: Any, prefix: Any, message: str) -> None:
    with pytest.raises(AppError, match=message):
        client.predict(lion, prefix, api_name="/complete")


def test_regions(client: Client, lion: Any) -> None:
    box = {"left": 0.5, "top": 0, "right": 1, "bottom": 0.5}
    answer, _ = client.predict(lion, **box, api_name="/caption_region")
    assert len(answer["captions"]) == 3
    for caption in answer["captions"]:
        inside = np.array(caption["attention"])[:, :4, 4:].sum(axis=(1, 2))
        assert inside.mean() > 0.8 and inside.min() > 0.5
    for bad, message in (
        ({"left": 2}, "left must be a number from 0 to 1"),
        ({"top": None}, "top must be a number"),
        ({"left": 1}, "left must be less than right"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(lion, **(box | bad), api_name="/caption_region")


def test_several_photos(client: Client, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam,\n")
    files = [example_photos()[0], tmp_path / "letter.jpg", example_photos()[1]]
    photos = client.predict([handle_file(f) for f in files], api_name="/caption_batch")["photos"]
    assert [photo["name"] for photo in photos] == [file.name for file in files]
    assert "not a picture" in photos[1]["error"] and "captions" not in photos[1]
    for file, photo in ((files[0], photos[0]), (files[2], photos[2])):
        alone, _ = client.predict(handle_file(file), api_name="/caption")
        assert [c["text"] for c in photo["captions"]] == [c["text"] for c in alone["captions"]]
    with pytest.raises(AppError, match="1 to 16 photos"):
        client.predict([handle_file(files[0])] * 17, api_name="/caption_batch")


def call(app: App, name: str, *inputs: Any) -> str:
    """The events that answer a program that sends JSON."""
    with httpx.Client(base_url=app.url + "gradio_api/", timeout=60) as http:
        request = {"data": [*inputs, 1, "greedy", 0.5, 0]}
        event = http.post(f"call/{name}", json=request).json()["event_id"]
        return http.get(f"call/{name}/{event}").text


def test_programs_can_send_data_urls(app: App) -> None:
    url = "data:image/png;base64," + base64.b64encode(example_photos()[0].read_bytes()).decode()
    mark = {"meta": {"_type": "gradio.FileData"}}
    forms = [{"path": None, "url": url}, {"path": url}, url, {"path": url, "orig_name": "a"} | mark]
    answer = call(app, "caption_batch", [*forms, None, "data:image/png;base64,?"])
    photos = json.loads(answer.partition("data: ")[2])[0]["photos"]
    assert [photo["name"] for photo in photos] == ["", "", "", "a", "", ""]
    assert len({json.dumps(photo["captions"]) for photo in photos[:4]}) == 1
    assert photos[4]["error"].startswith("There is no picture. Give one as a file")
    assert "not valid base64" in photos[5]["error"]
    assert "There is no picture" in call(app, "caption", None)
    large = "data:image/png;base64," + 29_000_000 * "A"
    assert "larger than 20 MB" in call(app, "caption", {"path": large} | mark)


def test_base64_is_read_as_browsers_read_it() -> None:
    content = bytes(range(200, 256)) * 3 + b"?"
    for encoded in (
        base64.encodebytes(content).decode(),  # with line ends
        base64.b64encode(content).decode().rstrip("="),
        quote(base64.b64encode(content).decode(), safe=""),
    ):
        assert source(f"data:image/png;base64,{encoded}") == content
    with pytest.raises(ImageError, match="not valid base64"):
        source("data:image/png;base64,abcde")


def test_no_other_input_is_taken_for_a_file(app: App) -> None:
    url = "data:image/png;base64," + base64.b64encode(example_photos()[0].read_bytes()).decode()
    for path in ("http://127.0.0.1:9/photo.jpg", "/etc/passwd"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        assert "prefix must be text" in call(app, "complete", url, file)


@pytest.mark.parametrize(
    "image",
    [
        {"path": str(ROOT / "pyproject.toml"), "meta": {"_type": "gradio.FileData"}},
        {"path": "http://127.0.0.1:9/photo.jpg", "meta": {"_type": "gradio.FileData"}},
        {"path": str(ROOT / "pyproject.toml")},
        str(ROOT / "pyproject.toml"),
        17,
        {"url": 17},
        "abc",
        ["abc"],
    ],
)
def test_a_batch_reads_only_uploaded_files(app: App, image: Any) -> None:
    told = len(app.log)
    answer = call(app, "caption_batch", [image])
    assert "captions" not in answer
    assert "opens only files that it has been sent" in answer
    assert "opens only files that it has been sent" in call(app, "caption", image)
    assert "Traceback" not in app.log[told:]
    assert str(ROOT) not in answer and "Traceback" not in answer
