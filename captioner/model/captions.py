"""`Caption`, and how it is made from what the search returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from captioner.data.vocabulary import Vocabulary
from captioner.data.words import join_words
from captioner.model.decoding import IMPOSSIBLE, Decoded
from captioner.model.decoding_options import DecodingOptions
from captioner.model.function_words import UNFINISHED

ALTERNATIVES = 5  # other words kept for each word


@dataclass(frozen=True)
class Caption:
    """One caption of one photo, with the model's attention for each word."""

    text: str
    words: list[str]
    log_probs: list[float]  # one per word, natural logarithm, before temperature
    # float32 (n_words, rows, columns), each map sums to 1. `==` leaves it out, because arrays have
    # no single answer to it.
    attention: np.ndarray = field(compare=False)
    # For each word, the most probable other words in its place, with the natural logarithms of
    # their probabilities, best first.
    alternatives: list[list[tuple[str, float]]] = field(default_factory=list)

    @property
    def mean_log_prob(self) -> float:
        """The mean of `log_probs`, by which samples are ordered."""
        return float(np.mean(self.log_probs))


def captions_of(
    decoded: Decoded,
    image: int,
    options: DecodingOptions,
    vocabulary: Vocabulary,
    grid: tuple[int, int],
    begun: int = 0,
) -> list[Caption]:
    """The captions of an image, best first.

    Args:
        decoded: What the search has returned.
        image: The number of the image.
        options: The options of the search.
        vocabulary: The words of the model.
        grid: The rows and columns of an attention map.
        begun: How many words of each caption were given.
    """
    rows = [_words(ids, options, vocabulary, begun) for ids in decoded.words[image].tolist()]
    captions = []
    for row in _wanted_rows(rows, options):
        words = rows[row]
        n = len(words)
        # A copy, because a part would keep the maps of all rows and images in memory.
        maps = decoded.attention[image, row, :n].copy()  # (n, locations)
        captions.append(
            Caption(
                join_words(words),
                words,
                [float(x) for x in decoded.log_probs[image, row, :n]],
                maps.reshape(n, *grid),
                _alternatives(decoded, image, row, words, vocabulary),
            )
        )
    if options.is_beam:  # the search has ordered them, by the probability of their ends, too
        return captions
    return sorted(captions, key=lambda c: -c.mean_log_prob)


def _words(
    ids: Sequence[int], options: DecodingOptions, vocabulary: Vocabulary, begun: int
) -> list[str]:
    """The words of a caption. If it is cut after words such as "in the", these are left out,
    except for those that were given."""
    words = vocabulary.decode(ids)[: options.max_words]
    if len(words) == options.max_words:
        while len(words) > max(1, begun) and words[-1] in UNFINISHED:
            words.pop()
    return words


def _wanted_rows(words: Sequence[list[str]], options: DecodingOptions) -> list[int]:
    """The numbers of an image's rows to return, from the words of each row."""
    rows = list(range(len(words)))
    if options.distinct:
        # Sorting is stable, so that otherwise the rows stay in the order of drawing or of the beam.
        rows.sort(key=lambda row: words[row] in words[:row])
    return rows[: options.num_captions]


def _alternatives(
    decoded: Decoded, image: int, row: int, words: Sequence[str], vocabulary: Vocabulary
) -> list[list[tuple[str, float]]]:
    alternatives = []
    for step, chosen in enumerate(words):
        ids = decoded.alternatives[image, row, step].tolist()
        log_probs = decoded.alternative_log_probs[image, row, step].tolist()
        pairs = zip((vocabulary.words[i] for i in ids), log_probs, strict=True)
        # In a very small vocabulary, impossible words are among the most probable ones.
        others = [(w, p) for w, p in pairs if w != chosen and p > IMPOSSIBLE / 2]
        alternatives.append(others[:ALTERNATIVES])
    return alternatives
