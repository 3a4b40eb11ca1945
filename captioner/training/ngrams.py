"""The n-grams of many captions as whole numbers, by a few operations on arrays.

An n-gram is a pair: the number of the (n - 1)-gram that it begins with, and its last word. Both
halves fit into one int64, whatever the size of the vocabulary, so two n-grams never share a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from captioner.data.vocabulary import PAD

ORDERS = 4
BASE = 2**31  # above every word id


@dataclass(frozen=True)
class NGrams:
    """Which n-grams of order 1 to `ORDERS` each of `captions` has, and how often.

    Each entry of `rows`, `grams` and `counts` (entries,) says that the caption number `rows[i]` has
    the n-gram number `grams[i]`, and how many times. `codes` are, for each order, the sorted pairs
    of beginning and last word; an n-gram's number is its place among them, behind all of lower
    orders.
    """

    captions: int
    rows: np.ndarray
    grams: np.ndarray
    counts: np.ndarray
    codes: Sequence[np.ndarray]

    @cached_property
    def distinct(self) -> int:
        """How many different n-grams there are."""
        return sum(map(len, self.codes))

    @cached_property
    def orders(self) -> np.ndarray:
        """int64 (distinct,): the order of each n-gram, from 0."""
        return np.repeat(np.arange(ORDERS), [len(c) for c in self.codes])

    def numbers_in(self, other: NGrams) -> np.ndarray:
        """int64 (distinct,): the number that each n-gram has in `other`, or -1 if it has none."""
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
    """The n-grams of `words`, int (captions, steps), with `PAD` behind the words of a caption."""
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
