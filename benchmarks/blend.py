"""Between the weights before self-critical training and those after it: scores and variety.

    python benchmarks/blend.py --output OUTPUT --data-dir FLICKR8K --features CACHE

OUTPUT is where `train.py --dataset flickr8k` has finished. Prints the table of
`docs/results.md`: CIDEr-D of one caption of each dev photo, the share of distinct captions and
the number of words that they use.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np

from benchmarks.phases import finished_run
from captioner.checkpoint.checkpoint_folder import read_checkpoint
from captioner.data.vocabulary import PAD
from captioner.model.decoding import DecodingLoop, chooser_for, decode
from captioner.model.decoding_options import DecodingOptions
from captioner.model.feature_cache import FeatureCache
from captioner.model.features import FeatureExtractor
from captioner.training import cross_entropy, finetuning, self_critical
from captioner.training.training_state import load_weights

SEARCHES = {
    "greedy": DecodingOptions("greedy"),
    "beam of 5": DecodingOptions("beam", num_captions=1, beam_width=5),
    "sample at 0.5": DecodingOptions("sample", num_captions=1, temperature=0.5),
}
BATCH = 32


def main() -> None:
    options, records = finished_run(__doc__)
    checkpoint = read_checkpoint(options.output / "checkpoint")
    model = checkpoint.model
    cache = FeatureCache(options.features, FeatureExtractor(checkpoint.backbone).stamp())
    features = cache.gather([r.image_id for r in records])
    reward = self_critical.make_reward(records, checkpoint.vocabulary)
    loops = {n: DecodingLoop(model, chooser_for(o), o.rows) for n, o in SEARCHES.items()}
    ends = []
    before = cross_entropy.BEST, cross_entropy.STATE
    if checkpoint.config.training.finetune_from:
        before = finetuning.POLISHED_BEST, finetuning.POLISHED_STATE
    for name, state in (before, (self_critical.BEST, self_critical.STATE)):
        load_weights(options.output / name, model, options.output / state)
        ends.append([keras.ops.convert_to_numpy(v).copy() for v in model.weights])

    def row_of(search: str) -> str:
        scores, captions = [], []
        for i in range(0, len(records), BATCH):
            words = decode(loops[search], features[i : i + BATCH], SEARCHES[search]).words
            for record, row in zip(records[i : i + BATCH], words[:, 0], strict=True):
                captions.append(tuple(int(w) for w in row if w != PAD))
                scores += list(reward.scores(record.image_id, [list(captions[-1])]))
        distinct, used = len(set(captions)) / len(captions), {w for c in captions for w in c}
        return f"{100 * np.mean(scores):.1f} | {distinct:.0%} | {len(used)}"

    heads = " | ".join(f"{search} | distinct | words" for search in SEARCHES)
    print(f"| weights | {heads} |\n|{' --- |' * (1 + 3 * len(SEARCHES))}")
    for blend in (0, 0.25, 0.5, 0.75, 1):
        for variable, before, after in zip(model.weights, *ends, strict=True):
            variable.assign(before + blend * (after - before))
        print(f"| {blend} | {' | '.join(map(row_of, SEARCHES))} |", flush=True)


if __name__ == "__main__":
    main()
