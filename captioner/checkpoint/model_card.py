"""Writes the model card, the part of a checkpoint that people read.

The first lines of the card are metadata for the Hub, by its specification of model cards
(https://github.com/huggingface/hub-docs/blob/main/modelcard.md). Its last line is a checksum, which
shows whether the card was edited by hand.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from captioner.config import CaptionerConfig, TrainingConfig
from captioner.data.datasets import DATASETS, title_of
from captioner.data.mixture import names_in
from captioner.data.text import counted
from captioner.data.views import AREA
from captioner.model.backbones import backbone

METRIC_NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")

_METRIC_TYPES = {"BLEU": "bleu", "METEOR": "meteor", "ROUGE": "rouge", "CIDEr": "cider"}
_SEARCH_OPTIONS = (
    "strategy", "beam_width", "length_penalty", "temperature", "top_k", "top_p", "seed", "images"
)  # fmt: skip
_CONTROLS = {
    "shifted": "one of the same shape at a random place",
    "scattered": "equally many cells at random",
    "other_photo": "the one attended to for a word of another photo",
}
_SEAL = re.compile(r"<!-- Made by captioner; SHA-256 of the above: ([0-9a-f]{64}) -->\s*\Z")


def model_card(config: CaptionerConfig, metrics: Mapping[str, Any]) -> str:
    """The README of a checkpoint: what it is, what it was trained on, and how good it is.

    Args:
        config: The configuration of the checkpoint.
        metrics: The content of its `metrics.json`.
    """
    text = f"""---
{card_data(config, metrics).to_yaml()}
---

# Image captioner with visual attention, trained on {_title(config.dataset)}

{backbone(config.backbone.name).title} features ({config.model.rows} x {config.model.columns} x
{config.model.channels}), a dense encoder, Bahdanau attention and a GRU decoder, in the line of
Show, Attend and Tell (arXiv 1502.03044). For each word, it returns a map of its attention.

```python
from captioner import Captioner

captioner = Captioner.from_pretrained("USER/NAME")  # this repository, or a copy of its folder
for caption in captioner.caption("photo.jpg", num_captions=3):
    print(caption.text)
```

The weights are safetensors files, which hold numbers and nothing that could be executed.

## Training

{_training_note(config, metrics)}

{_backbone_note(config)}

![Loss by epoch](loss.png)

## Scores

{_score_table(metrics.get("scores", ()))}

Computed by `python -m captioner.evaluation` with `pycocoevalcap` and its own tokenizer, in percent
(CIDEr times 100), one caption per photo. A dash means that the score is not known. The 95%
confidence interval, from resampled photos, is in brackets.
{_habits(metrics.get("scores", ()))}
## Does the attention tell the truth?

{_faithfulness(metrics.get("faithfulness", ()))}

## Limits

{_limits(config)}

"""
    return f"{text}<!-- Made by captioner; SHA-256 of the above: {_digest(text)} -->\n"


def is_untouched(card: str) -> bool:
    """Whether a card is still as `model_card`, of this or another version, wrote it.

    Line endings do not matter, because editors change them by themselves.
    """
    card = card.replace("\r\n", "\n")
    seal = _SEAL.search(card)
    return seal is not None and seal[1] == _digest(card[: seal.start()])


def card_data(config: CaptionerConfig, metrics: Mapping[str, Any]) -> ModelCardData:
    """The metadata of the card. Its model index has one result for each metric of each score."""
    results = list(_eval_results(metrics.get("scores", ())))
    name = "-".join(filter(None, ("captioner", *names_in(config.dataset))))
    return ModelCardData(
        language="en",
        license="mit",
        library_name="keras",
        pipeline_tag="image-to-text",
        tags=["image-captioning", "visual-attention", "show-attend-and-tell"],
        datasets=[n for n in names_in(config.dataset) if n in DATASETS and DATASETS[n].public]
        or None,
        metrics=list(dict.fromkeys(r.metric_type for r in results)) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _eval_results(scores: Sequence[Mapping[str, Any]]) -> Iterator[EvalResult]:
    for entry in scores:
        search = {key: entry[key] for key in _SEARCH_OPTIONS if key in entry}
        for name in METRIC_NAMES:
            value = _value(entry, name)
            if value is None:
                continue
            family, _, order = name.partition("-")
            yield EvalResult(
                task_type="image-to-text",
                task_name="Image Captioning",
                dataset_type=entry["dataset"],
                dataset_name=_title(entry["dataset"]),
                dataset_split=entry["split"],
                metric_type=_METRIC_TYPES[family],
                metric_name=f"{name} ({entry['strategy']})",
                metric_value=value,
                metric_args=search | ({"max_order": int(order)} if order.isdigit() else {}),
            )


def _training_note(config: CaptionerConfig, metrics: Mapping[str, Any]) -> str:
    training, history = config.training, metrics.get("history", ())
    best = min((h["val_nll"] for h in history), default=None)
    loss = "" if best is None else f" ({best:.3f} nats per word)"
    most, trained = (counted(n, "epoch") for n in (training.finetune_epochs, len(history)))
    tuned = f"""

Then the backbone was trained, too, from the block {training.finetune_from} on, on photos of
{training.finetune_image_size} pixels, for at most {most}; after that the
decoder alone, on features of photos of {config.backbone.image_size} pixels, for at most
{counted(training.polish_epochs, "epoch")}."""
    rewarded = len(metrics.get("cider_history", ())) - 1  # its first entry is the start
    then = f"""

Then the decoder was trained by self-critical training on CIDEr-D (arXiv 1612.00563), for
{counted(rewarded, "epoch")}. The final weights lie {training.cider_blend:.0%} of the way from the
weights before this phase to those of its best epoch on the validation photos."""
    return f"""\
Made by `train.py` on {_title(config.dataset)}, {trained} of at most {training.epochs},
batches of {counted(training.batch_size, "image")}, seed {training.seed}; the epoch with the lowest
validation loss was kept{loss}. The vocabulary is the {config.model.vocabulary_size - 4} most
frequent words of the training captions.{_views_note(training)}\
{tuned if training.finetune_from else ""}{then if rewarded > 0 else ""}\
{_rewarded_note(config) if rewarded > 0 else ""}{_data_table(metrics.get("data", ()))}\
{_licences(config.dataset)}"""


def _views_note(training: TrainingConfig) -> str:
    views = ["as they are"]
    if training.mirror:
        views.append("mirrored (unless a caption names a side)")
    if training.crops:
        count = "one random part" if training.crops == 1 else f"{training.crops} random parts"
        views.append(f"cropped to {count} ({100 * AREA[0]:.0f} to {AREA[1]:.0%} of the area)")
    if len(views) == 1:
        return ""
    return f" Training photos were shown alternately {', '.join(views[:-1])} and {views[-1]}."


def _rewarded_note(config: CaptionerConfig) -> str:
    if config.training.cider_captions == "people":
        return " Only captions by people were rewarded."
    return ""


def _data_table(data: Sequence[Mapping[str, Any]]) -> str:
    """How many photos and captions come from each data set, and who wrote the captions."""
    if not data:
        return ""
    head = ["data", "training photos", "captions by people", "captions by a model",
            "validation photos"]  # fmt: skip
    keys = ("train_images", "captions_by_people", "captions_by_model", "val_images")
    rows = [[_title(part["dataset"]), *(f"{part[key]:,}" for key in keys)] for part in data]
    return "\n\n" + _table([head, ["---"] * len(head), *rows])


def _limits(config: CaptionerConfig) -> str:
    scenes = ""
    shown = [DATASETS[name].scenes for name in names_in(config.dataset) if name in DATASETS]
    if any(shown):
        few = shown[0] if len(names_in(config.dataset)) == 1 else ""
        scenes = f", {few or 'above all people, animals and everyday things'}"
    return f"""\
The model knows only the words and the scenes of its training captions{scenes}. It often names what
is common in them where the photo shows something else. It miscounts, mistakes colours and
materials, cannot read, does not know people by name, and repeats the prejudices of the people who
wrote the captions. It gives a caption even if it has never seen what the photo shows. Do not use it
for decisions about people."""


def _backbone_note(config: CaptionerConfig) -> str:
    title = backbone(config.backbone.name).title
    if config.backbone.weights == "imagenet":
        return f"The backbone is Keras's {title} with its public ImageNet weights, frozen."
    if config.training.finetune_from:
        return (
            "The training changed the backbone's weights, so they are part of this checkpoint, in\n"
            f"float16.\n{config.backbone.note}"
        ).rstrip()
    note = f"{config.backbone.note}\n" if config.backbone.note else ""
    return (
        f"The backbone is {title}, frozen. Its weights were given with `--backbone-weights`,\n"
        f"and are part of this checkpoint, in float16.\n{note}"
        "Scores that were made with other weights cannot be compared."
    )


def _score_table(scores: Sequence[Mapping[str, Any]]) -> str:
    if not scores:
        return "Not computed yet: run `python -m captioner.evaluation` with `--save`."
    head = ["data", "split", "images", "search", *METRIC_NAMES]
    rows = [
        [_title(s["dataset"]), s["split"], s.get("images", "-"), _search_of(s)]
        + [_cell(s, name) for name in METRIC_NAMES]
        for s in scores
    ]
    for dataset in dict.fromkeys(s["dataset"] for s in scores if s["split"] == "test"):
        rows += [
            [_title(dataset), "test", "", f"*{system}, as published*"]
            + [_cell(figures, name) for name in METRIC_NAMES]
            for system, figures in _published(dataset).items()
        ]
    return _table([head, ["---"] * len(head), *rows])


def _table(lines: Sequence[Sequence[Any]]) -> str:
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _search_of(entry: Mapping[str, Any]) -> str:
    temperature = entry.get("temperature")
    return entry["strategy"] + ("" if temperature is None else f", temperature {temperature:g}")


def _cell(entry: Mapping[str, Any], metric: str) -> str:
    value = _value(entry, metric)
    if value is None:
        return "-"
    ends = entry.get("confidence_95", {}).get(metric)
    return f"{value:.1f}" + (f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "")


def _habits(scores: Sequence[Mapping[str, Any]]) -> str:
    """What the captions of each score are like, one line per score."""
    lines = []
    for entry in scores:
        if found := entry.get("captions"):
            novel = f", {found['novel']:.0f}% in no training caption" if "novel" in found else ""
            lines.append(
                f"- {_title(entry['dataset'])}, {entry['split']}, {_search_of(entry)}: "
                f"{found['distinct']:.0f}% of the captions are distinct{novel}; "
                f"{found['words_used']} different words, {found['mean_length']:.1f} words per "
                f"caption; {found['unfinished']:.1f}% break off, {found['phrase_twice']:.1f}% "
                "repeat a phrase."
            )
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _faithfulness(entries: Sequence[Mapping[str, Any]]) -> str:
    measured = [e for e in entries if e.get("controls")]
    if not measured:
        return "Not measured yet: run `python -m captioner.faithfulness` with `--save`."
    paragraphs = []
    for entry in measured:
        drops = entry["log_prob_drop"]
        comparisons = [
            f"- {_CONTROLS[name]}: {drops[name]:.3f} nats. "
            + _ratio(found["ratio"], found["ratio_95"])
            for name, found in entry["controls"].items()
        ]
        paragraphs.append(
            f"For {entry['content_words']} content words of greedy captions ({entry['images']} "
            f"photos of {_title(entry['dataset'])}, {entry['split']}), the quarter of the photo\n"
            "with the most attention was painted over with the photo's mean colour. The word's\n"
            f"log-probability fell by {drops['attended']:.3f} nats on average. When another "
            "quarter was painted over:\n\n" + "\n".join(comparisons)
        )
    return "\n\n".join(paragraphs)


def _ratio(ratio: float | None, ends: Sequence[float | None]) -> str:
    if ratio is None:
        return "There is no ratio, because the word did not become less probable."
    low, high = ("unbounded" if end is None else f"{end:.2f}" for end in ends)
    return f"Ratio {ratio:.2f} [{low}, {high}]."


def _value(entry: Mapping[str, Any], metric: str) -> float | None:
    value = entry.get(metric)
    return None if value is None or not math.isfinite(value) else float(value)


def _title(dataset: str) -> str:
    return " + ".join(map(title_of, names_in(dataset))) or "unnamed data"


def _published(dataset: str) -> Mapping[str, Mapping[str, float]]:
    return DATASETS[dataset].published if dataset in DATASETS else {}


def _licences(dataset: str) -> str:
    """A paragraph on what the publishers of the training data allow."""
    entries = [DATASETS[name] for name in names_in(dataset) if name in DATASETS]
    lines = [f"{entry.title}: {entry.licence}." for entry in entries if entry.licence]
    return "\n\nLicences of the data. " + " ".join(lines) if lines else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
