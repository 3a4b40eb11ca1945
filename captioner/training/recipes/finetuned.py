"""The last three blocks of the backbone are trained as well.

    python train.py --recipe finetuned --dataset flickr8k --data-dir DIR \\
        --backbone-weights assets/checkpoint/backbone.safetensors

Time:   on two CPU cores, 12 minutes for the features; 8 epochs of 2 minutes, 5 of 11 from photos,
        12 minutes for the new features, 2 epochs of 2 and 2 of 3.
Scores: measured only with an earlier backbone. They were not better than those of `best`, which
        takes less time.
"""

from captioner.config import Recipe

RECIPE = Recipe(
    model={"attention_units": 128},
    training={
        "epochs": 8,
        "min_count": 5,
        "finetune_from": "mixed8",
        "finetune_epochs": 5,
        "finetune_image_size": 224,
        "finetune_learning_rate": 1e-4,
        "decoder_learning_rate": 3e-4,
        "polish_epochs": 2,
        "cider_epochs": 2,
        "cider_captions": "people",
        "cider_overuse": 0.2,
    },
)
