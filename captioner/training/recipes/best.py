"""The recipe of the bundled weights: cross-entropy, then self-critical training on CIDEr-D.

    python train.py --dataset flickr8k:FLICKR8K --dataset folder:EVERYDAY --dataset coco:COCO \\
        --backbone-weights assets/checkpoint/backbone.safetensors --crops 1 \\
        --epochs 12 --cider-epochs 9

Time:   on two CPU cores, besides the features, 31 minutes for 12 epochs of cross-entropy and 27 for
        9 of self-critical training.
Scores: BLEU-4 26.5, CIDEr 69.2 (Flickr8k's test photos, beam of 5). docs/training.md says what the
        three folders are.
"""

from captioner.config import Recipe

RECIPE = Recipe(
    model={"attention_units": 128},
    training={
        "epochs": 15,
        "min_count": 5,
        "mirror": True,
        "cider_epochs": 7,
        "cider_captions": "people",
        "cider_overuse": 0.2,
        "cider_blend": 0.5,
    },
)
