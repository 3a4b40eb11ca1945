"""The page: `python app.py`, then open the address it prints (`--help` lists the options)."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from pathlib import Path

from captioner.web.address import AddressUnusable, find_address
from captioner.web.address import port as read_port


def main(arguments: list[str] | None = None) -> int:
    """Load, compile, serve until interrupted. Gives the exit status."""
    options = _parser().parse_args(arguments)
    if options.mcp and importlib.util.find_spec("mcp") is None:
        print('--mcp needs one package more: pip install "gradio[mcp]"', file=sys.stderr)
        return 1
    try:
        host, port = find_address(options.host, options.port)
    except AddressUnusable as error:
        print(f"Cannot serve the page: {error}", file=sys.stderr)
        return 1
    print("Loading the model ...", flush=True)
    # Not before the options are read: TensorFlow takes seconds, a typing mistake should not.
    from captioner.environment import EnvironmentUnusable, settle_page

    try:
        settle_page(options.host)
    except EnvironmentUnusable as error:
        print(f"Cannot start: {error}", file=sys.stderr)
        return 1
    from captioner import CheckpointError
    from captioner.model.decoding_options import DEFAULTS
    from captioner.web.batching import BatchingCaptioner

    try:
        captioner = BatchingCaptioner.from_pretrained(options.checkpoint, revision=options.revision)
    except CheckpointError as error:
        print(f"Cannot use this checkpoint: {error}", file=sys.stderr)
        return 1
    # What the page and the endpoint search for unless told otherwise. Other searches are compiled
    # at their first use, which takes a second: waiting for all of them here would take many.
    captioner.warm_up([DEFAULTS])
    from captioner.web.page import build_page, launch_options

    page = build_page(captioner)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=options.share or None,
            mcp_server=options.mcp,
            prevent_thread_lock=True,
            quiet=True,  # Gradio's own lines speak of arguments of its functions
            **launch_options(),
        )
    except OSError as error:  # Gradio's message speaks of its own arguments
        taken = f"port {port} has been taken meanwhile. Start again, or choose one with --port."
        print(f"Cannot serve the page: {taken}", file=sys.stderr)
        logging.getLogger(__name__).debug("%s", error)
        return 1
    print(f"* Running on local URL:  {page.local_url}", flush=True)
    if page.share_url:
        print(f"* Running on public URL: {page.share_url} (for a week)", flush=True)
    if options.mcp:
        from captioner.web.mcp_tools import finish_tools

        finish_tools(page)
    page.block_thread()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Caption photos in the browser.")
    parser.add_argument(
        "--checkpoint",
        default=str(Path(__file__).parent / "assets" / "checkpoint"),
        metavar="PATH_OR_HUB_ID",
        help="a checkpoint directory, or USER/NAME on the Hugging Face Hub (default: the one in "
        "assets/checkpoint)",
    )
    parser.add_argument("--revision", help="a branch, tag or commit on the Hub")
    parser.add_argument(
        "--port", type=read_port, help="default: the first free one from 7860; 0: any free one"
    )
    parser.add_argument(
        "--host", help="0.0.0.0 (or ::) for all the network (default: this machine)"
    )
    parser.add_argument("--share", action="store_true", help="also make a public link, for a week")
    parser.add_argument(
        "--mcp", action="store_true", help="serve the same functions as tools for language models"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
