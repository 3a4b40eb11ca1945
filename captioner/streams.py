"""Standard output and standard error, which may be closed, broken, or of another encoding."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# How lines of TensorFlow's C++ log begin: its heading, and information (I) on the machine.
NOTE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|I0000 ")


def repair_streams() -> None:
    """Opens streams that are closed, and makes the others accept all characters.

    Python sets the streams of a process to None if it was started without them, as a service or
    by pythonw. Libraries then fail.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            # Letters of a caption that the terminal's encoding lacks must not end the program.
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Prints a line on standard output at once, if anybody still reads it.

    Nobody does behind `| head -1`, or when the terminal was closed. That does not end the program.
    """
    try:
        print(line, flush=True)
    except OSError:
        say_nothing_more()


def say_nothing_more() -> None:
    """Lets everything vanish that is printed on standard output from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Holds standard error back, also that of C++ code, and then prints all of it but the notes.

    TensorFlow's C++ code writes notes about missing GPUs to standard error, which look like errors.
    No setting prevents them, because they are written before its log is configured.
    """
    with contextlib.ExitStack() as files:
        try:
            descriptor = sys.stderr.fileno()
            written = files.enter_context(tempfile.TemporaryFile())
        except (AttributeError, OSError):  # as under pythonw; or there is no place for files
            yield
            return
        sys.stderr.flush()
        kept = os.dup(descriptor)
        os.dup2(written.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            written.seek(0)
            rest = b"".join(line for line in written if not NOTE.match(line))
            os.write(descriptor, rest)
