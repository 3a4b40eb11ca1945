"""The model card and the loss plot: the parts of a checkpoint that are for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from captioner.config import CaptionerConfig

METRIC_NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
DATASET_TITLES = {"flickr8k": "Flickr8k", "coco": "MS-COCO 2014"}


def loss_plot(history: Sequence[Mapping[str, float]]) -> bytes:
    """Training and validation loss (nats a word) by epoch, as a PNG."""
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.subplots()
    epochs = range(1, len(history) + 1)
    axes.plot(epochs, [h["nll"] for h in history], marker=".", label="training (with dropout)")
    axes.plot(epochs, [h["val_nll"] for h in history], marker=".", label="validation")
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy (nats a word)")
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def model_card(config: CaptionerConfig, metrics: Mapping[str, Any]) -> str:
    """The checkpoint's README: what it is, what it was trained on, how good it is."""
    training, dataset = config.training, DATASET_TITLES.get(config.dataset, config.dataset)
    best = min((h["val_nll"] for h in metrics["history"]), default=float("nan"))
    return f"""---
license: mit
library_name: keras
pipeline_tag: image-to-text
tags: [image-captioning, visual-attention]
---

# Image captioner with visual attention, trained on {dataset}

InceptionV3 features (8 x 8 x 2048), a dense encoder, Bahdanau attention and a GRU decoder, in the
line of Show, Attend and Tell (arXiv 1502.03044). For each word it gives a map of where it looked.

```python
from captioner import Captioner

captioner = Captioner.from_pretrained("path/of/this/directory")
for caption in captioner.caption("photo.jpg", num_captions=3):
    print(caption.text)
```

## Training

Made by `train.py` on {dataset}, {len(metrics["history"])} epochs of at most {training.epochs},
batches of {training.batch_size} images, seed {training.seed}; the epoch with the lowest validation
loss was kept ({best:.3f} nats a word). The vocabulary is the {config.model.vocabulary_size - 4}
most frequent words of the training captions.

{_backbone_note(config)}

![Loss by epoch](loss.png)

## Scores

{_score_table(metrics["scores"])}

Computed by `python -m captioner.evaluation` with `pycocoevalcap` and its own tokenizer, in percent
(CIDEr times 100), one caption a photo.

## Limits

It knows the words and the scenes of its training captions, mostly people, dogs and sports outdoors
in the case of Flickr8k, names what it has seen often before what is there, miscounts, and repeats
the prejudices of those who wrote the captions. Not for decisions about people.
"""


def _backbone_note(config: CaptionerConfig) -> str:
    if config.backbone.weights == "imagenet":
        return "The backbone is Keras's InceptionV3 with its public ImageNet weights, frozen."
    return (
        "**The backbone is not the public ImageNet InceptionV3.** Its weights were given with "
        "`--backbone-weights` and come with this checkpoint, in float16. Scores are not "
        "comparable with published ones made with ImageNet features."
    )


def _score_table(scores: Sequence[Mapping[str, Any]]) -> str:
    if not scores:
        return "Not computed yet: run `python -m captioner.evaluation` with `--save`."
    head = ["data", "split", "images", "search", *METRIC_NAMES]
    rows = [
        [DATASET_TITLES.get(s["dataset"], s["dataset"]), s["split"], s["images"], s["strategy"]]
        + [f"{s[name]:.1f}" for name in METRIC_NAMES]
        for s in scores
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
