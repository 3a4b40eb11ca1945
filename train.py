"""Trains the captioner. `python train.py` alone does it on a subset of COCO, downloads included."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

ALL = "all"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    _add_data_options(parser.add_argument)
    _add_training_options(parser.add_argument)
    return parser.parse_args(arguments)


def _add_data_options(add: Callable[..., object]) -> None:
    add(
        "--dataset",
        action="append",
        dest="datasets",
        metavar="KIND[:FOLDER]",
        help="what to train on: coco (the default), flickr8k, flickr30k, coco2017, vizwiz, "
        "textcaps, localized_narratives, or folder, which is your own photos with a captions file "
        "(CSV, JSON lines, COCO, Karpathy). Given several times, it trains on all of them: "
        "--dataset flickr8k:data/flickr8k --dataset folder:photos",
    )
    add("--data-dir", type=Path, help="the FOLDER, if KIND stands alone (default: data/KIND)")
    add("--output", type=Path, default=Path("output"), help="features, state and checkpoint")
    add(
        "--images",
        type=_count,
        metavar="N|all",
        help="how many of each data set to train on (default: coco 6000, others all)",
    )
    add(
        "--skip-unreadable",
        type=_natural,
        default=0,
        metavar="N",
        help="leave up to N photos out that cannot be read (default: 0, all must be readable)",
    )


def _add_training_options(add: Callable[..., object]) -> None:
    add(
        "--recipe",
        choices=("best", "finetuned", "gpu", "tutorial"),
        default="best",
        help="sizes and training; the options below change single points of it",
    )
    add("--epochs", type=int, help="at most; stops earlier if validation does not improve")
    add("--batch-size", type=int, help="images a step, each with its captions")
    add("--learning-rate", type=float)
    add(
        "--finetune-from",
        type=lambda block: "" if block == "none" else block,
        metavar="BLOCK|none",
        help='train the network too, from this block on: "mixed8" for its last three',
    )
    add("--finetune-epochs", type=int, help="of that, from photos: what takes longest")
    add("--cider-epochs", type=int, help="of self-critical training on CIDEr-D afterwards")
    add(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="see training photos mirrored, too, in some epochs",
    )
    add("--crops", type=int, help="see training photos in so many random parts, too")
    add("--backbone-weights", default="imagenet", metavar="imagenet|FILE")
    add("--backbone-note", default="", help="a sentence about those weights for the model card")
    add("--features", type=Path, help="feature cache to share (default: a folder of the output)")
    add("--seed", type=int)
    add(
        "--deterministic",
        action="store_true",
        help="the same weights to the last bit at every run; TensorFlow extracts features slower",
    )
    add("--push-to-hub", metavar="USER/NAME", help="publish the checkpoint when it is done")
    add("--private", action="store_true", help="with --push-to-hub: visible to you alone")
    add(
        "--distribute",
        choices=("none", "devices", "hosts"),
        default="none",
        help="train on all devices of this host, or of several (needs JAX; see docs/training.md)",
    )
    add("--mixed-precision", action="store_true", default=None, help="bfloat16, for GPUs")


def _count(text: str) -> int | str:
    if text != ALL and int(text) < 1:
        raise ValueError
    return text if text == ALL else int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of photos')
    return int(text)


def _prepare(deterministic: bool) -> bool:
    """Sets up the log and the environment; False if that cannot be, which it says."""
    logging.basicConfig(level="INFO", format="%(message)s")
    for chatty in ("httpx", "jax"):
        logging.getLogger(chatty).setLevel("WARNING")
    if deterministic:
        # oneDNN's products differ in the last bit from run to run. TensorFlow reads this once.
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    # Here and not above, so that --help and mistakes in the options answer at once.
    from captioner import environment
    from captioner.errors import CaptionerError

    try:
        environment.settle()
    except CaptionerError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def main() -> int:
    options = parse()
    if not _prepare(options.deterministic):
        return 1
    from captioner import config
    from captioner.checkpoint import hub
    from captioner.data import mixture
    from captioner.errors import CaptionerError
    from captioner.model import backend
    from captioner.training import distribution, recipes, run

    backend.keep_compiled()
    given = {k: v for k, v in vars(options).items() if v is not None}
    known = {f.name for f in fields(config.TrainingConfig)}
    try:
        sources = mixture.parse_sources(options.datasets or ["coco"], options.data_dir)
        recipe = recipes.RECIPES[options.recipe]
        chosen = {k: v for k, v in given.items() if k in known}
        settings = config.TrainingConfig(**recipe.training | chosen)
        # First of all: hosts have to find each other before anything is computed.
        processes = distribution.distribute(options.distribute, settings.batch_size)
        if options.push_to_hub:
            hub.require_login()  # now, and not after hours of training
        seed = given.get("seed", 0)

        records = mixture.read_mixture(
            sources, options.images, seed, download=True, progress=sys.stderr.isatty()
        )
        folder = run.run_training(
            records,
            run.RunOptions(
                dataset=mixture.title_of(sources),
                output=options.output,
                backbone_weights=options.backbone_weights,
                backbone_note=options.backbone_note,
                features=options.features,
                skip_unreadable=options.skip_unreadable,
                training=settings,
                model=recipe.model,
                distribution=processes,
            ),
        )
        if not processes.is_main:  # the first one has written the checkpoint
            return 0
        print(f"The checkpoint is in {folder}. Try it: python app.py --checkpoint {folder}")
        if options.push_to_hub:
            print(f"Published: {hub.push(folder, options.push_to_hub, private=options.private)}")
    except (CaptionerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
