"""Scores and variety of weights between those before self-critical training and those after it.

    python benchmarks/blend.py --output OUTPUT --features CACHE --dataset KIND:FOLDER ...

OUTPUT is where `train.py` has finished with the same `--dataset` options, and CACHE is the folder
of its features. The program prints a table for each search: CIDEr-D of one caption of each
validation photo (the mean over the data sets, then each data set), the share of distinct captions,
and the number of different words in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import checkout  # noqa: F401 - finds the package
import keras
import numpy as np

from benchmarks.phases import finished_run
from captioner.checkpoint.checkpoint_folder import read_checkpoint
from captioner.data.datasets import Record
from captioner.data.vocabulary import PAD
from captioner.model.decoding import Decoded, DecodingLoop, chooser_for, decode
from captioner.model.decoding_options import DecodingOptions
from captioner.model.feature_cache import FeatureCache
from captioner.training import cross_entropy, finetuning, self_critical
from captioner.training.rewards import CiderD, padded
from captioner.training.run import extractor_for
from captioner.training.training_state import load_weights

SEARCHES = {
    "greedy": DecodingOptions("greedy"),
    "beam of 5": DecodingOptions("beam", num_captions=1, beam_width=5),
    "sample at 0.5": DecodingOptions("sample", num_captions=1, temperature=0.5),
}
BLENDS = (0, 0.25, 0.5, 0.75, 1)
BATCH = 32

# The word ids of one caption for each photo of a data set.
Captions = list[tuple[int, ...]]


def main() -> None:
    options, groups = finished_run(__doc__)
    checkpoint = read_checkpoint(options.output / "checkpoint")
    model = checkpoint.model
    extractor = extractor_for(checkpoint.backbone, checkpoint.config.training)
    cache = FeatureCache(options.features, extractor.stamp())
    rewards = {
        name: self_critical.make_reward(records, checkpoint.vocabulary)
        for name, records in groups.items()
    }
    before = cross_entropy.BEST, cross_entropy.STATE
    if checkpoint.config.training.finetune_from:
        before = finetuning.POLISHED_BEST, finetuning.POLISHED_STATE
    ends = []
    for name, state in (before, (self_critical.BEST, self_critical.STATE)):
        load_weights(options.output / name, model, options.output / state)
        ends.append([keras.ops.convert_to_numpy(v).copy() for v in model.weights])
    for search, how in SEARCHES.items():
        loop = DecodingLoop(model, chooser_for(how), how.rows)
        print(f"\n{search}\n\n| weights | mean | {' | '.join(groups)} | distinct | words |")
        print("|" + " --- |" * (len(groups) + 4))
        for blend in BLENDS:
            for variable, start, end in zip(model.weights, *ends, strict=True):
                variable.assign(start + blend * (end - start))
            said = {
                name: captions_of(records, partial(decode, loop, options=how), cache)
                for name, records in groups.items()
            }
            print(f"| {blend} | {' | '.join(cells(groups, rewards, said))} |", flush=True)


def captions_of(
    records: Sequence[Record], search: Callable[[np.ndarray], Decoded], cache: FeatureCache
) -> Captions:
    """The first caption of each photo. Every batch is full, so that only one size is compiled."""
    captions: Captions = []
    for i in range(0, len(records), BATCH):
        ids = [r.image_id for r in records[i : i + BATCH]]
        features = cache.gather(ids)
        words = search(np.pad(features, [(0, BATCH - len(ids)), (0, 0), (0, 0)])).words
        captions += [tuple(int(w) for w in row if w != PAD) for row in words[: len(ids), 0]]
    return captions


def cells(
    groups: dict[str, list[Record]], rewards: dict[str, CiderD], said: dict[str, Captions]
) -> list[str]:
    """The cells of a row after its name."""
    scores = {}
    for name, records in groups.items():
        ids = [r.image_id for r in records]
        scores[name] = float(rewards[name].scores(ids, padded(said[name])[:, None]).mean())
    every = [caption for captions in said.values() for caption in captions]
    mean = float(np.mean([*scores.values()]))
    return [
        *(f"{100 * score:.1f}" for score in (mean, *scores.values())),
        f"{len(set(every)) / len(every):.0%}",
        str(len({word for caption in every for word in caption})),
    ]


if __name__ == "__main__":
    main()
