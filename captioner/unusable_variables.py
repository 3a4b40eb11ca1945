"""Removes environment variables whose values make libraries fail."""

from __future__ import annotations

import logging
import os
import ssl
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
PROXY_KINDS = ("http", "https", "socks5", "socks5h")  # those that httpx can use
# Libraries fail at the import, or end the process, if these are not whole numbers or numbers.
WHOLE_NUMBERS = (
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_HUB_ETAG_TIMEOUT",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TQDM_INITIAL",
    "TQDM_NCOLS",
    "TQDM_NROWS",
)
NUMBERS = ("TQDM_DELAY", "TQDM_MAXINTERVAL", "TQDM_MININTERVAL", "TQDM_MINITERS", "TQDM_SMOOTHING")


def drop_unusable() -> None:
    """Removes variables that no library of the program can use, and says so in the log."""
    drop_unusable_numbers()
    _drop_unusable_proxies()
    _drop_unusable_exceptions()
    _drop_unusable_certificates()


def drop_unusable_numbers() -> None:
    """Removes variables that are no numbers where a library needs one."""
    for name in (*WHOLE_NUMBERS, *NUMBERS):
        value = os.environ.get(name, "").strip()
        if not value or value.isdecimal():
            continue
        with suppress(ValueError):
            if name in NUMBERS and float(value) >= 0:
                continue
        logger.warning("%s=%s is not a number that can be used, and is ignored", name, value)
        del os.environ[name]


def _drop_unusable_proxies() -> None:
    """Removes proxy variables that httpx cannot use, and that make it refuse all connections."""
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        url = os.environ.get(name, "").strip()
        if not url:
            continue
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            fault = "" if parts.scheme in PROXY_KINDS else f"of an unknown kind ({parts.scheme})"
            _ = parts.port  # raises ValueError
        except ValueError:
            fault = "with a malformed address"
        if fault:
            # The address is left out, because it may hold a password.
            logger.warning("%s names a proxy %s and is ignored", name, fault)
            del os.environ[name]


def _drop_unusable_exceptions() -> None:
    """Removes entries of NO_PROXY that make httpx refuse all connections.

    Other programs accept addresses in brackets and networks of IPv6.
    """
    for name in ("no_proxy", "NO_PROXY"):
        entries = [entry.strip() for entry in os.environ.get(name, "").split(",")]
        kept = [entry for entry in entries if entry and _is_plain_host(entry)]
        if len(kept) < len([*filter(None, entries)]):
            os.environ[name] = ",".join(kept)


def _is_plain_host(entry: str) -> bool:
    """Whether httpx takes an entry of NO_PROXY: a name, or an address, perhaps with a port."""
    try:
        ip_address(entry.partition("%")[0])
        return True
    except ValueError:
        host, _, port = entry.rpartition("://")[2].partition(":")
        return entry.isascii() and "[" not in host and (not port or port.isdecimal())


def _drop_unusable_certificates() -> None:
    """Removes variables that name missing files, such as those of a deleted Conda environment.

    Every connection would fail. Without them, the system's certificates are used.
    """
    for name in ("SSL_CERT_FILE", "SSLKEYLOGFILE"):
        path = os.environ.get(name)
        if not path:
            continue
        try:
            if name == "SSL_CERT_FILE":
                ssl.create_default_context(cafile=path)
            else:
                Path(path).open("ab").close()
        except OSError as error:
            logger.warning("%s=%s cannot be used (%s) and is ignored", name, path, error.strerror)
            del os.environ[name]
