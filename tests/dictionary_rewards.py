"""CIDEr-D and overuse written plainly, with dictionaries of tuples: what `training/rewards.py` has
to agree with, and what `benchmarks/rewards.py` measures it against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

ORDERS = 4
SIGMA = 6.0

NGrams = Counter[tuple[int, ...]]


class CiderD:
    """CIDEr-D against the references of a data set: `references[image_id]` is a list of captions,
    each a sequence of word ids. Put an end token on references and captions alike, and stopping in
    the wrong place costs reward too."""

    def __init__(self, references: Mapping[str, Sequence[Sequence[int]]]) -> None:
        self.references = references
        self.document_frequency: NGrams = Counter()
        for captions in references.values():
            self.document_frequency.update({g for c in captions for g in ngrams(c)})
        self.log_images = math.log(max(1, len(references)))

    def scores(self, image_id: str, captions: Sequence[Sequence[int]]) -> np.ndarray:
        """float64 (len(captions),): the score of each as a caption of `image_id`, times 10 as is
        usual, so that 1.0 is what tables print as 100."""
        vectors = [self._vector(c) for c in self.references[image_id]]
        return np.array([self._score(self._vector(c), vectors) for c in captions])

    def _vector(self, caption: Sequence[int]) -> tuple[dict, list[float], int]:
        """TF-IDF weights of the n-grams, their norm by order, and the length."""
        weights = {}
        norms = [0.0] * ORDERS
        for gram, count in ngrams(caption).items():
            rarity = self.log_images - math.log(max(1, self.document_frequency[gram]))
            weights[gram] = count * rarity
            norms[len(gram) - 1] += weights[gram] ** 2
        return weights, [math.sqrt(n) for n in norms], len(caption)

    def _score(self, caption: tuple, references: Sequence[tuple]) -> float:
        weights, norms, length = caption
        total = 0.0
        for theirs, their_norms, their_length in references:
            products = [0.0] * ORDERS
            for gram, weight in weights.items():
                other = theirs.get(gram)
                if other is not None:
                    products[len(gram) - 1] += min(weight, other) * other
            cosines = sum(
                p / (a * b) for p, a, b in zip(products, norms, their_norms, strict=True) if a and b
            )
            total += cosines * math.exp(-((length - their_length) ** 2) / (2 * SIGMA**2))
        return 10 * total / (ORDERS * len(references))


class Overuse:
    """How much more often n-grams are said of other photos than people say them.

    A model that is rewarded for CIDEr-D comes to say what fits many photos. Taken off its reward,
    this keeps the frequencies of its phrases near those of the `references`, which are captions as
    for `CiderD`: in expectation, it is a divergence of the two (Kullback and Leibler 1951).
    """

    def __init__(self, references: Mapping[str, Sequence[Sequence[int]]]) -> None:
        captions = [c for some in references.values() for c in some]
        self.frequency: NGrams = Counter()  # captions of people that hold it
        for caption in captions:
            self.frequency.update(set(ngrams(caption)))
        self.captions = max(1, len(captions))

    def penalties(self, said: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
        """How much more often than people the model uses the n-grams of each caption.

        Args:
            said: Captions of a batch of images, equally many for each, as word ids.

        Returns:
            float64 (images, captions): the mean over a caption's n-grams of log(n / m), where n
            counts the captions of the other images with that n-gram, and m is how many it would be
            if people had written them. One is added to both, because of rare n-grams.
        """
        grams = [[set(ngrams(c)) for c in captions] for captions in said]
        own = [Counter(g for caption in captions for g in caption) for captions in grams]
        total: NGrams = Counter()
        for counts in own:
            total.update(counts)
        share = sum(map(len, grams[1:])) / self.captions  # the captions of others, to people's

        def penalty(caption: set[tuple[int, ...]], mine: NGrams) -> float:
            ratios = [
                math.log((total[g] - mine[g] + 1) / (self.frequency[g] * share + 1))
                for g in caption
            ]
            return sum(ratios) / max(1, len(ratios))

        return np.array(
            [
                [penalty(c, mine) for c in captions]
                for captions, mine in zip(grams, own, strict=True)
            ]
        )


def ngrams(caption: Sequence[int]) -> NGrams:
    """How often each n-gram of order 1 to 4 stands in a caption."""
    words = tuple(caption)
    return Counter(
        words[i : i + n] for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1)
    )
