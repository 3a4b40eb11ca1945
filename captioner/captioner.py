"""`Captioner`: photo in, captions out. What the app, the evaluation and users call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from captioner.checkpoint.checkpoint_folder import Checkpoint, read_checkpoint
from captioner.checkpoint.hub import download, push
from captioner.data.images import ImageSource, load_image, to_network_input
from captioner.data.vocabulary import UNK
from captioner.data.words import join_words
from captioner.model.decoding import (
    IMPOSSIBLE,
    Decoded,
    DecodingLoop,
    DecodingOptions,
    chooser_for,
    decode,
)
from captioner.model.features import FeatureExtractor
from captioner.model.function_words import FUNCTION_WORDS, UNFINISHED
from captioner.model.steering import LEAK, Region, attention_bias

ALTERNATIVES = 5  # other words kept for each word


@dataclass(frozen=True)
class Caption:
    """One caption of one photo, with where the model looked for each word."""

    text: str
    words: list[str]
    log_probs: list[float]  # one a word, natural logarithm, before temperature
    attention: np.ndarray  # float32 (n_words, rows, columns), each map sums to 1
    # For each word, the likeliest other words in its place and the logarithms of their
    # probabilities, best first: what the model nearly said.
    alternatives: list[list[tuple[str, float]]] = field(default_factory=list)

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
        self._loops: dict[tuple[Any, int, int], DecodingLoop] = {}

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
        Samples that agree word for word with another are left out, as long as there are enough.

        Raises `ImageError` for a picture that cannot be used and `ValueError` for an option.
        """
        options = DecodingOptions(
            strategy, num_captions, temperature, top_k, top_p, beam_width, seed=seed, distinct=True
        )
        return self.caption_batch([image], options)[0]

    def caption_batch(
        self, images: Sequence[ImageSource], options: DecodingOptions | None = None, **settings: Any
    ) -> list[list[Caption]]:
        """`caption` for many photos at once, which go through the network together.

        The settings are those of `caption`, by name, or one `DecodingOptions`.
        """
        options = options or DecodingOptions(**{"distinct": True} | settings)
        captions: list[list[Caption]] = []
        for start in range(0, len(images), self.extractor.batch_size):
            some = images[start : start + self.extractor.batch_size]
            captions += self.caption_features(self.features(some), options)
        return captions

    def complete(
        self,
        image: ImageSource,
        prefix: str,
        num_captions: int = 1,
        strategy: str = "beam",
        **settings: Any,
    ) -> list[Caption]:
        """Captions of one photo that begin with the words of `prefix`, best first.

        `prefix` is plain text, such as "a man in"; an empty one leaves everything to the model. The
        words given have the probabilities and the attention that the model has for them. `settings`
        are the others of `caption`.

        Raises what `caption` does, and `ValueError` naming words that are not in the vocabulary.
        """
        options = DecodingOptions(strategy, num_captions, **{"distinct": True} | settings)
        forced = self.forced_words(prefix, options)
        return self.caption_features(self.features([image]), options, forced)[0]

    def caption_region(
        self,
        image: ImageSource,
        region: Region,
        num_captions: int = 3,
        strategy: str = "sample",
        leak: float = LEAK,
        **settings: Any,
    ) -> list[Caption]:
        """Captions of one photo that look at a region of it, best first.

        `region` is a box (left, top, right, bottom) in fractions of the photo, such as
        (0, 0, 0.5, 1) for its left half, or a mask (any rows and columns) of non-negative weights.
        It multiplies the attention weights at every step, which then sum to 1 again; outside it the
        factor is `leak`. `settings` are the others of `caption`.

        Raises what `caption` does, and `ValueError` for a region that is none.
        """
        options = DecodingOptions(strategy, num_captions, **{"distinct": True} | settings)
        bias = self.region_bias(region, leak)
        return self.caption_features(self.features([image]), options, bias=bias)[0]

    def caption_features(
        self,
        features: np.ndarray,
        options: DecodingOptions,
        forced: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> list[list[Caption]]:
        """Captions from features (images, locations, channels), for each image best first.

        `forced` and `bias` are `decode`'s: `forced_words` and `region_bias` make those of an image.
        """
        decoded = decode(self._loop(options), features, options, forced, bias)
        return [self._captions(decoded, i, options) for i in range(len(features))]

    def forced_words(self, prefix: str, options: DecodingOptions) -> np.ndarray:
        """int32 (1, rows, steps): the words that captions of one photo begin with, for `decode`.

        Raises `ValueError` for words that the model does not know, and for too many words.
        """
        words = self.vocabulary.split(prefix)
        unknown = [word for word in dict.fromkeys(words) if self.vocabulary.encode(word) == [UNK]]
        if unknown:
            raise ValueError(
                "the model does not know the "
                f"word{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}"
            )
        if len(words) > options.max_words:
            raise ValueError(f"the beginning has {len(words)} words: at most {options.max_words}")
        forced = np.zeros((1, options.rows, options.max_words + 1), np.int32)
        forced[:, :, : len(words)] = self.vocabulary.encode(prefix)
        return forced

    def region_bias(self, region: Region, leak: float = LEAK) -> np.ndarray:
        """float32 (1, 1, locations): a region of one photo as `decode` takes it.

        Raises `ValueError` as `steering.attention_bias`.
        """
        model = self.config.model
        return attention_bias(region, model.rows, model.columns, leak)[None, None]

    def warm_up(self, options: Iterable[DecodingOptions] = ()) -> None:
        """Compiles the network and the search, so that the first caller does not wait for it."""
        size = self.extractor.image_size
        blank = np.zeros((size, size, 3), np.uint8)
        for choice in options or [DecodingOptions(s) for s in ("sample", "greedy", "beam")]:
            self.caption_batch([blank], choice)

    def features(self, images: Sequence[ImageSource]) -> np.ndarray:
        """float16 (images, locations, channels) of up to a batch of photos.

        Raises `ImageError` for a picture that cannot be used.
        """
        return self.features_of_pixels(np.stack([self.pixels(image) for image in images]))

    def pixels(self, image: ImageSource) -> np.ndarray:
        """What the network sees of a photo: float32 (size, size, 3) in -1..1.

        Raises `ImageError` for a picture that cannot be used.
        """
        return to_network_input(load_image(image), self.extractor.image_size)

    def features_of_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """`features` of photos that `pixels` has made, (images, size, size, 3)."""
        # One photo alone is what the page sends: it should not cost a whole batch.
        return self.extractor(pixels) if len(pixels) == 1 else self.extractor.padded(pixels)

    def _loop(self, options: DecodingOptions) -> DecodingLoop:
        kind = self._kind(options)
        if kind not in self._loops:
            self._loops[kind] = self._new_loop(options)
        return self._loops[kind]

    def _kind(self, options: DecodingOptions) -> tuple[Any, int, int]:
        # The length is part of the compiled loop.
        return chooser_for(options), options.rows, options.max_words

    def _new_loop(self, options: DecodingOptions, xla: bool = False) -> DecodingLoop:
        return DecodingLoop(
            self.model,
            chooser_for(options),
            options.rows,
            alternatives=ALTERNATIVES + 1,
            unfinished=self.vocabulary.encode(" ".join(UNFINISHED)),
            function_words=self.vocabulary.encode(" ".join(FUNCTION_WORDS)),
            xla=xla,
        )

    def _captions(self, decoded: Decoded, image: int, options: DecodingOptions) -> list[Caption]:
        captions = []
        for row in _wanted_rows(decoded.words[image], options):
            ids = decoded.words[image, row].tolist()
            words = self.vocabulary.decode(ids)[: options.max_words]
            if len(words) == options.max_words:  # cut, perhaps behind "in the"
                while len(words) > 1 and words[-1] in UNFINISHED:
                    words.pop()
            n = len(words)
            maps = decoded.attention[image, row, :n]  # (n, locations)
            shape = (n, self.config.model.rows, self.config.model.columns)
            captions.append(
                Caption(
                    join_words(words),
                    words,
                    [float(x) for x in decoded.log_probs[image, row, :n]],
                    maps.reshape(shape),
                    self._alternatives(decoded, image, row, words),
                )
            )
        return sorted(captions, key=lambda c: -c.mean_log_prob)

    def _alternatives(
        self, decoded: Decoded, image: int, row: int, words: list[str]
    ) -> list[list[tuple[str, float]]]:
        alternatives = []
        for step, chosen in enumerate(words):
            ids = decoded.alternatives[image, row, step].tolist()
            log_probs = decoded.alternative_log_probs[image, row, step].tolist()
            pairs = zip((self.vocabulary.words[i] for i in ids), log_probs, strict=True)
            # A vocabulary may be so small that impossible words are among the likeliest.
            others = [(w, p) for w, p in pairs if w != chosen and p > IMPOSSIBLE / 2]
            alternatives.append(others[:ALTERNATIVES])
        return alternatives


def _wanted_rows(words: np.ndarray, options: DecodingOptions) -> list[int]:
    """Which of an image's rows to give, of words (rows, steps)."""
    rows = list(range(len(words)))
    if options.distinct:
        _, firsts = np.unique(words, axis=0, return_index=True)
        rows.sort(key=lambda row: row not in firsts)  # and in the order in which they were drawn
    return rows[: options.num_captions]


def find_checkpoint(checkpoint: str | os.PathLike, revision: str | None = None) -> Path:
    """The directory of a checkpoint: the one given, or the local copy of a Hub repository."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    return download(str(checkpoint), revision)
