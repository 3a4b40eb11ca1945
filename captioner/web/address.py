"""Where the page is served: a host and a port, checked before anything slow is begun."""

from __future__ import annotations

import argparse
import errno
import socket

from captioner.errors import CaptionerError

FIRST_PORT, PORTS_TRIED = 7860, 100  # unless a port is given
THIS_MACHINE = "127.0.0.1"


class AddressUnusable(CaptionerError, OSError):
    """The page cannot be served at this host and port."""


def port(text: str) -> int:
    """An option's value as a port. Raises argparse.ArgumentTypeError if it cannot be one."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text} is no port: give 0 (any that is free) to 65535")
    return int(text)


def find_address(host: str | None, port: int | None) -> tuple[str, int]:
    """The host as a URL has it, and a port that is free there.

    Args:
        host: A name or an address of this machine, with or without brackets; None: 127.0.0.1.
        port: None: the first free one from 7860; 0: any free one.

    Raises:
        AddressUnusable: The port is taken or forbidden, or the host is not this machine's.
    """
    bare = (host or THIS_MACHINE).strip("[]")
    ports = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else [port]
    for tried in ports:
        try:
            free = _bind(bare, tried)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and tried != ports[-1]:
                continue
            raise AddressUnusable(_reason(error, bare, ports)) from error
        return (f"[{bare}]" if ":" in bare else bare), free
    raise AssertionError("the last port has raised")


def _bind(host: str, port: int) -> int:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # As the server does it, and as Gradio tries it before, on this machine's own address.
    for kind, place in ((family, address), (socket.AF_INET, (THIS_MACHINE, port))):
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            port = probe.getsockname()[1]
            address = (address[0], port, *address[2:])
    return port


def _reason(error: OSError, host: str, ports: range | list[int]) -> str:
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
        f"{host} is not an address of this machine. Leave --host out for this machine alone, or "
        "give 0.0.0.0 (or ::) for all of its network."
    )
