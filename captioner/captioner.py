"""`Captioner` turns photos into captions. The app, the evaluation and users call it."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from captioner.checkpoint.checkpoint_folder import Checkpoint, read_checkpoint
from captioner.checkpoint.file_names import CONFIG
from captioner.checkpoint.hub import find_checkpoint, push, save_checkpoint
from captioner.data.images import ImageError, ImageSource, load_image, to_network_input
from captioner.errors import CaptionerError
from captioner.model.captions import ALTERNATIVES, Caption, captions_of
from captioner.model.decoding import (
    Decoded,
    DecodingLoop,
    SearchInputs,
    chooser_for,
    decode,
    search_inputs,
)
from captioner.model.decoding_options import DEFAULTS, DecodingOptions, OptionError
from captioner.model.features import FeatureExtractor
from captioner.model.function_words import UNFINISHED, repeatable_ids
from captioner.model.steering import Region, attention_bias


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets copies in another process read the checkpoint from its folder again, once.

        Raises `CaptionerError` if there is no folder.
        """
        if self.folder is None:
            raise CaptionerError(
                "this Captioner cannot be copied, because it was not read from a folder. Call "
                "save_pretrained, and let each process call from_pretrained."
            )
        return _read_again, (type(self), str(self.folder.resolve()))

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
            image: A path, the bytes of a file, an open binary file, a PIL image, or a uint8 array
                (height, width, 3).
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
            The captions, best first. Samples are ordered by their mean log-probability per word,
            captions of a beam search by its own ranking: the log-probability of the words and of
            the end, divided by length ** `length_penalty`.

        Raises:
            ImageError: The picture cannot be used.
            OptionError: An option is out of bounds, a word of `prefix` is not in the vocabulary,
                or `region` is neither a box nor a mask. It is a `ValueError`.
            ForkError: The `Captioner` was made before this process was forked.
        """
        options = replace(
            DEFAULTS,
            num_captions=num_captions,
            strategy=strategy,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            beam_width=beam_width,
            seed=seed,
            **more,
        )
        return self.caption_batch([image], options, prefix=prefix, region=region, leak=leak)[0]

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
            options: All options of the search; by default those of `caption`.
            prefix: As in `caption`, for all photos.
            region: As in `caption`, for all photos.
            leak: As in `caption`.
            **settings: Single options by name, which replace those in `options`.

        Returns:
            For each photo its captions, best first.

        Raises:
            ImageError: One of the pictures cannot be used; the message says which. No captions are
                returned then.
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
        options = replace(options or DEFAULTS, **settings)
        forced = self.forced_words(prefix, options) if prefix else None
        bias = None if region is None else self.region_bias(region, leak)
        captions: list[list[Caption]] = []
        size = self.extractor.batch_size
        for start in range(0, len(images), size):
            pixels: list[np.ndarray] = []
            for number, image in enumerate(images[start : start + size], start):
                try:
                    pixels.append(self.pixels(image))
                except ImageError as error:
                    if len(images) == 1:
                        raise
                    raise ImageError(f"images[{number}]: {error}") from error
            captions += self.caption_pixels(pixels, options, forced, bias)
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
        return self._captions(decoded, inputs, options)

    def forced_words(self, prefix: str, options: DecodingOptions) -> np.ndarray:
        """The words that the captions of one photo begin with, as `decode` takes them.

        Returns:
            int32 (1, rows, steps): the ids of the words of `prefix`, then zeros.

        Raises:
            OptionError: `prefix` is not text, the model does not know a word, or there are too
                many words.
        """
        if not isinstance(prefix, str):
            raise OptionError(f"prefix is {prefix!r}: it must be text, such as 'a man in'")
        words = self.vocabulary.split(prefix)
        unknown = [word for word in dict.fromkeys(words) if word not in self.vocabulary]
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
        forced[:, :, : len(words)] = self.vocabulary.ids(words)
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
        size = self.extractor.image_size
        pixels = np.empty((len(images), size, size, 3), np.float32)
        for place, image in zip(pixels, images, strict=True):
            place[:] = self.pixels(image)
        return self.features_of_pixels(pixels)

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
            unfinished=self.vocabulary.ids(UNFINISHED),
            repeatable=repeatable_ids(self.vocabulary),
            xla=xla,
        )

    def _captions(
        self, decoded: Decoded, inputs: SearchInputs, options: DecodingOptions
    ) -> list[list[Caption]]:
        grid = self.config.model.rows, self.config.model.columns
        begun = np.count_nonzero(inputs.forced[:, 0], axis=-1)  # given words of each image
        return [
            captions_of(decoded, image, options, self.vocabulary, grid, words)
            for image, words in enumerate(begun.tolist())
        ]


def _read_again(kind: type[Captioner], folder: str) -> Captioner:
    """Reads a captioner that comes from another process: once, although a pool sends it with each
    of its tasks."""
    path = Path(folder, CONFIG)  # it names the other files by their checksums
    content = path.read_bytes() if path.is_file() else b""
    return _kept(kind, folder, content, os.getpid())


@functools.lru_cache(maxsize=1)
def _kept(kind: type[Captioner], folder: str, config: bytes, process: int) -> Captioner:
    return kind.from_pretrained(folder)
