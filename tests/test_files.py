"""Files that are whole or not there, on a real disk and on a full one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Mount
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from captioner.files import (
    atomic_file,
    check_writable,
    system_fault,
    write_bytes,
    write_fault,
)

ROOT = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_writing_and_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    for content in (b"first, and longer", b"", b"second"):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert names(tmp_path) == ["file.bin"]


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with atomic_file(path) as file:
        file.write(b"x" * 100_000)
        file.flush()
        assert not path.exists()
    assert path.stat().st_size == 100_000


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_exception_leaves_everything_as_it_was(tmp_path: Path, error: type, old) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    before = names(tmp_path)
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"new")
        raise error
    assert names(tmp_path) == before
    if old is not None:
        assert path.read_bytes() == old


def test_what_a_killed_program_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from captioner.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL
    assert not path.exists() and len(names(tmp_path)) == 1
    write_bytes(path, b"whole")
    assert names(tmp_path) == ["file.bin"], "one name for all tries: the next one takes it away"


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "nowhere" / "file.bin", tmp_path / "folder"):
        with pytest.raises(OSError, match=path.name):
            write_bytes(path, b"new")
    assert names(tmp_path) == ["folder"]


def test_a_full_disk_leaves_the_old_content_and_says_so(mount: Mount) -> None:
    small_disk = mount("size=1m")
    path = small_disk / "file.bin"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match=r"No space left on device.*file\.bin") as caught:
        write_bytes(path, bytes(3_000_000))
    assert caught.value.errno == errno.ENOSPC
    with (
        pytest.raises(OSError, match=r"No space left on device.*file\.bin"),
        atomic_file(path) as file,
    ):
        np.save(file, np.zeros(3_000_000, np.uint8))  # NumPy forgets why it could not write
    assert names(small_disk) == ["file.bin"]
    assert path.read_bytes() == b"old"
    write_bytes(path, bytes(900_000))  # the failures left the disk free


def test_a_fault_of_writing_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    for number, remedy in ((errno.EIO, "check the disk"), (errno.ESTALE, "connect the network")):

        def fail(_: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=f"{os.strerror(number)}; {remedy}") as caught:
            write_bytes(path, b"new")
        assert caught.value.errno == number and caught.value.filename == str(path)
    assert names(tmp_path) == []


def test_an_error_of_the_caller_keeps_its_own_words(tmp_path: Path) -> None:
    other = FileNotFoundError(errno.ENOENT, "No such file or directory", "input.txt")
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "file.bin"):
        raise other
    assert caught.value is other


def test_a_fault_of_the_system_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not one")
    with pytest.raises(SafetensorError) as caught:
        load_file(damaged)
    assert system_fault(caught.value, damaged) is None, "it can be read, so its content is wrong"
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(FileNotFoundError) as gone:
        load_file(missing)
    assert system_fault(gone.value, missing) is None
    assert "memory" in system_fault(MemoryError(), damaged)
    flaky = OSError(errno.EIO, os.strerror(errno.EIO))
    assert "Check the disk" in system_fault(flaky, damaged)
    rare = OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    assert "may be whole" in system_fault(rare, damaged), "any number comes from the system"
    assert system_fault(OSError("unrecognized data stream contents"), damaged) is None


# Holds all files that it may, then reads a whole one in vain, and then with a higher limit.
WITHOUT_FILES = """
import os, resource, sys
from pathlib import Path
from safetensors.numpy import load_file
from captioner.files import allow_open_files, system_fault

path = Path(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
held = []
while True:
    try:
        held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
try:
    load_file(path)
except Exception as error:
    print(system_fault(error, path))
allow_open_files(10)
print(*load_file(path))
"""


def test_too_many_open_files_are_named_and_more_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    save_file({"weights": np.zeros(3)}, path)
    command = [sys.executable, "-c", WITHOUT_FILES, path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    fault, names = done.stdout.splitlines()
    assert str(path) in fault and "Too many open files" in fault and "ulimit -n" in fault
    assert "may be whole" in fault and "elete" not in fault
    assert names == "weights", "the limit was raised"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (
            errno.ENOSPC,
            "No space left on device). Make room on the disk, or give another --output.",
        ),
        (errno.EROFS, "Mount that disk for writing, or give another --output."),
        (errno.EACCES, "Let your user write there, or give another --output."),
        (errno.EMFILE, "`ulimit -n 4096`), then run the same command again."),
        (errno.ENAMETOOLONG, "File name too long). Give another --output."),
    ],
)
def test_the_remedy_comes_from_the_cause(tmp_path: Path, number: int, remedy: str) -> None:
    message = write_fault(tmp_path, OSError(number, os.strerror(number)), "--output")
    assert message.startswith(f"{tmp_path} cannot be written to (") and message.endswith(remedy)


def test_looking_whether_a_folder_can_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "below")
    assert names(tmp_path) == []
    (tmp_path / "file").write_bytes(b"precious")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            check_writable(place)
    assert names(tmp_path) == ["file"]
