"""Caption scores of a checkpoint on a data set.

    python -m captioner.evaluation CHECKPOINT --dataset flickr8k --data-dir DIR --split test

BLEU-1 to 4, METEOR, ROUGE-L and CIDEr as computed by `pycocoevalcap`, the COCO caption evaluation
(Chen et al. 2015, arXiv 1504.00325), with its own Penn Treebank tokenizer. Both need a Java
runtime.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from captioner.captioner import Caption, Captioner
from captioner.card import is_untouched, model_card
from captioner.checkpoint import METRICS, CheckpointError, read_config, read_json, write_json
from captioner.datasets import DatasetError, Record, read_coco, read_flickr8k, read_folder
from captioner.decoding import STRATEGIES, DecodingOptions
from captioner.features import FeatureCache, FeatureError
from captioner.files import write_bytes
from captioner.images import ImageError

logger = logging.getLogger(__name__)


class MetricsUnavailable(RuntimeError):
    """The scorers cannot run here; the message says what to install."""


def require_metrics() -> None:
    """Raises `MetricsUnavailable` unless `pycocoevalcap` and Java are there."""
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise MetricsUnavailable(
            "pycocoevalcap is not installed. Run: pip install -r requirements-train.txt"
        ) from None
    if shutil.which("java") is None:
        raise MetricsUnavailable(
            "METEOR and the tokenizer need a Java runtime (Debian: default-jre-headless)."
        )


def evaluate(
    captioner: Captioner,
    records: Sequence[Record],
    strategy: str = "beam",
    cache: FeatureCache | None = None,
) -> dict[str, Any]:
    """The scores of the first caption of each photo, and the settings they were made with.

    With `cache`, features come from there and the photos are not read. Raises `MetricsUnavailable`.
    """
    require_metrics()
    options = DecodingOptions(strategy, num_captions=1)
    start = time.monotonic()
    captions = describe(captioner, records, options, cache)
    seconds = time.monotonic() - start
    texts = {r.image_id: c.text for r, c in zip(records, captions, strict=True)}
    scores = score({r.image_id: r.captions for r in records}, texts)
    settings = {"images": len(records), "caption_seconds": round(seconds, 1)}
    if options.is_beam:
        settings |= {"beam_width": options.beam_width, "length_penalty": options.length_penalty}
    return settings | scores


def describe(
    captioner: Captioner,
    records: Sequence[Record],
    options: DecodingOptions,
    cache: FeatureCache | None = None,
) -> list[Caption]:
    """The best caption of each photo."""
    captions: list[Caption] = []
    size = captioner.extractor.batch_size
    with tqdm(total=len(records), unit="image", desc="captions", disable=None) as progress:
        for start in range(0, len(records), size):
            batch = records[start : start + size]
            if cache is None:
                found = captioner.caption_batch([r.path for r in batch], options)
            else:
                features = cache.gather([r.image_id for r in batch])
                found = captioner.caption_features(features, options)
            captions += [best[0] for best in found]
            progress.update(len(batch))
    return captions


def score(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> dict[str, float]:
    """Scores in percent (CIDEr: the usual scale times 100) of one caption for each image id."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with _quiet():
        tokenize = PTBTokenizer().tokenize
        truth = tokenize({k: [{"caption": c} for c in v] for k, v in references.items()})
        ours = tokenize({k: [{"caption": v}] for k, v in captions.items()})
        bleu, _ = Bleu(4).compute_score(truth, ours)
        meteor, _ = Meteor().compute_score(truth, ours)
        rouge, _ = Rouge().compute_score(truth, ours)
        cider, _ = Cider().compute_score(truth, ours)
    values = [*bleu, meteor, rouge, cider]
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    return {name: round(100 * float(v), 2) for name, v in zip(names, values, strict=True)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pycocoevalcap prints its progress on standard output, where the scores belong."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _read_split(dataset: str, data_dir: Path, split: str, seed: int) -> list[Record]:
    """`seed` is the checkpoint's: a folder without splits of its own was split by it."""
    if dataset == "coco":
        if split != "val":
            raise DatasetError("COCO's test captions are not public: use --split val.")
        records = [r for r in read_coco(data_dir, "val") if r.path.is_file()]
    elif dataset == "folder":
        records = [r for r in read_folder(data_dir, seed=seed) if r.split == split]
    else:
        records = [r for r in read_flickr8k(data_dir) if r.split == split]
    if not records:
        raise DatasetError(f"no photos of the {split} split are in {data_dir}.")
    return records


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m captioner.evaluation", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint directory or a Hub id")
    parser.add_argument("--dataset", choices=("flickr8k", "coco", "folder"), required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--split", choices=("test", "val"), required=True)
    parser.add_argument("--strategy", choices=STRATEGIES, default="beam")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--features", type=Path, help="a feature cache that train.py has made")
    parser.add_argument(
        "--save", action="store_true", help="also into metrics.json and the card of the checkpoint"
    )
    options = parser.parse_args(arguments)
    try:
        require_metrics()
        captioner = Captioner.from_pretrained(options.checkpoint)
        seed = captioner.config.training.seed
        records = _read_split(options.dataset, options.data_dir, options.split, seed)
        records = records[: options.limit]
        cache = options.features and FeatureCache(options.features, captioner.extractor.stamp())
        scores = evaluate(captioner, records, options.strategy, cache)
    except (DatasetError, CheckpointError, FeatureError, ImageError, MetricsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    what = {"dataset": options.dataset, "split": options.split, "strategy": options.strategy}
    if options.save:
        save_scores(Path(options.checkpoint), what | scores)
    print(json.dumps(what | scores))
    return 0


def save_scores(folder: Path, entry: Mapping[str, Any]) -> None:
    """Adds `entry` to the checkpoint's metrics, in place of an older one of the same kind, and to
    its model card, unless somebody has edited that."""
    metrics = read_json(folder / METRICS)
    same = ("dataset", "split", "strategy")
    others = [s for s in metrics["scores"] if any(s[k] != entry[k] for k in same)]
    metrics["scores"] = [*others, dict(entry)]
    write_json(folder / METRICS, metrics)
    card = folder / "README.md"
    if card.exists() and not is_untouched(card.read_text(encoding="utf-8")):
        logger.warning("%s was edited by hand and is left as it is", card)
        return
    write_bytes(card, model_card(read_config(folder)[0], metrics).encode())


if __name__ == "__main__":
    sys.exit(main())
