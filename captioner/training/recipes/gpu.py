"""For a GPU: all blocks of the network are trained, in larger batches, and self-critical training
is longer.

    KERAS_BACKEND=jax python train.py --recipe gpu

Time:   not measured.
Scores: not measured. It has not been run on a GPU, nor to its end anywhere. Its fine-tuning is that
        of a separate program, which made the bundled checkpoint's network on one H200 from 12,343
        photos, at 1,400 to 1,600 images per second: 12 epochs, batches of 64, the same learning
        rates. The ninth epoch was the best.
"""

from captioner.config import Recipe

RECIPE = Recipe(
    model={"attention_units": 128},
    training={
        "epochs": 10,
        "batch_size": 64,
        "learning_rate": 1.2e-3,
        "min_count": 5,
        "mirror": True,
        "mixed_precision": True,
        "finetune_from": "mixed0",
        "finetune_epochs": 12,
        "finetune_learning_rate": 2e-4,
        "decoder_learning_rate": 5e-4,
        "polish_epochs": 2,
        "cider_epochs": 15,
        "cider_captions": "people",
        "cider_overuse": 0.2,
        "cider_blend": 0.5,
    },
)
