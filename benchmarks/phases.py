"""What does each phase of a run contribute? Validation scores of the weights after each phase.

    python benchmarks/phases.py --output OUTPUT --features CACHE --dataset KIND:FOLDER ...

OUTPUT is where `train.py` has finished with the same `--dataset` options, and CACHE is the folder
of the features that it began with. The program prints one table with a part for each data set. It
needs Java, like all caption scores.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import checkout  # noqa: F401 - finds the package

from captioner.captioner import Captioner
from captioner.data.datasets import Record
from captioner.data.mixture import by_dataset, parse_sources, read_mixture
from captioner.evaluation.caption_scores import evaluate
from captioner.model.feature_cache import FeatureCache
from captioner.training import cross_entropy, finetuning
from captioner.training.run import extractor_for
from captioner.training.same_run import RUN
from captioner.training.training_state import load_weights

PHASES = {  # phase -> the names of the files of its weights and its training state
    "cross-entropy": (cross_entropy.BEST, cross_entropy.STATE),
    "+ fine-tuning and polishing": (finetuning.POLISHED_BEST, finetuning.POLISHED_STATE),
    "+ self-critical training": None,  # its weights are those of the checkpoint
}


def finished_run(description: str | None) -> tuple[argparse.Namespace, dict[str, list[Record]]]:
    """Parses the options of a benchmark of a run's output. Returns them, and the validation photos
    of each data set."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--dataset", action="append", required=True, metavar="KIND:FOLDER")
    options = parser.parse_args()
    records = read_mixture(parse_sources(options.dataset))
    return options, by_dataset(r for r in records if r.split == "val")


def after_phase(options: argparse.Namespace, phase: str) -> tuple[Captioner, FeatureCache]:
    """A captioner with the weights after a phase, and the features that the phase trained on."""
    captioner = Captioner.from_pretrained(options.output / "checkpoint")
    if files := PHASES[phase]:
        weights, state = (options.output / name for name in files)
        load_weights(weights, captioner.model, state)
    # Features are extracted in float32 or, if the run wanted it so, in bfloat16.
    stamp = extractor_for(captioner.extractor.backbone, captioner.config.training).stamp()
    tuned = options.output / f"features-{stamp.fingerprint[:12]}"
    if phase == "cross-entropy" or not tuned.exists():
        began = json.loads((options.output / RUN).read_text(encoding="utf-8"))
        first = replace(stamp, fingerprint=began["backbone"]["fingerprint"])
        return captioner, FeatureCache(options.features, first)
    return captioner, FeatureCache(tuned, stamp)


def main() -> None:
    options, groups = finished_run(__doc__)
    print(
        "| photos | after | search | CIDEr | BLEU-4 | distinct | words | break off "
        "| a phrase twice |\n|" + " --- |" * 9
    )
    for phase, files in PHASES.items():
        if files and not (options.output / files[0]).exists():
            continue  # not every run is fine-tuned
        captioner, cache = after_phase(options, phase)
        for name, records in groups.items():
            for strategy in ("greedy", "beam"):
                scores = evaluate(captioner, records, strategy, cache)
                captions = scores["captions"]
                print(
                    f"| {name} | {phase} | {strategy} | {scores['CIDEr']:.1f} "
                    f"| {scores['BLEU-4']:.1f} | {captions['distinct']:.0f}% "
                    f"| {captions['words_used']} | {captions['unfinished']}% "
                    f"| {captions['phrase_twice']}% |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
