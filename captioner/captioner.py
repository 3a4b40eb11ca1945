"""`Captioner`: photo in, captions out. What the app, the evaluation and users call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner.checkpoint import Checkpoint, read_checkpoint
from captioner.decoding import Decoded, DecodingOptions, Generator, choosers, decode
from captioner.features import FeatureExtractor
from captioner.hub import download, push
from captioner.images import ImageSource, load_image, to_network_input


@dataclass(frozen=True)
class Caption:
    """One caption of one photo, with where the model looked for each word."""

    text: str
    words: list[str]
    log_probs: list[float]  # one a word, natural logarithm, before temperature
    attention: np.ndarray  # float32 (n_words, rows, columns), each map sums to 1

    @property
    def mean_log_prob(self) -> float:
        """Natural logarithm, a word; captions are ordered by it."""
        return float(np.mean(self.log_probs))


class Captioner:
    """Photos to captions, from a checkpoint.

    captioner = Captioner.from_pretrained("assets/checkpoint")
    captions = captioner.caption("photo.jpg", num_captions=3)
    """

    def __init__(
        self, checkpoint: Checkpoint, batch_size: int = 32, folder: Path | None = None
    ) -> None:
        self.folder = folder  # where the checkpoint's files are, if they are anywhere
        self.config = checkpoint.config
        self.vocabulary = checkpoint.vocabulary
        self.model = checkpoint.model
        self.extractor = FeatureExtractor(checkpoint.backbone, batch_size)
        self._generators: dict[tuple[Any, int], Generator] = {}

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | os.PathLike, revision: str | None = None
    ) -> Captioner:
        """From a checkpoint directory, or from a repository USER/NAME on the Hugging Face Hub, at
        `revision` (a branch, tag or commit).

        Raises `CheckpointError` saying what is wrong with it.
        """
        folder = find_checkpoint(checkpoint, revision)
        return cls(read_checkpoint(folder), folder=folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publishes the checkpoint this was loaded from as USER/NAME on the Hugging Face Hub.

        `options` are those of `hub.push`. Returns the address of the commit. Raises `HubError`.
        """
        if self.folder is None:
            raise ValueError("only a captioner made by from_pretrained has files to push")
        return push(self.folder, repo_id, **options)

    def caption(
        self,
        image: ImageSource,
        num_captions: int = 3,
        strategy: str = "sample",
        temperature: float = 0.7,
        top_k: int | None = None,
        top_p: float | None = None,
        beam_width: int = 5,
        seed: int = 0,
    ) -> list[Caption]:
        """Captions of one photo, best first (mean log-probability a word).

        `image` is a path, the bytes of a file, a PIL image, or a uint8 array (height, width, 3).
        `strategy` is "sample" (`num_captions` drawn with `temperature`, from the `top_k` words or
        the nucleus `top_p` if given), "beam" (the best `num_captions` of a search of `beam_width`)
        or "greedy" (one caption, whatever `num_captions`). The same `seed` gives the same captions.

        Raises `ImageError` for a picture that cannot be used and `ValueError` for an option.
        """
        options = DecodingOptions(
            strategy, num_captions, temperature, top_k, top_p, beam_width, seed=seed
        )
        return self.caption_batch([image], options)[0]

    def caption_batch(
        self, images: Sequence[ImageSource], options: DecodingOptions | None = None, **settings: Any
    ) -> list[list[Caption]]:
        """`caption` for many photos at once, which go through the network together.

        The settings are those of `caption`, by name, or one `DecodingOptions`.
        """
        options = options or DecodingOptions(**settings)
        captions: list[list[Caption]] = []
        for start in range(0, len(images), self.extractor.batch_size):
            some = images[start : start + self.extractor.batch_size]
            captions += self.caption_features(self._features(some), options)
        return captions

    def caption_features(
        self, features: np.ndarray, options: DecodingOptions
    ) -> list[list[Caption]]:
        """Captions from features (images, locations, channels), for each image best first."""
        decoded = decode(self._generator(options), features, options)
        return [self._captions(decoded, i, options) for i in range(len(features))]

    def warm_up(self, options: Iterable[DecodingOptions] = ()) -> None:
        """Compiles the network and the search, so that the first caller does not wait for it."""
        size = self.extractor.image_size
        blank = np.zeros((size, size, 3), np.uint8)
        for choice in options or [DecodingOptions(s) for s in ("sample", "greedy", "beam")]:
            self.caption_batch([blank], choice)

    def _features(self, images: Sequence[ImageSource]) -> np.ndarray:
        """float16 (images, locations, channels) of up to a batch of photos."""
        size = self.extractor.image_size
        pixels = np.stack([to_network_input(load_image(image), size) for image in images])
        # One photo alone is what the page sends: it should not cost a whole batch.
        return self.extractor(pixels) if len(images) == 1 else self.extractor.padded(pixels)

    def _generator(self, options: DecodingOptions) -> Generator:
        chooser = choosers(options)
        key = (chooser, options.rows)
        if key not in self._generators:
            self._generators[key] = Generator(self.model, chooser, options.rows)
        return self._generators[key]

    def _captions(self, decoded: Decoded, image: int, options: DecodingOptions) -> list[Caption]:
        captions = []
        for row in range(min(options.num_captions, options.rows)):
            ids = decoded.words[image, row].tolist()
            words = self.vocabulary.decode(ids)[: options.max_words]
            n = len(words)
            maps = decoded.attention[image, row, :n]  # (n, locations)
            shape = (n, self.config.model.rows, self.config.model.columns)
            captions.append(
                Caption(
                    " ".join(words),
                    words,
                    [float(x) for x in decoded.log_probs[image, row, :n]],
                    maps.reshape(shape),
                )
            )
        return sorted(captions, key=lambda c: -c.mean_log_prob)


def find_checkpoint(checkpoint: str | os.PathLike, revision: str | None = None) -> Path:
    """The directory of a checkpoint: the one given, or the local copy of a Hub repository."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    return download(str(checkpoint), revision)
