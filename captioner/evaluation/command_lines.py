"""The command lines of the programs that measure a checkpoint.

Importing Keras takes seconds, and this module does not import it. So `--help` is answered at once,
and so are mistakes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from captioner.data.datasets import DATASETS
from captioner.evaluation.metrics import MetricsUnavailable, require_metrics
from captioner.files import check_writable, user_path, write_fault
from captioner.model.decoding_options import (
    DEFAULTS,
    OPTIONS_OF,
    STRATEGIES,
    DecodingOptions,
    OptionError,
    as_typed,
    help_of,
)

TEMPERATURES = (0.3, 0.5, 0.7)


def scores_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `python -m captioner.evaluation`; `decoding` holds those of the search."""
    parser = _parser(
        "python -m captioner.evaluation",
        "Computes BLEU, METEOR, ROUGE-L and CIDEr of one caption per photo, with bootstrap "
        "intervals. The last line of the output is one JSON object.",
        saved="the result into the checkpoint's metrics.json and its model card",
    )
    parser.add_argument(
        "--strategy", choices=STRATEGIES, default="beam", help=help_of("strategy", "beam")
    )
    search = parser.add_argument_group("options of the search")
    search.add_argument("--beam-width", type=int, help=help_of("beam_width"))
    search.add_argument("--length-penalty", type=float, help=help_of("length_penalty"))
    search.add_argument("--temperature", type=float, help=help_of("temperature"))
    search.add_argument("--top-k", type=int, help=help_of("top_k"))
    search.add_argument("--top-p", type=float, help=help_of("top_p"))
    search.add_argument("--seed", type=int, help=help_of("seed"))
    parser.add_argument(
        "--report",
        type=user_path,
        metavar="FILE.html",
        help="write a page with the best, median and worst 20 captions, their photos and attention",
    )
    options = _checked(parser, arguments)
    _check_file(parser, "--report", options.report)
    names = {name for some in OPTIONS_OF.values() for name in some}
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if foreign := given.keys() - set(OPTIONS_OF[options.strategy]):
        named = ", ".join(map(as_typed, sorted(foreign)))
        have = "has" if len(foreign) == 1 else "have"
        parser.error(f"{named} {have} no meaning for --strategy {options.strategy}")
    try:
        options.decoding = DecodingOptions(options.strategy, num_captions=1, **given)
    except OptionError as error:
        parser.error(as_typed(str(error)))
    try:
        require_metrics()
    except MetricsUnavailable as error:
        parser.exit(1, f"error: {error}\n")
    return options


def samples_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `python -m captioner.evaluation.samples`."""
    parser = _parser(
        "python -m captioner.evaluation.samples",
        "Measures how good the samples are that visitors of the page see, at several temperatures.",
        saved="the calibration into the checkpoint's metrics.json",
    )
    parser.add_argument(
        "--temperatures",
        type=float,
        nargs="+",
        default=list(TEMPERATURES),
        metavar="X",
        help=f"the temperatures to compare (default: {' '.join(map(str, TEMPERATURES))})",
    )
    parser.add_argument(
        "--diagram", type=user_path, metavar="FILE", help="draw the calibration into this PNG file"
    )
    options = _checked(parser, arguments)
    _check_file(parser, "--diagram", options.diagram)
    try:
        for temperature in options.temperatures:
            DecodingOptions("sample", temperature=temperature)
    except OptionError as error:
        parser.error(f"--temperatures: {error}")
    shown = DEFAULTS.temperature
    if (options.save or options.diagram) and shown not in options.temperatures:
        parser.error(
            f"--save and --diagram are about samples at the page's temperature: add {shown} to "
            "--temperatures"
        )
    return options


def faithfulness_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `python -m captioner.faithfulness`."""
    parser = _parser(
        "python -m captioner.faithfulness",
        "Measures whether the places that got the most attention matter for the words.",
        saved="the result into the checkpoint's metrics.json and its model card",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses other random quarters")
    return _checked(parser, arguments)


def _parser(program: str, description: str, saved: str) -> argparse.ArgumentParser:
    """A parser with the options that all these programs have. `saved` is what `--save` writes."""
    parser = argparse.ArgumentParser(program, description=description)
    parser.add_argument("checkpoint", help="a checkpoint directory or a Hub id")
    parser.add_argument(
        "--dataset",
        choices=tuple(DATASETS),
        required=True,
        metavar="KIND",
        help=f"one of {', '.join(DATASETS)}",
    )
    parser.add_argument(
        "--data-dir", type=user_path, required=True, metavar="DIR", help="the data set's folder"
    )
    parser.add_argument(
        "--split",
        choices=("test", "val"),
        required=True,
        help="which photos: those for testing or those for validation",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos")
    parser.add_argument(
        "--features",
        type=user_path,
        help="a folder with features of photos; missing ones are added",
    )
    parser.add_argument(
        "--skip-unreadable",
        type=int,
        default=0,
        metavar="N",
        help="leave up to N photos out that cannot be read (default: 0, all must be readable)",
    )
    parser.add_argument("--save", action="store_true", help=f"write {saved}")
    return parser


def _checked(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Parses, and ends the program for mistakes that would otherwise appear only after minutes."""
    options = parser.parse_args(arguments)
    if not options.data_dir.exists():  # it may be a captions file, too
        parser.error(f"--data-dir: there is no folder {options.data_dir}")
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit is {options.limit}: it must be at least 1")
    if options.skip_unreadable < 0:
        parser.error(f"--skip-unreadable is {options.skip_unreadable}: it must be at least 0")
    if options.save:
        if not Path(options.checkpoint).is_dir():
            parser.error(
                f"--save needs a checkpoint directory, and {options.checkpoint} is not one"
            )
        _check_folder(parser, Path(options.checkpoint), "checkpoint, or leave --save out")
    return options


def _check_file(parser: argparse.ArgumentParser, option: str, file: Path | None) -> None:
    if file is None:
        return
    if not file.parent.is_dir():
        parser.error(f"{option}: there is no folder {file.parent}")
    if file.is_dir():
        parser.error(f"{option}: {file} is a folder. Give the name of a file")
    _check_folder(parser, file.parent, option)


def _check_folder(parser: argparse.ArgumentParser, folder: Path, option: str) -> None:
    try:
        check_writable(folder)
    except OSError as error:
        parser.error(write_fault(folder, error, option))
