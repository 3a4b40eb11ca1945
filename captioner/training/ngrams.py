"""The n-grams of many captions as whole numbers, found by a few operations on arrays.

An n-gram is encoded as a pair: the number of the (n - 1)-gram at its beginning, and its last word.
The pair fits into one int64 for any size of the vocabulary, so that two n-grams never have the same
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from captioner.data.vocabulary import PAD

ORDERS = 4
BASE = 2**31  # larger than every word id


@dataclass(frozen=True)
class NGrams:
    """The n-grams of order 1 to `ORDERS` in each of a number of captions.

    The caption number `rows[i]` has the n-gram number `grams[i]` `counts[i]` times. An n-gram's
    number is its position in `codes`, after all n-grams of lower orders.

    Args:
        captions: The number of captions.
        rows: int64 (entries,).
        grams: int64 (entries,).
        counts: int64 (entries,).
        codes: For each order, the sorted pairs of beginning and last word.
    """

    captions: int
    rows: np.ndarray
    grams: np.ndarray
    counts: np.ndarray
    codes: Sequence[np.ndarray]

    @cached_property
    def distinct(self) -> int:
        """The number of different n-grams."""
        return sum(map(len, self.codes))

    @cached_property
    def orders(self) -> np.ndarray:
        """The order of each n-gram, counted from 0: int64 (distinct,)."""
        return np.repeat(np.arange(ORDERS), [len(c) for c in self.codes])

    def numbers_in(self, other: NGrams) -> np.ndarray:
        """The number of each n-gram in `other`, or -1 if it is not there: int64 (distinct,)."""
        found, known, first = [], np.zeros(0, np.int64), 0
        for order, (mine, theirs) in enumerate(zip(self.codes, other.codes, strict=True)):
            if order:
                begin, word = np.divmod(mine, BASE)
                mine = np.where(known[begin] >= 0, known[begin] * BASE + word, -1)
            known = _places(mine, theirs)
            found.append(np.where(known >= 0, known + first, -1))
            first += len(theirs)
        return np.concatenate(found)


def find_ngrams(words: np.ndarray) -> NGrams:
    """Finds the n-grams of `words`, int (captions, steps), where `PAD` follows the words of a
    caption."""
    words = words.astype(np.int64)
    captions, steps = words.shape
    rows, grams, codes = [], [], []
    numbers = np.zeros((captions, steps + 1), np.int64)  # of the n-gram that begins at each word
    first = 0
    for order in range(min(ORDERS, steps)):
        row, step = np.nonzero(words[:, order:] != PAD)
        code = numbers[row, step] * BASE + words[row, step + order]
        distinct, number = np.unique(code, return_inverse=True)
        numbers[row, step] = number
        rows.append(row)
        grams.append(number + first)
        codes.append(distinct)
        first += len(distinct)
    codes += [np.zeros(0, np.int64)] * (ORDERS - len(codes))
    nothing = [np.zeros(0, np.int64)]
    place = np.concatenate(nothing + rows) * max(1, first) + np.concatenate(nothing + grams)
    place, counts = np.unique(place, return_counts=True)
    return NGrams(captions, place // max(1, first), place % max(1, first), counts, codes)


def _places(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The place of each value in a sorted array; -1 where it is missing."""
    if not len(among):
        return np.full(len(values), -1)
    place = np.minimum(np.searchsorted(among, values), len(among) - 1)
    return np.where(among[place] == values, place, -1)
