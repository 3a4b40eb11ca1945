"""`train.py` with a small network in InceptionV3's place, in a process of its own.

    python tests/small_train.py KILL CAPTIONS OPTIONS OF TRAIN.PY ...

If ON_DEVICE is set (a variable), features and photos are kept in the device's memory, as on a GPU.
With KILL above 0 the process kills itself behind the write number KILL of a training state. With 0,
it captions the photos of the training folder with the new checkpoint, and with those named in
CHECKPOINTS (a variable, separated by colons), and writes what they say into the file CAPTIONS.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
from small_backbone import small_backbone

import train
from captioner import Captioner, DecodingOptions
from captioner.checkpoint import checkpoint_folder
from captioner.model import backend
from captioner.training import epoch_loop, run

SIZES = {"rows": 2, "columns": 2, "channels": 8, "embedding_dim": 8, "units": 16}
SIZES["attention_units"] = 8


def small_options(**options):
    return run_options(**options | {"model": options.get("model", {}) | SIZES})


def killed_at(number: int):
    """`save_state` that ends the process after a number of calls."""
    save, calls = epoch_loop.save_state, []

    def save_and_die(*arguments):
        check_settings()
        save(*arguments)
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return save_and_die


def check_settings() -> None:
    """What makes a difference on a GPU: products in TF32, sums in any order, TensorFlow's notes."""
    if keras.backend.backend() == "jax":
        import jax

        exact = jax.config.jax_default_matmul_precision == "float32"
        assert exact == ("--mixed-precision" not in sys.argv)
        assert "--xla_gpu_deterministic_ops=true" in os.environ["XLA_FLAGS"]
        assert "tensorflow" not in sys.modules, "it takes memory, and says that no GPU is used"


def captions_of(checkpoint: Path, photos: list[Path]) -> list[dict]:
    captioner = Captioner.from_pretrained(checkpoint)
    said = []
    for options in (DecodingOptions("greedy"), DecodingOptions("sample", 2, temperature=1.0)):
        for captions in captioner.caption_batch(photos, options):
            assert all(c.attention.dtype == np.float32 for c in captions)
            said += [{"words": c.words, "log_probs": c.log_probs} for c in captions]
    return said


if __name__ == "__main__":
    kill, into = int(sys.argv[1]), Path(sys.argv[2])
    sys.argv[1:3] = []
    run_options, run.RunOptions = run.RunOptions, small_options
    run.build_backbone = checkpoint_folder.build_backbone = small_backbone
    epoch_loop.save_state = killed_at(kill)
    if "ON_DEVICE" in os.environ:
        backend.free_device_memory = lambda: 10**9
    code = train.main()
    assert keras.config.dtype_policy().name == "float32", "a policy of the whole process"
    if code == 0:
        options = train.parse()
        photos = sorted(Path(options.data_dir).glob("*.png"))[:4]
        others = filter(None, os.environ.get("CHECKPOINTS", "").split(":"))
        said = {
            str(c): captions_of(c, photos)
            for c in (options.output / "checkpoint", *map(Path, others))
        }
        into.write_text(json.dumps(said))
    sys.exit(code)
