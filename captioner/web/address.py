"""The host and the port of the page. Both are checked before anything slow begins."""

from __future__ import annotations

import argparse
import errno
import os
import socket
from contextlib import suppress

from captioner.errors import CaptionerError

FIRST_PORT, PORTS_TRIED = 7860, 100  # tried if no port is given
THIS_MACHINE = "127.0.0.1"


class AddressUnusable(CaptionerError, OSError):
    """The page cannot be served at this host and port."""


def read_port(text: str) -> int:
    """Reads the value of `--port`.

    Raises:
        argparse.ArgumentTypeError: `text` is not a number from 0 to 65535.
    """
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(
            f"{text} is not a port: give a number from 0 (any free port) to 65535"
        )
    return int(text)


def find_address(host: str | None, port: int | None) -> tuple[str, int]:
    """Finds the address to serve the page at.

    Containers and Spaces set GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, as they do for any program
    with Gradio. The arguments come first.

    Args:
        host: A name or an address of this machine, with or without brackets. None means that of
            GRADIO_SERVER_NAME, otherwise 127.0.0.1.
        port: A port. 0 means any free port. None means GRADIO_SERVER_PORT, if that is a port,
            otherwise the first free port from 7860.

    Returns:
        The host as it is written in a URL, and a port that is free there.

    Raises:
        AddressUnusable: The port is taken or forbidden, or the host is not this machine's.
    """
    if port is None:
        with suppress(argparse.ArgumentTypeError):  # Kubernetes may have set it to a whole address
            port = read_port(os.environ.get("GRADIO_SERVER_PORT", ""))
    option = "--host"
    if host is None and (host := os.environ.get("GRADIO_SERVER_NAME")):
        option = "GRADIO_SERVER_NAME"
    bare = (host or THIS_MACHINE).strip("[]")
    ports = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else [port]
    for tried in ports:
        try:
            free = _bind(bare, tried)
        except UnicodeError as error:  # a part of the name is empty or too long
            raise AddressUnusable(_reason(OSError(), bare, ports, option)) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE and tried != ports[-1]:
                continue
            raise AddressUnusable(_reason(error, bare, ports, option)) from error
        return (f"[{bare}]" if ":" in bare else bare), free
    raise AssertionError("the last port has raised")


def _bind(host: str, port: int) -> int:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # The server binds the first address. Gradio first tries the port on this machine's own address.
    for kind, place in ((family, address), (socket.AF_INET, (THIS_MACHINE, port))):
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            port = probe.getsockname()[1]
            address = (address[0], port, *address[2:])
    return port


def _reason(error: OSError, host: str, ports: range | list[int], option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        if len(ports) > 1:
            return f"all ports from {ports[0]} to {ports[-1]} are taken. Choose one with --port."
        return (
            f"port {ports[0]} is taken. Choose another with --port, or leave it out to have the "
            f"first free one from {FIRST_PORT}."
        )
    if error.errno == errno.EACCES:
        return f"port {ports[0]} is reserved for administrators. Choose one from 1024 with --port."
    return (
        f"{host} is not an address of this machine. Leave {option} out for this machine alone, or "
        "give 0.0.0.0 (or ::) for all of its network."
    )
