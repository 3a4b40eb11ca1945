"""The last three blocks of the backbone are trained as well.

    python train.py --recipe finetuned --dataset flickr8k:FLICKR8K --dataset folder:EVERYDAY \\
        --dataset coco:COCO --images 2000 --cider-epochs 0 --backbone-weights WEIGHTS

Time:   on two CPU cores beside other work, 59 minutes for 4,424 training photos, features
        included; an epoch of fine-tuning took 5 minutes.
Scores: CIDEr 56.3 (1,300 validation photos, beam of 5). With the same network frozen it is 50.5,
        and with the bundled one, which a GPU tuned on more photos, 63.7. docs/results.md has the
        table.
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
        "finetune_learning_rate": 2e-4,
        "decoder_learning_rate": 5e-4,
        "polish_epochs": 2,
        "cider_epochs": 2,
        "cider_captions": "people",
        "cider_overuse": 0.2,
    },
)
