"""The model card: metadata that the Hub reads, text that people read, a seal against mistakes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from sizes import GRID, INPUT

from captioner.checkpoint.model_card import METRIC_NAMES, is_untouched, model_card
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig

BEAM = {"dataset": "flickr8k", "split": "test", "strategy": "beam", "images": 1000}
BEAM |= {"beam_width": 5, "length_penalty": 0.7}
BEAM |= dict(zip(METRIC_NAMES, (61.2, 43.4, 30.1, 20.6, 19.9, 44.4, 50.5), strict=True))
GREEDY = {"dataset": "coco", "split": "val", "strategy": "greedy", "images": 50}
GREEDY |= {"BLEU-4": 18.25, "METEOR": None, "CIDEr": float("nan")}
HISTORY = [{"nll": 4.0, "val_nll": 3.5}, {"nll": 3.4, "val_nll": 3.25}]


def config(weights: str = "imagenet", dataset: str = "flickr8k") -> CaptionerConfig:
    return CaptionerConfig(
        ModelConfig(3004, **GRID), BackboneConfig(**INPUT, weights=weights), dataset=dataset
    )


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
    published = ["67.0", "45.7", "31.4", "21.3", "20.3", "-", "-"]
    assert rows[5][4:] == published and "hard attention, as published" in rows[5][3]
    assert len(rows) == 6


def test_nothing_was_published_of_other_photos():
    dev = BEAM | {"split": "val"}
    assert "as published" not in model_card(config(), metrics(dev, GREEDY))


def test_intervals_and_habits():
    habits = {"distinct": 85.1, "novel": 91.8, "words_used": 346, "mean_length": 10.75}
    habits |= {"unfinished": 0.3, "phrase_twice": 0.5}
    score = BEAM | {"confidence_95": {"CIDEr": [47.04, 53.9]}, "captions": habits}
    sampled = GREEDY | {"strategy": "sample", "temperature": 0.7}
    text = model_card(config(), metrics(score, sampled))
    assert "| 20.6 | 19.9 | 44.4 | 50.5 [47.0, 53.9] |" in text
    assert "| sample, temperature 0.7 |" in text
    assert (
        "- Flickr8k, test, beam: 85% of the captions are distinct, 92% in no training caption; "
        "346 different words, 10.8 words per caption; 0.3% break off, 0.5% repeat a phrase." in text
    )
    results = ModelCard(text).data.eval_results
    assert {r.metric_args.get("temperature") for r in results} == {None, 0.7}


def test_faithfulness():
    assert "Not measured yet: run `python -m captioner.faithfulness`" in model_card(
        config(), metrics()
    )
    controls = {
        "shifted": {"ratio": 1.35, "ratio_95": [1.1061, 1.8]},
        "scattered": {"ratio": 1.1, "ratio_95": [0.9, None]},
        "other_photo": {"ratio": None, "ratio_95": [None, None]},
    }
    drops = {"attended": 0.74, "shifted": 0.547, "scattered": 0.6, "other_photo": -0.01}
    measured = {"dataset": "flickr8k", "split": "val", "images": 998, "content_words": 5012}
    measured |= {"log_prob_drop": drops, "controls": controls}
    text = model_card(config(), metrics() | {"faithfulness": [measured]})
    assert "5012 content words of greedy captions (998 photos of Flickr8k, val)" in text
    assert "fell by 0.740 nats" in text
    assert "at a random place: 0.547 nats. Ratio 1.35 [1.11, 1.80]." in text
    assert "cells at random: 0.600 nats. Ratio 1.10 [0.90, unbounded]." in text
    assert "another photo: -0.010 nats. There is no ratio, because the word did not" in text


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
    own = "Its weights were given with `--backbone-weights`" in text
    assert own == (weights == "bundled")
    assert ("Keras's InceptionV3 with its public ImageNet weights" in text) != own


def test_training_in_words():
    text = model_card(config(), metrics())
    assert "trained on Flickr8k" in text
    assert "(3.250 nats per word)" in text and "2 epochs of at most 20" in text
    once = replace(config(), training=replace(config().training, batch_size=1))
    single = model_card(once, metrics() | {"history": metrics()["history"][:1]})
    assert "1 epoch of at most 20,\nbatches of 1 image, seed" in single
    assert "the 3000 most\nfrequent words" in text
    assert "self-critical" not in text
    rewarded = metrics() | {"cider_history": [{"val_cider": 40.0}, {"val_cider": 45.0}]}
    assert "trained by self-critical training on CIDEr-D" in model_card(config(), rewarded)
    assert "mirrored" not in text
    training = replace(config().training, mirror=True)
    assert "alternately as they are and mirrored (unless" in model_card(
        replace(config(), training=training), metrics()
    )
    training = replace(config().training, mirror=True, crops=2)
    assert "names a side) and cropped to 2 random parts" in model_card(
        replace(config(), training=training), metrics()
    )
    training = replace(config().training, finetune_from="mixed8")
    tuned = model_card(replace(config("bundled"), training=training), metrics())
    assert "from the block mixed8 on" in tuned and "--backbone-weights" not in tuned


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


def test_a_model_of_several_data_sets_says_what_each_brought():
    of_two = config("bundled", "flickr8k + everyday")
    data = [
        {"dataset": "flickr8k", "train_images": 6000, "val_images": 1000,
         "captions_by_people": 30000, "captions_by_model": 0},
        {"dataset": "everyday", "train_images": 6239, "val_images": 150,
         "captions_by_people": 7268, "captions_by_model": 10894},
    ]  # fmt: skip
    found = metrics(BEAM, BEAM | {"dataset": "everyday", "split": "val"}) | {"data": data}
    card = model_card(of_two, found)
    assert "trained on Flickr8k + everyday" in card
    assert "| everyday | 6,239 | 7,268 | 10,894 | 150 |" in card
    assert "| everyday | val | 1000 | beam |" in card
    metadata = ModelCard(card).data
    assert metadata.datasets == ["flickr8k"], "a user's own folder is not a public data set"
    assert metadata.model_name == "captioner-flickr8k-everyday"
