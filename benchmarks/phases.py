"""What each phase of a run brings: dev scores of the weights that it left.

    python benchmarks/phases.py --output OUTPUT --data-dir FLICKR8K --features CACHE

OUTPUT is where `train.py --dataset flickr8k` has finished, CACHE the features that it began with.
Prints its tables. Needs Java, as all caption scores.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from captioner.captioner import Captioner
from captioner.data.datasets import Record, read_dataset
from captioner.evaluation.caption_scores import evaluate
from captioner.model.feature_cache import FeatureCache, Stamp
from captioner.training import cross_entropy, finetuning
from captioner.training.training_state import load_weights

PHASES = {  # what its weights and their state are called
    "cross-entropy": (cross_entropy.BEST, cross_entropy.STATE),
    "+ fine-tuning and polishing": (finetuning.POLISHED_BEST, finetuning.POLISHED_STATE),
    "+ self-critical training": None,  # the checkpoint's
}


def finished_run(description: str) -> tuple[argparse.Namespace, list[Record]]:
    """The options of a benchmark that looks at a run's output, and the dev photos."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    records = read_dataset("flickr8k", options.data_dir)
    return options, [r for r in records if r.split == "val"]


def main() -> None:
    options, records = finished_run(__doc__)
    first = Stamp(**json.loads((options.features / "stamp.json").read_text()))
    print(
        "| after | search | CIDEr | BLEU-4 | distinct | words | break off | a phrase twice |"
        "\n|" + " --- |" * 8
    )
    for phase, files in PHASES.items():
        if files and not (options.output / files[0]).exists():
            continue  # not every run is fine-tuned
        captioner = Captioner.from_pretrained(options.output / "checkpoint")
        if files:
            weights, state = (options.output / name for name in files)
            load_weights(weights, captioner.model, state)
        stamp = captioner.extractor.stamp()
        tuned = options.output / f"features-{stamp.fingerprint[:12]}"
        if phase == "cross-entropy" or not tuned.exists():
            cache = FeatureCache(options.features, first)
        else:
            cache = FeatureCache(tuned, stamp)
        for strategy in ("greedy", "beam"):
            scores = evaluate(captioner, records, strategy, cache)
            captions = scores["captions"]
            print(
                f"| {phase} | {strategy} | {scores['CIDEr']:.1f} | {scores['BLEU-4']:.1f} "
                f"| {captions['distinct']:.0f}% | {captions['words_used']} "
                f"| {captions['unfinished']}% | {captions['phrase_twice']}% |",
                flush=True,
            )


if __name__ == "__main__":
    main()
