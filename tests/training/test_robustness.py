"""What `train.py` says and loses when disks are full, files damaged and data incomplete.

The command runs in this process, on twelve small photos, with three convolutions for a network.
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import Mount, write_colours
from small_backbone import small_backbone

import train
from captioner import Captioner
from captioner.checkpoint import checkpoint_folder
from captioner.model.features import FeatureExtractor
from captioner.training import plan, run

SHARD = 4  # photos
WEIGHTS = Path(__file__)  # the small network makes its own, but the option wants a file

Command = Callable[..., str]


@pytest.fixture(scope="module")
def data(photo, tmp_path_factory) -> Path:
    """Twelve photos with a captions file, nine to train on and three to validate."""
    return write_colours(tmp_path_factory.mktemp("data"), photo, ("A {} thing",), train=9)


@pytest.fixture(scope="module")
def command() -> Command:
    """`command(data, output, *more)` runs train.py, expecting success, and returns its log;
    `command(..., fails=True)` expects one line on standard error that explains."""
    backbone = small_backbone()
    extractor = FeatureExtractor(backbone, 4)  # for all runs, so that it is compiled only once
    sizes = {"rows": 2, "columns": 2, "channels": 8, "embedding_dim": 8, "units": 16}
    sizes["attention_units"] = 8
    real = run.RunOptions

    def small(**options) -> run.RunOptions:
        model = options.pop("model", {}) | sizes
        return real(**options, model=model, shard_images=SHARD)

    with pytest.MonkeyPatch.context() as patch:
        for module in (run, plan):
            patch.setattr(module, "build_backbone", lambda *_, **__: backbone)
            patch.setattr(module, "FeatureExtractor", lambda *_, **__: extractor)
        patch.setattr(checkpoint_folder, "build_backbone", small_backbone)
        patch.setattr(run, "RunOptions", small)
        yield run_command


def run_command(data: Path, output: Path, *more: str, fails: bool = False) -> str:
    said, log = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    options = ["--dataset", "folder", "--data-dir", data, "--output", output, "--epochs", "1"]
    # Self-critical training has tests of its own.
    options += ["--batch-size", "4", "--cider-epochs", "0", "--backbone-weights", WEIGHTS]
    options += more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *map(str, options)])
        patch.setattr(sys, "stderr", said)
        # Without Java there are no scores, which have tests of their own.
        patch.setenv("PATH", str(Path(sys.executable).parent))
        logger = logging.getLogger("captioner")
        logger.setLevel(logging.INFO)  # as train.py does for a process of its own
        logger.addHandler(handler)
        code = train.main()
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert code == (1 if fails else 0), said.getvalue()
    lines = said.getvalue().splitlines()
    assert [line.startswith("error: ") for line in lines if "features:" not in line] == [
        True
    ] * code
    return lines[-1] if fails else log.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "verified.jsonl"
    }


@pytest.fixture(scope="module")
def finished(data, command, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("run") / "output"
    command(data, output)
    return output


@pytest.fixture
def output(finished, tmp_path) -> Path:
    """A copy of a finished run, to be damaged."""
    # Without what says that its cache was verified, as `contents`.
    skip = shutil.ignore_patterns("verified.jsonl")
    shutil.copytree(finished, tmp_path / "output", ignore=skip)
    return tmp_path / "output"


def refusal(command, data, output, *options: str) -> str:
    """The message of a run that fails, and changes nothing."""
    before = contents(output)
    message = command(data, output, *options, fails=True)
    assert contents(output) == before, "nothing is lost, nothing left behind"
    return message


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_another_backbone_is_another_run(command, data, output):
    for file in (output / "run.json", output / "features" / "stamp.json"):
        changed, found = re.subn(r'("fingerprint": ")\w+', r"\g<1>0123", file.read_text())
        assert found == 1
        file.write_text(changed)
    message = refusal(command, data, output)
    assert f"{output} holds another run (backbone.fingerprint was '0123', now" in message
    assert "another --output" in message and "--features" not in message


def test_a_corrupted_shard(command, data, finished, output):
    data_file = sorted(output.glob("features/shard-*.npy"))[1]
    content = bytearray(data_file.read_bytes())
    content[-100] ^= 1
    data_file.write_bytes(content)
    message = refusal(command, data, output)
    assert f"{data_file} is damaged" in message
    assert f"Delete {data_file.stem}.json and {data_file.name}" in message
    data_file.unlink()
    data_file.with_suffix(".json").unlink()
    command(data, output)
    assert contents(output / "features") == contents(finished / "features")


@pytest.mark.parametrize("name", ["state.safetensors", "best.safetensors", "run.json"])
def test_a_truncated_state_file(command, data, finished, output, name):
    halve(output / name)
    message = refusal(command, data, output)
    assert (
        f"{output / name} is damaged" in message and "ove it" in message and "elete" not in message
    )
    for path in output.glob("*.*"):  # as the message says
        if path.name in message:
            path.unlink()
    command(data, output)
    assert (output / "checkpoint" / "decoder.safetensors").is_file()
    assert contents(output / "features") == contents(finished / "features")


def test_a_truncated_checkpoint_is_named_and_written_anew(command, data, output):
    path = output / "checkpoint" / "decoder.safetensors"
    whole = path.read_bytes()
    halve(path)
    with pytest.raises(ValueError, match=f"{path} is damaged or was changed"):
        Captioner.from_pretrained(output / "checkpoint")
    command(data, output)
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_scores_that_fail_do_not_cost_the_checkpoint_and_others_are_logged(
    command, data, output, monkeypatch
):
    def scores(*_: object, **options: object) -> None:
        assert (output / "checkpoint" / "decoder.safetensors").exists(), "the weights come first"
        raise ValueError("an odd scorer")

    shutil.rmtree(output / "checkpoint")
    monkeypatch.setattr(run, "require_metrics", lambda: None)
    monkeypatch.setattr(run, "evaluate", scores)
    log = command(data, output)
    assert "no caption scores" in log and "an odd scorer" in log
    assert Captioner.from_pretrained(output / "checkpoint").config.dataset == "folder"
    bundled = Path(train.__file__).parent / "assets" / "checkpoint" / "metrics.json"
    score = json.loads(bundled.read_text())["scores"][0]
    score = {k: v for k, v in score.items() if k not in ("dataset", "split", "strategy")}
    monkeypatch.setattr(run, "evaluate", lambda *_, **__: score)
    log = command(data, output)
    assert f"scores of folder, beam: BLEU-1 {score['BLEU-1']:.1f}, BLEU-4" in log
    written = json.loads((output / "checkpoint" / "metrics.json").read_text())["scores"]
    assert [s["CIDEr"] for s in written] == [score["CIDEr"]] * 2


def test_two_data_sets_in_one_run(command, data, tmp_path, monkeypatch):
    shutil.copytree(data, tmp_path / "others")
    arguments = [f"--dataset=folder:{data}", f"--dataset=folder:{tmp_path / 'others'}"]
    arguments += [f"--output={tmp_path / 'out'}", "--epochs=1", "--cider-epochs=1"]
    arguments += ["--batch-size=4", f"--backbone-weights={WEIGHTS}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert train.main() == 0
    metrics = json.loads((tmp_path / "out/checkpoint/metrics.json").read_text())
    names = (data.name, "others")
    assert [part["dataset"] for part in metrics["data"]] == [*names]
    for entry in metrics["history"]:
        assert entry["val_nll"] == pytest.approx(
            np.mean([entry[f"val_nll/{name}"] for name in names])
        )
    for entry in metrics["cider_history"]:
        assert {f"val_cider/{name}" for name in names} <= entry.keys()


def test_another_run_is_kept_out(command, data, output):
    shutil.rmtree(output / "features")  # which would take long to make again
    message = refusal(command, data, output, "--epochs", "2")
    assert "training.epochs was 1, now 2" in message and "another --output" in message


def test_captions_by_people_are_looked_for_before_anything_takes_long(command, data, tmp_path):
    by_model = tmp_path / "data"
    shutil.copytree(data, by_model)
    captions = by_model / "captions.csv"
    head, *lines = captions.read_text().splitlines()
    captions.write_text("\n".join([f"{head},by", *(f"{line},model" for line in lines)]) + "\n")
    people = ["--cider-epochs", "1", "--set", "training.cider_captions=people"]
    message = command(by_model, tmp_path / "output", *people, fails=True)
    assert "no training photo has captions by people" in message
    assert not (tmp_path / "output" / "features").exists()


def test_two_runs_at_once_are_refused(command, data, output):
    first = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); input()"
    arguments = [sys.executable, "-c", first, str(output / run.LOCK)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(arguments, **pipes) as other:
        other.stdout.readline()
        message = refusal(command, data, output)
        assert f"another run is writing to {output}. Wait for it" in message
        other.communicate(b"\n")
    command(data, output)  # the other has ended


def test_a_full_disk_at_every_stage(command, data, finished, mount: Mount):
    disk = mount("size=16k")
    output = disk / "output"
    sizes = {
        "features/shard": "16k",
        "features/mirrored": "44k",
        "best": "72k",
        ".checkpoint.new": "160k",
    }
    for stage, size in sizes.items():
        subprocess.run(["/bin/mount", "-o", f"remount,size={size}", str(disk)], check=True)
        before = contents(output) if output.exists() else {}
        message = command(data, output, fails=True)
        after = contents(output)
        assert "No space left on device" in message
        assert "make room, then run the same command again" in message
        assert str(output / stage) in message, stage
        assert before.items() <= after.items(), "nothing is lost"
        assert after.keys() <= contents(finished).keys(), "nothing half is left behind"
    assert "state.safetensors" in after and "checkpoint/config.json" not in after
    subprocess.run(["/bin/mount", "-o", "remount,size=200m", str(disk)], check=True)
    said = command(data, output)
    assert "epoch 1 of 1" not in said, "it goes on from the state"
    assert contents(output / "features") == contents(finished / "features")
    Captioner.from_pretrained(output / "checkpoint")


def test_a_file_that_may_not_grow(command, data, tmp_path):
    """As with a quota, or a file system's own limit."""
    program = (
        "import resource, sys; from pathlib import Path; from captioner.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_bytes(Path(sys.argv[1]), bytes(2000))"
    )
    path = tmp_path / "file.bin"
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        cwd=Path(train.__file__).parent,
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stderr and str(path) in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_output_folders_that_cannot_be_written(command, data, mount: Mount, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    for place in (file, file / "below", mount("size=1m,ro")):
        message = command(data, place, fails=True)
        assert f"{place} cannot be written to" in message and "another --output" in message
    assert file.read_bytes() == b"precious"


def test_feature_folders_that_cannot_be_written(command, data, mount: Mount, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    message = command(data, tmp_path / "new", "--features", file, fails=True)
    assert f"{file} cannot be written to" in message and "another --features" in message
    assert file.read_bytes() == b"precious"
    below = mount("size=1m,ro") / "features"
    message = command(data, tmp_path / "new", "--features", below, fails=True)
    assert "Read-only file system" in message and "give another --features" in message


def test_features_on_a_disk_that_cannot_be_written_are_read(command, data, output, mount: Mount):
    disk = mount("size=1m")
    shutil.copytree(output / "features", disk, dirs_exist_ok=True)
    subprocess.run(["/bin/mount", "-o", "remount,ro", str(disk)], check=True)
    command(data, output, "--features", disk)


def test_unreadable_photos_are_left_out_of_the_run(command, data, tmp_path):
    photos, output = tmp_path / "data", tmp_path / "output"
    shutil.copytree(data, photos)
    for name in ("03.png", "10.png"):  # one to train on, one to validate
        (photos / name).write_bytes(b"<html>404</html>")
    message = command(photos, output, "--skip-unreadable", 1, fails=True)
    assert "2 of 12 photos cannot be read" in message and "03.png" in message
    log = command(photos, output, "--skip-unreadable", 2, "--mirror")
    assert "2 of 12 photos cannot be read and are left out" in log and "10.png" in log
    (counted,) = json.loads((output / "checkpoint/metrics.json").read_text())["data"]
    assert (counted["train_images"], counted["val_images"]) == (8, 2)


def test_a_check_says_what_would_be_done_and_does_nothing(
    command, data, output, tmp_path, capsys, monkeypatch
):
    new = tmp_path / "new"
    command(data, new, "--check", "--cider-epochs", 7)
    assert not new.exists()
    said = capsys.readouterr().out
    assert f"{data.name}: 9 training photos with 9 captions, 3 validation photos" in said
    assert "Vocabulary: 2 words of the training captions occur 5 times or more" in said
    assert "photos as they are: 0 are there, 12 are to be made" in said
    assert "mirrored: 0 are there, 9 are to be made" in said
    assert "cross-entropy, 1 epoch at most: " in said and "self-critical training, 7 epochs" in said
    assert f" GB in {new}, where " in said and "Java" in said

    # The time of a step has been measured above, where it was compiled.
    monkeypatch.setattr(plan, "_seconds_of", lambda step: 1.0)
    before = contents(output)
    command(data, output, "--check")
    said = capsys.readouterr().out
    assert "holds this run already: it goes on" in said
    assert "photos as they are: 12 are there, 0 are to be made" in said
    assert contents(output) == before
    if keras.backend.backend() != "jax":
        message = command(data, output, "--check", "--distribute", "devices", fails=True)
        assert "--distribute devices needs JAX" in message
    message = command(data, output, "--check", "--set", "model.dropout=0.1", fails=True)
    assert "holds another run (model.dropout was 0.3, now 0.1)" in message

    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: SimpleNamespace(free=9))
    message = command(data, new, "--check", fails=True)
    assert "Make room, or give another --output" in message and not new.exists()


def test_captions_of_missing_images(command, data, tmp_path):
    mine = tmp_path / "data"
    mine.mkdir()
    captions = mine / "captions.csv"
    captions.write_bytes((data / "captions.csv").read_bytes())
    message = command(mine, tmp_path / "output", fails=True)
    assert f"{captions}: 12 of its 12 images are missing in {mine}: 00.png" in message
    assert "put them there" in message
    for i in range(11):  # all but the last one
        (mine / f"{i:02d}.png").write_bytes((data / f"{i:02d}.png").read_bytes())
    (mine / "03.png").write_bytes(b"")
    message = command(mine, tmp_path / "output", fails=True)
    assert f"{mine / '03.png'}: 03.png is empty" in message and "run again" in message
    assert len(list(tmp_path.glob("output/features/shard-*.npy"))) == 3, "all others are extracted"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", ""),
        ("captions.csv", "image,caption\n"),
        ("captions.jsonl", ""),
        ("captions.json", ""),
        ("captions.json", '{"images": [], "annotations": []}'),
    ],
)
def test_an_empty_captions_file(command, tmp_path, name, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(content)
    message = command(tmp_path / "data", tmp_path / "output", fails=True)
    assert str(tmp_path / "data" / name) in message
    assert "holds no captions; write" in message
