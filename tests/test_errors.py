"""How command lines report errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from captioner.errors import report


def test_what_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(OSError("the disk is full")) == 1
    assert capsys.readouterr().err == "error: the disk is full\n"
    with (tmp_path / "pipe").open("w") as output:  # its reader has ended
        monkeypatch.setattr(sys, "stdout", output)
        assert report(BrokenPipeError()) == 1
        assert os.fstat(output.fileno()).st_rdev == os.stat(os.devnull).st_rdev
    assert capsys.readouterr().err == ""
