"""Starts the page: run `python app.py` and open the address that it prints. `--help` lists the
options."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import signal
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

# Python itself does this, unless it is told not to (-I, PYTHONSAFEPATH).
sys.path.insert(0, str(Path(__file__).resolve().parent))

from captioner.environment import BUNDLED_CHECKPOINT
from captioner.files import user_path
from captioner.streams import say
from captioner.web.address import AddressUnusable, find_address, read_port

if TYPE_CHECKING:
    from captioner.web.feedback import Feedback
    from captioner.web.shown_models import ShownModel


def main(arguments: list[str] | None = None) -> int:
    """Loads the model and serves the page until it is interrupted. Returns the exit status."""
    options = _parser().parse_args(arguments)
    # Containers are stopped by SIGTERM, and closing a terminal sends SIGHUP. As after Ctrl-C,
    # the files of visitors are then deleted.
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    try:
        return _run(options)
    except KeyboardInterrupt:  # while the model is loaded, or a second time
        return 130


def _run(options: argparse.Namespace) -> int:
    """Does what the options say. Returns the exit status."""
    if options.mcp and importlib.util.find_spec("mcp") is None:
        print('--mcp needs one more package: pip install "gradio[mcp]"', file=sys.stderr)
        return 1
    try:
        host, port = find_address(options.host, options.port)
    except AddressUnusable as error:
        print(f"Cannot serve the page: {error}", file=sys.stderr)
        return 1
    say("Loading the model ...")
    # TensorFlow takes seconds to import. These imports come after the options have been read, so
    # that a mistake in them is reported at once.
    from captioner.environment import EnvironmentUnusable, settle_page

    try:
        settle_page(host)
    except EnvironmentUnusable as error:
        print(f"Cannot start: {error}", file=sys.stderr)
        return 1
    from captioner import CheckpointError
    from captioner.web.feedback import FeedbackUnusable, open_folder

    with ExitStack() as at_the_end:
        try:
            feedback = open_folder(options.feedback) if options.feedback else None
            models = _load(options, at_the_end)
        except FeedbackUnusable as error:
            print(f"--feedback cannot be used: {error}", file=sys.stderr)
            return 1
        except CheckpointError as error:
            print(f"Cannot use this checkpoint: {error}", file=sys.stderr)
            return 1
        return _serve(models, feedback, host, port, options)


def _load(options: argparse.Namespace, at_the_end: ExitStack) -> list[ShownModel]:
    """Loads one model, or two to compare. `at_the_end` will close them. Raises CheckpointError."""
    from captioner.web.batching import BatchingCaptioner
    from captioner.web.shown_models import shown_models

    captioners = []
    for place, revision in ((options.checkpoint, options.revision), (options.compare, None)):
        if place is not None:
            captioner = BatchingCaptioner.from_pretrained(place, revision=revision)
            captioners.append(at_the_end.enter_context(closing(captioner)))
    return shown_models(*captioners, places=(options.checkpoint, options.compare))


def _serve(
    models: list[ShownModel],
    feedback: Feedback | None,
    host: str,
    port: int,
    options: argparse.Namespace,
) -> int:
    """Serves the page until it is interrupted. Returns the exit status."""
    from captioner.allocator import return_freed_memory
    from captioner.model.decoding_options import DEFAULTS
    from captioner.web.page import build_page, launch_options

    # This is the search that the page and the endpoints do by default. Other searches are compiled
    # at their first use, which takes a second; compiling all of them here would take many.
    for model in models:
        model.captioner.warm_up([DEFAULTS])
    page = build_page(models, feedback)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=options.share or None,
            mcp_server=options.mcp,
            prevent_thread_lock=True,
            blocked_paths=[str(options.feedback.resolve())] if options.feedback else None,
            quiet=True,  # Gradio's own lines name the arguments of its functions
            **launch_options(),
        )
    except OSError as error:  # Gradio's message names its own arguments
        taken = f"port {port} has been taken meanwhile. Start again, or choose one with --port."
        print(f"Cannot serve the page: {taken}", file=sys.stderr)
        logging.getLogger(__name__).debug("%s", error)
        return 1
    except ValueError as error:
        if "localhost" not in str(error):
            raise
        # Gradio requests its own page, and gives up if there is no answer after some seconds.
        page.close(verbose=False)
        busy = "it does not answer on this machine, which may be too busy. Start again later."
        print(f"Cannot serve the page: {busy}", file=sys.stderr)
        return 1
    say(f"* Running on local URL:  {page.local_url}")
    if page.share_url:
        say(f"* Running on public URL: {page.share_url} (for a week)")
    if options.mcp:
        from captioner.web.mcp_tools import finish_tools

        finish_tools(page)
    return_freed_memory(every=60)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        say("The page is closed.")
        page.close(verbose=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Caption photos in the browser.")
    parser.add_argument(
        "--checkpoint",
        default=str(BUNDLED_CHECKPOINT),
        metavar="PATH_OR_HUB_ID",
        help="a checkpoint directory, or USER/NAME on the Hugging Face Hub (default: the one in "
        "assets/checkpoint)",
    )
    parser.add_argument("--revision", help="a branch, tag or commit on the Hub")
    parser.add_argument(
        "--compare",
        metavar="PATH_OR_HUB_ID",
        help="another checkpoint, whose captions are shown beside those of the first one",
    )
    parser.add_argument(
        "--feedback",
        type=user_path,
        metavar="FOLDER",
        help="let visitors write better captions, which are kept with the photos in this folder if "
        "they agree, as a data set to train on",
    )
    parser.add_argument(
        "--port",
        type=read_port,
        help="default: GRADIO_SERVER_PORT, or the first free port from 7860; 0: any free port",
    )
    parser.add_argument(
        "--host",
        help="0.0.0.0 (or ::) opens the page to the network (default: GRADIO_SERVER_NAME, or this "
        "machine only)",
    )
    parser.add_argument(
        "--share", action="store_true", help="also make a public link that lasts a week"
    )
    parser.add_argument(
        "--mcp", action="store_true", help="also serve the endpoints as tools for language models"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
