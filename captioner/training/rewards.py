"""CIDEr-D as a reward. It is fast enough to be computed for every sampled caption of every step.

The score is that of Vedantam et al. 2015 (arXiv 1411.5726) in the form that the COCO evaluation
computes: clipped counts, a Gaussian penalty on the difference in length (sigma 6), n-grams up to 4.
It works on word ids, so that nothing has to be tokenized. The references' vectors are computed
once, and all captions of a batch are scored by a few operations on sorted arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from captioner.data.vocabulary import PAD
from captioner.training.ngrams import ORDERS, NGrams, find_ngrams

SIGMA = 6.0


class CiderD:
    """CIDEr-D with the references of a data set.

    If references and captions end with an end token, ending in the wrong place lowers the score.

    Args:
        references: For each image id, its captions as sequences of word ids.
    """

    def __init__(self, references: Mapping[str, Sequence[Sequence[int]]]) -> None:
        self.numbers = {image_id: number for number, image_id in enumerate(references)}
        words = padded([caption for captions in references.values() for caption in captions])
        self.counts = np.array([len(captions) for captions in references.values()], np.int64)
        self.first = np.cumsum(self.counts) - self.counts  # the row of each image's first reference
        self.ngrams = ngrams = find_ngrams(words)
        self.lengths = (words != PAD).sum(axis=-1)
        image = np.repeat(np.arange(len(self.counts)), self.counts)[ngrams.rows]
        place = image * ngrams.distinct + ngrams.grams
        document_frequency = np.bincount(
            np.unique(place) % max(1, ngrams.distinct), minlength=ngrams.distinct
        )
        self.log_images = math.log(max(1, len(references)))
        # The last entry, number -1, is for n-grams that no reference has.
        self.rarity = self.log_images - np.log(np.maximum(1, np.append(document_frequency, 0)))
        weights = ngrams.counts * self.rarity[ngrams.grams]
        self.norms = _norms(ngrams, weights)
        # Sorted, to find the references of an image that have an n-gram, and their weights.
        order = np.argsort(place, kind="stable")
        self.places, self.rows = place[order], ngrams.rows[order]
        self.weights = weights[order]

    def scores(self, image_ids: Sequence[str], words: np.ndarray) -> np.ndarray:
        """CIDEr-D of captions, times 10 as usual: 1.0 here is printed as 100 in tables.

        Args:
            image_ids: The ids of n images.
            words: int (n, captions, steps), the word ids of each image's captions, followed by
                `PAD`.

        Returns:
            float64 (n, captions).
        """
        images, captions, steps = words.shape
        image = np.repeat([self.numbers[i] for i in image_ids], captions)  # the image of each row
        words = words.reshape(images * captions, steps)
        ngrams = find_ngrams(words)
        number = ngrams.numbers_in(self.ngrams)
        weights = ngrams.counts * self.rarity[number][ngrams.grams]
        most = int(self.counts[image].max())
        products = self._products(ngrams, weights, number, image, most)  # (rows, most, ORDERS)
        # Images with fewer references are filled up with any reference, which is not counted.
        reference = np.arange(most)
        real = reference < self.counts[image][:, None]
        reference = np.where(real, self.first[image][:, None] + reference, 0)  # (rows, most)
        norms = _norms(ngrams, weights)[:, None] * self.norms[reference]
        cosines = np.divide(products, norms, out=np.zeros(products.shape), where=norms > 0)
        lengths = (words != PAD).sum(axis=-1)
        gauss = np.exp(-((lengths[:, None] - self.lengths[reference]) ** 2) / (2 * SIGMA**2))
        total = (cosines.sum(axis=-1) * gauss * real).sum(axis=-1)
        return (10 * total / (ORDERS * self.counts[image])).reshape(images, captions)

    def _products(
        self, ngrams: NGrams, weights: np.ndarray, number: np.ndarray, image: np.ndarray, most: int
    ) -> np.ndarray:
        """The clipped products of each caption's vector with those of its image's references, by
        order: (captions, most, ORDERS)."""
        number = number[ngrams.grams]
        known = np.flatnonzero(number >= 0)
        place = image[ngrams.rows[known]] * self.ngrams.distinct + number[known]
        start, end = (np.searchsorted(self.places, place, side) for side in ("left", "right"))
        shared = end - start  # the number of the image's references with this n-gram
        mine = np.repeat(known, shared)
        behind = np.cumsum(shared) - shared
        theirs = np.repeat(start - behind, shared) + np.arange(len(mine))
        product = np.minimum(weights[mine], self.weights[theirs]) * self.weights[theirs]
        row = ngrams.rows[mine]
        which = self.rows[theirs] - self.first[image[row]]
        into = (row * most + which) * ORDERS + ngrams.orders[ngrams.grams[mine]]
        size = ngrams.captions * most * ORDERS
        return np.bincount(into, product, size).reshape(-1, most, ORDERS)


class Overuse:
    """A penalty on n-grams that the model uses more often than people do.

    A model that is rewarded for CIDEr-D learns phrases that fit many photos. If this penalty is
    subtracted from the reward, the frequencies of its phrases stay near those of people. The
    expected penalty is the Kullback-Leibler divergence of the two (Kullback and Leibler 1951).

    Args:
        people: The n-grams of the captions by people.
    """

    def __init__(self, people: NGrams) -> None:
        self.people = people
        # The number of captions with each n-gram. The last entry, number -1, is for all others.
        self.frequency = np.bincount(people.grams, minlength=people.distinct + 1)
        self.captions = max(1, people.captions)

    def penalties(self, words: np.ndarray) -> np.ndarray:
        """Computes how much more often the model uses the n-grams of each caption than people do.

        Args:
            words: int (images, captions, steps), the word ids of the captions of a batch of
                images, followed by `PAD`.

        Returns:
            float64 (images, captions): the mean of log(n / m) over the n-grams of a caption. n is
            the number of captions of the other images that have the n-gram, and m is the number
            expected if people had written them. One is added to both, because of rare n-grams.
        """
        images, captions, steps = words.shape
        ngrams = find_ngrams(words.reshape(images * captions, steps))
        rows, grams = ngrams.rows, ngrams.grams
        total = np.bincount(grams, minlength=ngrams.distinct)
        place = rows // captions * ngrams.distinct + grams  # by image
        _, inverse, own = np.unique(place, return_inverse=True, return_counts=True)
        share = (images - 1) * captions / self.captions  # others' captions, per caption by people
        number = ngrams.numbers_in(self.people)
        frequency = self.frequency[number] * share
        ratios = np.log((total[grams] - own[inverse] + 1) / (frequency[grams] + 1))
        sums = np.bincount(rows, ratios, images * captions)
        counts = np.bincount(rows, minlength=images * captions)
        return (sums / np.maximum(1, counts)).reshape(images, captions)


def padded(captions: Sequence[Sequence[int]]) -> np.ndarray:
    """The captions as int64 (captions, steps), with `PAD` after the words of the shorter ones."""
    words = np.full((len(captions), max(map(len, captions), default=0)), PAD, np.int64)
    for row, caption in zip(words, captions, strict=True):
        row[: len(caption)] = caption
    return words


def _norms(ngrams: NGrams, weights: np.ndarray) -> np.ndarray:
    """The Euclidean norm of each caption's weights, by order: (captions, ORDERS)."""
    place = ngrams.rows * ORDERS + ngrams.orders[ngrams.grams]
    squares = np.bincount(place, weights**2, ngrams.captions * ORDERS)
    return np.sqrt(squares).reshape(-1, ORDERS)
