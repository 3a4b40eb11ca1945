"""What is shown after each epoch."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from conftest import Photo
from PIL import Image

from captioner.config import ModelConfig
from captioner.data.datasets import Record
from captioner.data.vocabulary import Vocabulary
from captioner.model.caption_model import CaptionModel, EndToEndModel
from captioner.training.epoch_loop import figures
from captioner.training.epoch_report import EpochReport
from captioner.training.loss_plot import loss_plot

LOSSES = [{"nll": 3.0, "val_nll": 3.1}, {"nll": 2.5, "val_nll": 2.8}]
REWARDS = [{"val_cider": 50.0}, {"reward": 0.6, "val_cider": 55.0}]


class Features:
    """Stands where a feature cache does."""

    def gather(self, ids: list[str]) -> np.ndarray:
        return np.random.default_rng(0).random((len(ids), 4, 8)).astype(np.float16)


@pytest.fixture
def report(photo: Photo, tmp_path: Path) -> EpochReport:
    records = []
    for i in range(7):
        photo(i).save(tmp_path / f"{i}.png")
        said = ("a model says this", f"a person says {i}")
        records.append(Record(str(i), tmp_path / f"{i}.png", said, "val", by=("model", "people")))
    vocabulary = Vocabulary.build(["a red thing here", "a grey thing there"])
    return EpochReport.of(records, vocabulary, Features(), tmp_path)


def small_model(report: EpochReport) -> CaptionModel:
    sizes = {"rows": 2, "columns": 2, "channels": 8, "embedding_dim": 4, "units": 6}
    return CaptionModel(ModelConfig(len(report.vocabulary), **sizes))


def size_of(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.format == "PNG" and len(opened.convert("RGB").getcolors(1 << 20)) > 10
        return opened.size


def test_a_matplotlibrc_does_not_change_the_plot() -> None:
    plain = loss_plot([("epoch", LOSSES)])
    with matplotlib.rc_context({"text.usetex": True, "savefig.format": "pdf", "font.size": 4}):
        assert loss_plot([("epoch", LOSSES)]) == plain


def test_the_plot_has_all_phases() -> None:
    assert size_of(loss_plot([("epoch", LOSSES)])) == (720, 480)
    phases = [("epoch", LOSSES), ("fine-tuning epoch", LOSSES), ("CIDEr epoch", REWARDS)]
    assert size_of(loss_plot(phases)) == (1200, 480), "a second diagram beside the losses"
    assert loss_plot(phases[:2]) != loss_plot([("epoch", LOSSES + LOSSES)]), "the phases are told"


def test_captions_of_the_same_photos_after_each_epoch(
    report: EpochReport, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model(report)
    photo = keras.Input((24, 24, 3))  # 3 x 3 cells, where the model has 2 x 2 otherwise
    maps = keras.layers.Conv2D(8, 8, strides=8)(photo)
    end_to_end = EndToEndModel(keras.Model(photo, maps), model)
    variables = len(end_to_end.variables)
    with caplog.at_level(logging.INFO):
        report("epoch", model, LOSSES)
        first = (report.output / "loss.png").read_bytes()
        report = report.after("epoch", LOSSES)
        report("fine-tuning epoch", end_to_end, LOSSES)
    assert (report.output / "loss.png").read_bytes() != first
    ids = [message.split(":")[0].strip() for message in caplog.messages]
    assert ids == ["0", "2", "4"] * 2
    for i, message in zip(ids, caplog.messages, strict=True):
        assert message.endswith(f'(a reference: "a person says {i}")')
    words = {word for m in caplog.messages for word in m.split('"')[1].split()}
    assert words <= set(report.vocabulary.words) and words
    assert len(end_to_end.variables) == variables, "the state of the run stays as it was"


def test_a_plot_that_cannot_be_written_does_not_cost_the_run(
    report: EpochReport, caplog: pytest.LogCaptureFixture
) -> None:
    (report.output / "loss.png.tmp").mkdir()
    with caplog.at_level(logging.INFO):
        report("epoch", small_model(report), LOSSES)
    assert "no plot of the losses" in caplog.text and "loss.png" in caplog.text
    assert "(a reference:" in caplog.text, "the captions are shown all the same"
    (report.output / "loss.png.tmp").rmdir()
    report = report.after("epoch", LOSSES)
    report.draw()  # as at the end of a run
    assert (report.output / "loss.png").read_bytes() == loss_plot([("epoch", LOSSES)])


def test_figures_have_four_digits() -> None:
    entry = {"nll": 2.123456789, "val_nll": 3.0, "val_cider": 57.66666}
    assert figures(entry) == "nll 2.123, val_nll 3, val_cider 57.67"
