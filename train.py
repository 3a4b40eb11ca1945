"""Trains the captioner. `python train.py` alone does it on a subset of COCO, downloads included."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# Python itself does this, unless it is told not to (-I, PYTHONSAFEPATH).
sys.path.insert(0, str(Path(__file__).resolve().parent))

from captioner.files import user_path

if TYPE_CHECKING:
    from captioner.config import TrainingConfig
    from captioner.data.datasets import Record

ALL = "all"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, not behind 30 lines that list all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}. python train.py --help lists all options.\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = _Parser(description=__doc__)
    _add_data_options(parser.add_argument)
    _add_training_options(parser.add_argument)
    _add_backbone_options(parser.add_argument)
    _add_run_options(parser.add_argument)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [f"--{name.replace('_', '-')}" for name in vars(options)]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        parser.error(f"there is no option {unknown[0]}{hint}")
    return options


def _add_data_options(add: Callable[..., object]) -> None:
    from captioner.data.datasets import DATASETS

    kinds = ", ".join(kind for kind in DATASETS if kind != "nocaps")  # which is for evaluation only
    add(
        "--dataset",
        action="append",
        dest="datasets",
        metavar="KIND[:FOLDER]",
        help=f"what to train on (default: coco): {kinds}. A folder has your own "
        "photos with a captions file (CSV, JSON lines, COCO, Karpathy). Given several times, it "
        "trains on all of them: --dataset flickr8k:data/flickr8k --dataset folder:photos",
    )
    add("--data-dir", type=user_path, help="the FOLDER, if KIND stands alone (default: data/KIND)")
    add(
        "--output",
        type=user_path,
        default=Path("output"),
        help="the folder for features, state and checkpoint (default: output)",
    )
    add(
        "--images",
        type=_count,
        metavar="N|all",
        help="the most training photos of each data set (default: all, but 6000 of coco if its "
        "folder has no photos of val2014; a fifth of coco's N photos is then for validation)",
    )
    add(
        "--skip-unreadable",
        type=_natural,
        default=0,
        metavar="N",
        help="leave up to N photos out that cannot be read (default: 0, all must be readable)",
    )


def _add_training_options(add: Callable[..., object]) -> None:
    from captioner.model.backbones import BACKBONES
    from captioner.training.recipes import RECIPES

    add(
        "--recipe",
        choices=tuple(RECIPES),
        default="best",
        help="a set of sizes and options of training (default: best); the options below change "
        "single values of it",
    )
    add(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="SECTION.FIELD=VALUE",
        help="any field of the configuration, such as model.units=1024; may be given several "
        'times. "--set help" lists them all',
    )
    add(
        "--epochs",
        type=_whole,
        help="the most epochs of cross-entropy; it stops earlier if validation does not improve",
    )
    add("--batch-size", type=_whole, help="photos per step, each with its captions")
    add("--learning-rate", type=_number, help="the highest learning rate of cross-entropy")
    add(
        "--finetune-from",
        type=lambda block: "" if block == "none" else block,
        metavar="BLOCK|none",
        help="train the network too, from this block on: "
        + "; ".join(
            f"{entry.blocks[0]} to {entry.blocks[-1]} of {name}"
            for name, entry in BACKBONES.items()
            if entry.blocks
        ),
    )
    add(
        "--finetune-epochs",
        type=_whole,
        help="the most epochs in which the network is trained, too; they take longest",
    )
    add(
        "--cider-epochs", type=_whole, help="epochs of self-critical training on CIDEr-D afterwards"
    )
    add(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="show training photos mirrored, too, in some epochs",
    )
    add(
        "--crops",
        type=_whole,
        metavar="N",
        help="also show N random parts of each training photo, in some epochs",
    )


def _add_backbone_options(add: Callable[..., object]) -> None:
    from captioner.model.backbones import BACKBONES, DEFAULT

    add(
        "--backbone",
        choices=tuple(BACKBONES),
        default=DEFAULT,
        help="the network that looks at the photos",
    )
    add(
        "--backbone-weights",
        default="imagenet",
        metavar="imagenet|FILE",
        help="its weights: the public ones, or a .weights.h5 or .safetensors file",
    )
    add("--backbone-note", default="", help="a sentence about those weights for the model card")
    add(
        "--features",
        type=user_path,
        help="the folder of a feature cache that runs share (default: one in the output folder)",
    )


def _add_run_options(add: Callable[..., object]) -> None:
    add("--seed", type=_whole, help="the seed of everything that is random")
    add(
        "--deterministic",
        action="store_true",
        help="the same weights to the last bit at every run; extracting features then takes longer "
        "under TensorFlow",
    )
    add(
        "--check",
        action="store_true",
        help="stop after all checks and say what would be done, with an estimate of time and disk",
    )
    add("--push-to-hub", metavar="USER/NAME", help="publish the checkpoint in the end")
    add("--private", action="store_true", help="with --push-to-hub: visible to you alone")
    add(
        "--distribute",
        choices=("none", "devices", "hosts"),
        default="none",
        help="train on all devices of this host, or of several (needs JAX; see docs/training.md)",
    )
    add(
        "--mixed-precision",
        action="store_true",
        default=None,
        help="for GPUs: compute products in bfloat16, which has fewer digits than float32 (see "
        "docs/training.md)",
    )


def _count(text: str) -> int | str:
    if text != ALL and not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'"{text}" is no number of photos; give 1 or more, or all')
    return text if text == ALL else int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is no number of photos; give 0 or more')
    return int(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number') from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no number') from None


def _prepare(deterministic: bool) -> None:
    logging.basicConfig(level="INFO", format="%(message)s")
    for chatty in ("httpx", "jax"):
        logging.getLogger(chatty).setLevel("WARNING")
    from captioner import environment

    environment.prepare()
    if deterministic:
        # oneDNN's products differ in the last bit from run to run. TensorFlow reads this once.
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
        if os.environ["KERAS_BACKEND"] == "jax":
            # So do sums on a GPU, and XLA tries out there which of its programs is the fastest.
            given = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{given} --xla_gpu_deterministic_ops=true".lstrip()


def main() -> int:
    options = parse()
    # Here and below, and not above, so that --help and mistakes in the options answer at once.
    from captioner.errors import CaptionerError, report

    try:
        _train(options)
    except (CaptionerError, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _train(options: argparse.Namespace) -> None:
    """Does what the options say. Raises `CaptionerError` and `OSError`."""
    from captioner import config
    from captioner.data import mixture
    from captioner.data.datasets import DatasetError
    from captioner.training import preflight, recipes

    recipe = recipes.RECIPES[options.recipe]
    if "help" in options.settings:
        print(config.describe_settings(recipe))
        return
    _prepare(options.deterministic)
    recipe, training = preflight.settings_of(recipe, options.settings, vars(options))
    sources = mixture.parse_sources(options.datasets or ["coco"], options.data_dir)
    preflight.check_backbone(options.backbone, training)
    preflight.check_places(options)

    try:
        records = mixture.read_mixture(
            sources,
            options.images,
            training.seed,
            download=not options.check,
            progress=sys.stderr.isatty(),
        )
    except DatasetError:
        pending = preflight.describe_downloads(sources, options.images)
        if not options.check or not pending:
            raise
        print(*pending, "What can be checked without the data is in order.", sep="\n")
        return
    preflight.check_records(records, training)
    if options.check:
        print(*preflight.describe_data(records, training), sep="\n", flush=True)
    _run(options, mixture.joined_name(sources), records, recipe.model, training)


def _run(
    options: argparse.Namespace,
    title: str,
    records: list[Record],
    model: dict[str, Any],
    training: TrainingConfig,
) -> None:
    """What takes long, after everything was checked that can be checked without it."""
    from captioner import environment

    environment.settle()
    from captioner.checkpoint import hub
    from captioner.model import backend
    from captioner.training import distribution, plan, run

    backend.keep_compiled()
    # First of all: hosts have to find each other before anything is computed.
    if options.check:
        distribution.check(options.distribute, training.batch_size)
        processes = distribution.Distribution()
    else:
        processes = distribution.distribute(options.distribute, training.batch_size)
    environment.check_devices()
    given = run.RunOptions(
        dataset=title,
        output=options.output,
        backbone=options.backbone,
        backbone_weights=options.backbone_weights,
        backbone_note=options.backbone_note,
        features=options.features,
        skip_unreadable=options.skip_unreadable,
        training=training,
        model=model,
        distribution=processes,
    )
    if options.check:
        with backend.float32_products(not training.mixed_precision):  # as in the run
            for line in plan.plan(records, given):
                print(line, flush=True)
        if options.distribute != "none":
            print("The time is that of one device, without --distribute.")
        if options.push_to_hub:
            print(f"Hub: it would be published as {options.push_to_hub}")
        print("Nothing was kept. The same command without --check does it.")
        return
    folder = run.run_training(records, given)
    if not processes.is_main:  # the first one has written the checkpoint
        return
    print(f"The checkpoint is in {folder}. Try it: python app.py --checkpoint {folder}")
    if options.push_to_hub:
        print(f"Published: {hub.push(folder, options.push_to_hub, private=options.private)}")


if __name__ == "__main__":
    sys.exit(main())
