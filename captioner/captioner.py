"""`Captioner` turns photos into captions. The app, the evaluation and users call it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from captioner.checkpoint.checkpoint_folder import Checkpoint, read_checkpoint
from captioner.checkpoint.hub import find_checkpoint, push, save_checkpoint
from captioner.data.images import ImageSource, load_image, to_network_input
from captioner.data.vocabulary import UNK
from captioner.data.words import join_words
from captioner.errors import CaptionerError
from captioner.model.decoding import (
    IMPOSSIBLE,
    Decoded,
    DecodingLoop,
    SearchInputs,
    chooser_for,
    decode,
    search_inputs,
)
from captioner.model.decoding_options import DEFAULTS, DecodingOptions, OptionError
from captioner.model.features import FeatureExtractor
from captioner.model.function_words import FUNCTION_WORDS, UNFINISHED
from captioner.model.steering import Region, attention_bias

ALTERNATIVES = 5  # other words kept for each word


@dataclass(frozen=True)
class Caption:
    """One caption of one photo, with the model's attention for each word."""

    text: str
    words: list[str]
    log_probs: list[float]  # one per word, natural logarithm, before temperature
    attention: np.ndarray  # float32 (n_words, rows, columns), each map sums to 1
    # For each word, the most probable other words in its place, with the natural logarithms of
    # their probabilities, best first.
    alternatives: list[list[tuple[str, float]]] = field(default_factory=list)

    @property
    def mean_log_prob(self) -> float:
        """The mean of `log_probs`, by which captions are ordered."""
        return float(np.mean(self.log_probs))


class ForkError(CaptionerError, RuntimeError):
    """A `Captioner` was used in a forked child of the process that made it."""


class Captioner:
    """Captions photos with a checkpoint.

    Example:
        captioner = Captioner.from_pretrained("assets/checkpoint")
        captions = captioner.caption("photo.jpg", num_captions=3)
    """

    def __init__(
        self, checkpoint: Checkpoint, batch_size: int = 32, folder: Path | None = None
    ) -> None:
        self.folder = folder  # the checkpoint directory, if there is one
        self.config = checkpoint.config
        self.vocabulary = checkpoint.vocabulary
        self.model = checkpoint.model
        self.extractor = FeatureExtractor(checkpoint.backbone, batch_size)
        self._loops: dict[tuple[Any, int, int], DecodingLoop] = {}
        self._process = os.getpid()

    @classmethod
    def from_pretrained(cls, checkpoint: str | os.PathLike, revision: str | None = None) -> Self:
        """Loads a checkpoint.

        Args:
            checkpoint: A checkpoint directory, or a repository USER/NAME on the Hugging Face Hub.
            revision: A branch, tag or commit on the Hub.

        Raises:
            CheckpointError: The checkpoint cannot be used; the message says why.
        """
        folder = find_checkpoint(checkpoint, revision)
        return cls(read_checkpoint(folder), folder=folder)

    def save_pretrained(self, directory: str | os.PathLike) -> Path:
        """Writes the checkpoint into `directory`, from which `from_pretrained` can load it.

        The model card and the scores of a captioner made by `from_pretrained` are copied. A
        checkpoint that was in the directory is replaced.

        Raises:
            CheckpointError: `directory` contains files that do not belong to a checkpoint.
            OSError: `directory` cannot be written to.
        """
        parts = Checkpoint(self.config, self.vocabulary, self.model, self.extractor.backbone)
        return save_checkpoint(parts, Path(directory), copy_of=self.folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publishes the checkpoint as USER/NAME on the Hugging Face Hub, in one commit.

        The options are those of `hub.push`: `private`, `revision`, `token`, `replace_card`.
        Returns the address of the commit. Raises `HubError` if the checkpoint was not pushed.
        """
        if self.folder is not None:
            return push(self.folder, repo_id, **options)
        with tempfile.TemporaryDirectory() as folder:
            return push(self.save_pretrained(Path(folder) / "checkpoint"), repo_id, **options)

    def caption(
        self,
        image: ImageSource,
        num_captions: int = DEFAULTS.num_captions,
        strategy: str = DEFAULTS.strategy,
        temperature: float = DEFAULTS.temperature,
        top_k: int | None = DEFAULTS.top_k,
        top_p: float | None = DEFAULTS.top_p,
        beam_width: int = DEFAULTS.beam_width,
        seed: int = DEFAULTS.seed,
        *,
        prefix: str = "",
        region: Region | None = None,
        leak: float | None = None,
        **more: Any,
    ) -> list[Caption]:
        """Captions one photo.

        Args:
            image: A path, the bytes of a file, a PIL image, or a uint8 array (height, width, 3).
            num_captions: How many captions. Samples that equal another one word for word are left
                out, as long as there are enough others.
            strategy: "sample" draws words at random, "beam" searches for the most probable
                captions, "greedy" takes the most probable next word and gives one caption.
            temperature: For samples: values below 1 favour probable words, values above 1
                improbable ones.
            top_k: For samples: only the `top_k` most probable words can be drawn.
            top_p: For samples: only the fewest words that have this probability together can be
                drawn.
            beam_width: How many captions the beam search keeps at each step.
            seed: The same seed gives the same captions.
            prefix: Plain text that the captions begin with, such as "a man in". The model computes
                the probability and the attention of these words, too.
            region: Where to look: a box (left, top, right, bottom) in fractions of the photo, such
                as (0, 0, 0.5, 1) for its left half, or a mask (rows, columns) of non-negative
                weights. At every step, the attention weights are multiplied by it and normalised.
            leak: The factor on the attention outside the region, above 0 and at most 1. None
                chooses it by the region's size.
            **more: The other fields of `DecodingOptions`: `max_words`, `length_penalty`,
                `distinct`.

        Returns:
            The captions, those with the highest mean log-probability per word first.

        Raises:
            ImageError: The picture cannot be used.
            OptionError: An option is out of bounds, a word of `prefix` is not in the vocabulary,
                or `region` is neither a box nor a mask. It is a `ValueError`.
            ForkError: The `Captioner` was made before this process was forked.
        """
        search: dict[str, Any] = {
            "num_captions": num_captions,
            "strategy": strategy,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "beam_width": beam_width,
            "seed": seed,
        }
        return self.caption_batch(
            [image], prefix=prefix, region=region, leak=leak, **(search | more)
        )[0]

    def caption_batch(
        self,
        images: Sequence[ImageSource],
        options: DecodingOptions | None = None,
        *,
        prefix: str = "",
        region: Region | None = None,
        leak: float | None = None,
        **settings: Any,
    ) -> list[list[Caption]]:
        """Captions many photos, which go through the network together.

        Args:
            images: The photos, each as `caption` takes it.
            options: All options of the search; if it is given, `settings` has no effect.
            prefix: As in `caption`, for all photos.
            region: As in `caption`, for all photos.
            leak: As in `caption`.
            **settings: The options of `caption` by name, with the same defaults.

        Returns:
            For each photo its captions, best first.

        Raises:
            ImageError: One of the pictures cannot be used. None is captioned then.
            OptionError: As in `caption`, or `images` is a single photo.
        """
        # An open file gives its lines, and a photo as an array its rows.
        is_single = isinstance(images, str | bytes | os.PathLike) or hasattr(images, "read")
        is_single |= isinstance(images, np.ndarray) and images.ndim in (2, 3)
        if is_single or not isinstance(images, Iterable):
            raise OptionError(
                f"caption_batch takes a list of photos, not a {type(images).__name__}. Give "
                "caption_batch([photo]), or caption(photo) for one."
            )
        images = list(images)
        options = options or replace(DEFAULTS, **settings)
        forced = self.forced_words(prefix, options) if prefix else None
        bias = None if region is None else self.region_bias(region, leak)
        captions: list[list[Caption]] = []
        size = self.extractor.batch_size
        for start in range(0, len(images), size):
            some = [self.pixels(image) for image in images[start : start + size]]
            captions += self.caption_pixels(some, options, forced, bias)
        return captions

    def caption_pixels(
        self,
        pixels: Sequence[np.ndarray],
        options: DecodingOptions,
        forced: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> list[list[Caption]]:
        """Captions up to a batch of photos. Returns the captions of each photo, best first.

        Args:
            pixels: For each photo what the method `pixels` returns.
            options: All options of the search.
            forced: What `forced_words` returns; it applies to all photos.
            bias: What `region_bias` returns; it applies to all photos.
        """
        features = self.features_of_pixels(np.stack(pixels))
        repeated = (
            None if array is None else np.repeat(array, len(pixels), axis=0)
            for array in (forced, bias)
        )
        return self.caption_features(features, options, *repeated)

    def caption_features(
        self,
        features: np.ndarray,
        options: DecodingOptions,
        forced: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> list[list[Caption]]:
        """Captions images from their features. Returns the captions of each image, best first.

        Args:
            features: float16 (images, locations, channels).
            options: All options of the search.
            forced: int32 (images, rows, steps); `forced_words` makes it for one image.
            bias: float32 (images, 1, locations); `region_bias` makes it for one image.
        """
        return self.search(search_inputs(features, options, forced, bias), options)

    def search(self, inputs: SearchInputs, options: DecodingOptions) -> list[list[Caption]]:
        """`caption_features` with all inputs of the search given."""
        decoded = decode(self._loop(options), inputs.features, options, *inputs[1:])
        return [self._captions(decoded, i, options) for i in range(len(inputs.features))]

    def forced_words(self, prefix: str, options: DecodingOptions) -> np.ndarray:
        """The words that the captions of one photo begin with, as `decode` takes them.

        Returns:
            int32 (1, rows, steps): the ids of the words of `prefix`, then zeros.

        Raises:
            OptionError: The model does not know a word, or there are too many words.
        """
        words = self.vocabulary.split(prefix)
        unknown = [word for word in dict.fromkeys(words) if self.vocabulary.encode(word) == [UNK]]
        if unknown:
            raise OptionError(
                "the model does not know the "
                f"word{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}"
            )
        if len(words) > options.max_words:
            raise OptionError(
                f"the beginning has {len(words)} words, but a caption at most {options.max_words}"
            )
        forced = np.zeros((1, options.rows, options.max_words + 1), np.int32)
        forced[:, :, : len(words)] = self.vocabulary.encode(prefix)
        return forced

    def region_bias(self, region: Region, leak: float | None = None) -> np.ndarray:
        """A region of one photo as `decode` takes it, float32 (1, 1, locations).

        Raises `OptionError` like `steering.attention_bias`.
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
        """The features of up to a batch of photos, float16 (images, locations, channels).

        Raises `ImageError` if a picture cannot be used.
        """
        return self.features_of_pixels(np.stack([self.pixels(image) for image in images]))

    def pixels(self, image: ImageSource) -> np.ndarray:
        """The network's input for a photo, float32 (size, size, 3) in -1..1.

        Raises `ImageError` if the picture cannot be used.
        """
        return to_network_input(load_image(image), self.extractor.image_size)

    def features_of_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """The features of photos (images, size, size, 3) as `pixels` returns them."""
        self._require_own_process()
        # The page sends single photos, which should not take as long as a whole batch.
        return self.extractor(pixels) if len(pixels) == 1 else self.extractor.padded(pixels)

    def _require_own_process(self) -> None:
        """Raises `ForkError` in a forked child, which would wait forever for missing threads."""
        if os.getpid() != self._process:
            raise ForkError(
                "this Captioner was made before the process was forked, and does not work in the "
                "child. Use threads, caption_batch, or processes that start anew: "
                'multiprocessing.get_context("spawn").'
            )

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
            if len(words) == options.max_words:  # it is cut, perhaps after "in the"
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
            # In a very small vocabulary, impossible words are among the most probable ones.
            others = [(w, p) for w, p in pairs if w != chosen and p > IMPOSSIBLE / 2]
            alternatives.append(others[:ALTERNATIVES])
        return alternatives


def _wanted_rows(words: np.ndarray, options: DecodingOptions) -> list[int]:
    """The numbers of an image's rows to return, from the ids of their words (rows, steps)."""
    rows = list(range(len(words)))
    if options.distinct:
        _, firsts = np.unique(words, axis=0, return_index=True)
        rows.sort(key=lambda row: row not in firsts)  # stable: otherwise in the order of drawing
    return rows[: options.num_captions]
