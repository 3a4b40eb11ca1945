"""Do captions steered to a region describe what is there?

    python benchmarks/steering.py --coco DIR [--checkpoint DIR] [--composites 100]
    python benchmarks/steering.py --coco DIR --boxes

The program puts two photos of COCO's validation set side by side in one picture, and captions it
with the attention steered to its left and to its right half. It measures the share of a caption's
content words that occur in the references of the half it was steered to, minus the share that occur
in the references of the other half. If steering had no effect, the difference would be 0. The
intervals are 95%, by resampling the pictures. It prints a table, then one JSON object.

With `--boxes`, it measures square boxes of several sizes at random places: how much of the
attention lies inside, as the mean over all words and as the fifth percentile; how often the
brightest cell is inside; and the percentage of captions that break off or have a phrase twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import checkout  # noqa: F401 - finds the package
import numpy as np
from PIL import Image

from captioner import Captioner, DecodingOptions
from captioner.data.datasets import Record, read_coco, sample_records
from captioner.data.images import load_image
from captioner.data.words import split_words
from captioner.evaluation.bootstrap import interval
from captioner.evaluation.diversity import flaws
from captioner.model.function_words import FUNCTION_WORDS
from captioner.model.steering import LEAK, region_coverage

HALVES = ((0, 0, 0.5, 1), (0.5, 0, 1, 1))
NO_STEERING = 1.0  # this leak gives the same factor everywhere


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coco", type=Path, required=True, help="holds annotations/ and val2014/")
    parser.add_argument("--checkpoint", default="assets/checkpoint")
    parser.add_argument("--composites", type=int, default=100)
    parser.add_argument("--strategy", default="beam")
    parser.add_argument("--fit", choices=("crop", "squeeze"), default="crop")
    parser.add_argument(
        "--leaks", type=float, nargs="+", default=[NO_STEERING, 0.3, 0.1, 0.03, LEAK, 0.001]
    )
    parser.add_argument("--boxes", action="store_true", help="boxes of several sizes instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    captioner = Captioner.from_pretrained(options.checkpoint)
    if options.boxes:
        found = measure_boxes(captioner, options.coco, seed=options.seed)
        for box in found:
            print("  ".join(f"{name} {value:g}" for name, value in box.items()))
        print(json.dumps(found))
        return
    pairs = choose_pairs(options.coco, options.composites, options.seed)
    size = captioner.extractor.image_size
    pictures = [composite(*pair, size, options.fit) for pair in pairs]
    batches = [pictures[i : i + 32] for i in range(0, len(pictures), 32)]
    features = np.concatenate([captioner.features(batch) for batch in batches])
    results = []
    for leak in options.leaks:
        texts = steered_captions(captioner, features, options.strategy, leak)
        results.append({"leak": leak, **figures(pairs, texts)})
    print("factor outside  own half   other  difference  95% interval")
    for result in results:
        low, high = result["interval"]
        print(
            f"{result['leak']:14g}  {result['own']:8.3f}  {result['other']:6.3f}  "
            f"{result['difference']:10.3f}  {low:.3f} to {high:.3f}"
        )
    settings = {"composites": len(pairs), "strategy": options.strategy, "fit": options.fit}
    print(json.dumps(settings | {"results": results}))


def measure_boxes(
    captioner: Captioner,
    coco: Path,
    photos: int = 64,
    sides: Sequence[float] = (1 / 8, 0.2, 0.3, 0.5, 0.7),
    seed: int = 0,
) -> list[dict[str, float]]:
    """Measures boxes (see above) with each of `sides`, which are shares of the photo's sides."""
    records = [r for r in read_coco(coco, "val") if r.path.is_file()]
    records = sample_records(records, photos, seed)
    batches = [records[i : i + 32] for i in range(0, len(records), 32)]
    features = np.concatenate([captioner.features([r.path for r in some]) for some in batches])
    rng = np.random.default_rng(seed)
    results = []
    for side in sides:
        corners = rng.random((len(records), 2)) * (1 - side)
        boxes = [(x, y, x + side, y + side) for x, y in corners.tolist()]
        bias = np.concatenate([captioner.region_bias(box) for box in boxes])
        options = DecodingOptions("beam", num_captions=1)
        captions = [found[0] for found in captioner.caption_features(features, options, bias=bias)]
        inside, brightest = [], []
        for box, caption in zip(boxes, captions, strict=True):
            rows, columns = caption.attention.shape[1:]
            touched = region_coverage(box, rows, columns) > 0
            inside += [float(weights[touched].sum()) for weights in caption.attention]
            brightest += [bool(touched.flat[weights.argmax()]) for weights in caption.attention]
        habits = flaws([caption.words for caption in captions])
        results.append(
            {
                "side": side,
                "inside": float(np.mean(inside)),
                "lowest_twentieth": float(np.percentile(inside, 5)),
                "brightest_inside": float(np.mean(brightest)),
                "unfinished": habits["unfinished"],
                "phrase_twice": habits["phrase_twice"],
            }
        )
    return results


def choose_pairs(coco: Path, count: int, seed: int) -> list[tuple[Record, Record]]:
    """Pairs of photos that are on disk: neighbours in a random order that `seed` determines."""
    records = [r for r in read_coco(coco, "val") if r.path.is_file()]
    drawn = sample_records(records, None, seed)
    pairs = list(zip(drawn, drawn[1:] + drawn[:1], strict=True))
    # Pairs that have no photo in common come first.
    return (pairs[0 : len(pairs) - 1 : 2] + pairs[1::2])[:count]


def composite(left: Record, right: Record, size: int, fit: str) -> Image.Image:
    """Two photos side by side, RGB (size, size).

    The network is used to photos that are squeezed into a square, so each photo is squeezed into a
    square here, too. "crop" then takes the middle half of it, which keeps the proportions;
    "squeeze" takes all of it at half its width.
    """
    picture = Image.new("RGB", (size, size))
    for record, start, end in ((left, 0, size // 2), (right, size // 2, size)):
        photo = load_image(record.path)
        width = end - start
        if fit == "squeeze":
            half = photo.resize((width, size), Image.Resampling.BILINEAR)
        else:
            square = photo.resize((size, size), Image.Resampling.BILINEAR)
            half = square.crop(((size - width) // 2, 0, (size - width) // 2 + width, size))
        picture.paste(half, (start, 0))
    return picture


def steered_captions(
    captioner: Captioner, features: np.ndarray, strategy: str, leak: float | None
) -> list[tuple[str, str]]:
    """For each picture, the best captions with the attention steered to each of its halves."""
    options = DecodingOptions(strategy, num_captions=1)
    sides = []
    for half in HALVES:
        texts: list[str] = []
        for start in range(0, len(features), 32):
            some = features[start : start + 32]
            bias = np.repeat(captioner.region_bias(half, leak), len(some), axis=0)
            texts += [c[0].text for c in captioner.caption_features(some, options, bias=bias)]
        sides.append(texts)
    return list(zip(*sides, strict=True))


def figures(
    pairs: Sequence[tuple[Record, Record]], texts: Sequence[tuple[str, str]]
) -> dict[str, object]:
    """The mean share of words from the half steered to and from the other half, the difference, and
    its 95% interval. Both captions of a picture count as one observation."""
    own, other = [], []
    for pair, captions in zip(pairs, texts, strict=True):
        words = [content_words(record.captions) for record in pair]
        own.append(np.mean([share(captions[i], words[i]) for i in (0, 1)]))
        other.append(np.mean([share(captions[i], words[1 - i]) for i in (0, 1)]))
    difference = np.subtract(own, other)
    columns = np.stack([difference, np.ones(len(difference))], axis=1)
    return {
        "own": round(float(np.mean(own)), 4),
        "other": round(float(np.mean(other)), 4),
        "difference": round(float(difference.mean()), 4),
        "interval": [round(x, 4) for x in interval(columns, lambda s: s[:, 0] / s[:, 1])],
    }


def content_words(captions: Sequence[str]) -> set[str]:
    return {word for caption in captions for word in split_words(caption)} - FUNCTION_WORDS


def share(caption: str, words: set[str]) -> float:
    """The share of a caption's distinct content words that are among `words`, in 0..1."""
    said = content_words([caption])
    return len(said & words) / max(len(said), 1)


if __name__ == "__main__":
    main()
