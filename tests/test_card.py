"""The model card: metadata that the Hub reads, text that people read, a seal against mistakes."""

from __future__ import annotations

import io

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from captioner.card import METRIC_NAMES, is_untouched, loss_plot, model_card
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig

BEAM = {"dataset": "flickr8k", "split": "test", "strategy": "beam", "images": 1000}
BEAM |= {"beam_width": 5, "length_penalty": 0.7}
BEAM |= dict(zip(METRIC_NAMES, (61.2, 43.4, 30.1, 20.6, 19.9, 44.4, 50.5), strict=True))
GREEDY = {"dataset": "coco", "split": "val", "strategy": "greedy", "images": 50}
GREEDY |= {"BLEU-4": 18.25, "METEOR": None, "CIDEr": float("nan")}
HISTORY = [{"nll": 4.0, "val_nll": 3.5}, {"nll": 3.4, "val_nll": 3.25}]


def config(weights: str = "imagenet", dataset: str = "flickr8k") -> CaptionerConfig:
    return CaptionerConfig(ModelConfig(3004), BackboneConfig(weights=weights), dataset=dataset)


def metrics(*scores: dict) -> dict:
    return {"history": HISTORY, "scores": list(scores)}


def test_metadata():
    data = ModelCard(model_card(config(), metrics(BEAM))).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "keras", "image-to-text")
    assert data.datasets == ["flickr8k"]
    assert {"image-captioning", "visual-attention"} <= set(data.tags)
    assert data.metrics == ["bleu", "meteor", "rouge", "cider"]
    assert data.model_name == "captioner-flickr8k"


def test_each_score_is_a_result_in_the_model_index():
    results = ModelCard(model_card(config(), metrics(BEAM, GREEDY))).data.eval_results
    found = {
        (r.dataset_type, r.dataset_split, r.metric_args["strategy"], r.metric_name): r.metric_value
        for r in results
    }
    expected = {("flickr8k", "test", "beam", f"{m} (beam)"): BEAM[m] for m in METRIC_NAMES}
    assert found == expected | {("coco", "val", "greedy", "BLEU-4 (greedy)"): 18.25}
    assert len(results) == len(found)
    bleu = next(r for r in results if r.metric_name == "BLEU-3 (beam)")
    assert (bleu.metric_type, bleu.dataset_name, bleu.task_type) == (
        "bleu",
        "Flickr8k",
        "image-to-text",
    )
    assert bleu.metric_args == {
        "strategy": "beam",
        "beam_width": 5,
        "length_penalty": 0.7,
        "images": 1000,
        "max_order": 3,
    }


def test_two_searches_on_the_same_data_stay_apart():
    other = BEAM | {"strategy": "greedy", "BLEU-4": 17.0}
    results = ModelCard(model_card(config(), metrics(BEAM, other))).data.eval_results
    bleu4 = [
        (r.metric_args["strategy"], r.metric_value) for r in results if "BLEU-4" in r.metric_name
    ]
    assert bleu4 == [("beam", 20.6), ("greedy", 17.0)]
    assert len(results) == 2 * len(METRIC_NAMES)


def test_table():
    lines = model_card(config(), metrics(BEAM, GREEDY)).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    assert rows[0] == ["data", "split", "images", "search", *METRIC_NAMES]
    numbers = ["61.2", "43.4", "30.1", "20.6", "19.9", "44.4", "50.5"]
    assert rows[2] == ["Flickr8k", "test", "1000", "beam", *numbers]
    assert rows[3] == ["MS-COCO 2014", "val", "50", "greedy", *"---", "18.2", *"---"]
    assert len(rows) == 4


def test_without_scores():
    card = model_card(config(), metrics())
    data = ModelCard(card).data
    assert (data.eval_results, data.model_name, data.metrics) == (None, None, None)
    assert "model-index" not in card
    assert "Not computed yet: run `python -m captioner.evaluation` with `--save`." in card


def test_data_that_nobody_else_has_is_no_dataset_of_the_hub():
    card = ModelCard(model_card(config(dataset="folder"), metrics()))
    assert card.data.datasets is None
    assert "# Image captioner with visual attention, trained on a folder of photos" in card.text


@pytest.mark.parametrize("weights", ["imagenet", "bundled"])
def test_which_backbone(weights):
    text = model_card(config(weights), metrics())
    standin = "not the public ImageNet InceptionV3" in text
    assert standin == (weights == "bundled")
    assert ("Keras's InceptionV3 with its public ImageNet weights" in text) != standin


def test_training_in_words():
    text = model_card(config(), metrics())
    assert "trained on Flickr8k" in text
    assert "(3.250 nats a word)" in text and "2 epochs of at most 20" in text
    assert "the 3000 most frequent words" in text
    assert "self-critical" not in text
    rewarded = metrics() | {"cider_history": [{"val_cider": 40.0}, {"val_cider": 45.0}]}
    assert "Then self-critical training on CIDEr-D" in model_card(config(), rewarded)


def test_the_seal_breaks_when_the_card_is_edited():
    card = model_card(config(), metrics(BEAM))
    assert is_untouched(card)
    assert is_untouched(card.replace("\n", "\r\n"))
    edits = [
        card.replace("Flickr8k", "Flickr30k", 1),
        card.replace("license: mit", "license: apache-2.0"),
        card.replace("20.6", "30.6"),
        card + "\nThanks to my cat.\n",
        card[: card.index("<!--")],
        "",
    ]
    assert len({card, *edits}) == 7
    assert [is_untouched(edited) for edited in edits] == [False] * 6


def test_loss_plot_is_a_picture():
    with Image.open(io.BytesIO(loss_plot(HISTORY))) as picture:
        assert (picture.format, picture.size) == ("PNG", (720, 480))
        assert (
            len(picture.convert("RGB").getcolors(1 << 20)) > 10
        )  # axes and curves, not one colour
