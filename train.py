"""Trains the captioner. `python train.py` alone does it on a subset of COCO, downloads included."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--dataset",
        choices=("coco", "flickr8k", "folder"),
        default="coco",
        help="folder: your own photos with a captions file (CSV, JSON lines, COCO, Karpathy)",
    )
    add("--data-dir", type=Path, help="where the data is, or goes to (default: data/DATASET)")
    add("--output", type=Path, default=Path("output"), help="features, state and checkpoint")
    add("--images", metavar="N|all", help="how many to train on (default: coco 6000, others all)")
    add("--epochs", type=int, help="at most; stops earlier if validation does not improve")
    add("--batch-size", type=int, help="images a step, each with its captions")
    add("--learning-rate", type=float)
    add("--cider-epochs", type=int, help="of self-critical training on CIDEr-D afterwards")
    add("--backbone-weights", default="imagenet", metavar="imagenet|FILE")
    add("--features", type=Path, help="feature cache to share (default: a folder of the output)")
    add("--seed", type=int)
    add("--mixed-precision", action="store_true", default=None, help="bfloat16, for GPUs")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    logging.basicConfig(level="INFO", format="%(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    # Here and not above, so that --help and mistakes in the options answer at once.
    from captioner import backbone, config, datasets, download, features, training

    given = {k: v for k, v in vars(options).items() if v is not None}
    known = {f.name for f in fields(config.TrainingConfig)}
    data_dir = options.data_dir or Path("data") / options.dataset
    try:
        images = options.images or ("6000" if options.dataset == "coco" else "all")
        num_images = None if images == "all" else int(images)
        if options.dataset == "coco":
            records = download.download_coco(
                data_dir, num_images=num_images, seed=given.get("seed", 0)
            )
        else:
            records = datasets.read_dataset(
                options.dataset, data_dir, num_images=num_images, seed=given.get("seed", 0)
            )
        folder = training.run(
            records,
            training.RunOptions(
                dataset=options.dataset,
                output=options.output,
                backbone_weights=options.backbone_weights,
                features=options.features,
                training=config.TrainingConfig(**{k: v for k, v in given.items() if k in known}),
            ),
        )
    except (
        backbone.BackboneError,
        config.ConfigError,
        datasets.DatasetError,
        download.DownloadError,
        features.FeatureError,
        training.TrainingError,
        OSError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on from here.", file=sys.stderr)
        return 130
    print(f"The checkpoint is in {folder}. Try it: python app.py --checkpoint {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
