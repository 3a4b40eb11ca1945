"""Recipes, one per file: `train.py --recipe NAME`.

A recipe's file opens with its command, the time it takes and the scores it reached. To add one,
write such a file and name it here.
"""

from __future__ import annotations

from captioner.config import Recipe
from captioner.training.recipes import best, finetuned, gpu, tutorial

RECIPES: dict[str, Recipe] = {
    "best": best.RECIPE,
    "finetuned": finetuned.RECIPE,
    "gpu": gpu.RECIPE,
    "tutorial": tutorial.RECIPE,
}
