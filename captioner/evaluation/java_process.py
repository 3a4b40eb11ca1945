"""Runs the Java programs of the scorers, so that none outlives its call or hides why it failed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from captioner.errors import CaptionerError

_HINT = "METEOR and the tokenizer need a Java runtime (Debian: default-jre-headless)."


class MetricsUnavailable(CaptionerError, RuntimeError):
    """The scorers cannot run here; the message says what to install."""


class JavaProcess:
    """A Java program that runs: see `started`."""

    def __init__(self, process: subprocess.Popen) -> None:
        assert process.stdin and process.stdout
        self._process = process
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout

    def exchange(self, content: bytes = b"") -> bytes:
        """Gives the program all of its input. Returns all that it prints until it has ended.

        Raises `OSError` if it fails.
        """
        printed, _ = self._process.communicate(content)
        if self._process.returncode:
            raise OSError(_plain(printed))
        return printed

    def ask(self, line: str) -> None:
        """Gives the program one line of input. Raises `OSError` if it has ended."""
        self._input.write(f"{line}\n".encode())
        self._input.flush()

    def lines(self) -> Iterator[bytes]:
        """Yields the lines that the program prints, until it ends."""
        yield from iter(self._output.readline, b"")

    def kill(self) -> None:
        """Ends the program, and all that it has started: `java` may be a script around Java."""
        if hasattr(os, "killpg") and self._process.returncode is None:
            with contextlib.suppress(OSError):  # it has ended
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def close(self) -> None:
        """Ends the program, and closes the pipes to it."""
        self.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):  # it has bytes that can no longer be sent
                pipe.close()


@contextlib.contextmanager
def started(
    arguments: Sequence[str], seconds: float, folder: Path | None = None, remedy: str = _HINT
) -> Iterator[JavaProcess]:
    """Runs a Java program as long as the block lasts.

    Args:
        arguments: Those of `java`.
        seconds: After so many seconds the program is ended.
        folder: The program's working folder.
        remedy: What to do if the program fails, as a sentence.

    Raises:
        MetricsUnavailable: There is no Java, or the block raises OSError or ValueError, because the
            program has failed. The message has its last words.
    """
    if shutil.which("java") is None:
        raise MetricsUnavailable(_HINT)
    late = threading.Event()
    with contextlib.ExitStack() as at_the_end:
        said = at_the_end.enter_context(tempfile.TemporaryFile())
        try:
            process = subprocess.Popen(
                ["java", "-XX:+DisplayVMOutputToStderr", *arguments],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            java = JavaProcess(process)
            at_the_end.callback(java.close)

            def give_up() -> None:
                late.set()
                java.kill()  # then whoever waits for its answer reads the end of the pipe

            watch = threading.Timer(seconds, give_up)
            watch.daemon = True
            watch.start()
            at_the_end.callback(watch.cancel)
            yield java
        except (OSError, ValueError) as error:
            if late.is_set():
                why = f"was not done after {seconds:g} seconds"
            else:
                said.seek(0)
                why = f"does not run ({_plain(said.read()) or error})"
            raise MetricsUnavailable(f"Java {why}. {remedy}") from error


def _plain(said: bytes) -> str:
    """What Java said, on one short line, without the places in its code."""
    lines = said.decode(errors="replace").splitlines()
    return " ".join(line for line in lines if not line.startswith("\tat "))[:300]
