"""Checks at once whether a data set can be trained on, before anything takes long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from captioner.data.captions_file import DatasetError
from captioner.data.records import Record
from captioner.data.words import best_rule, split_words

_SPLITS = 'give each photo a "split" ("train" or "val"), or give none a split'


def check_trainable(records: Sequence[Record], min_count: int = 1) -> None:
    """Checks that there are enough photos, captions and words.

    Args:
        records: The records of all splits.
        min_count: How often a word must occur in the training captions to be learnt.

    Raises:
        DatasetError: There are no photos of a split, no words in its captions, or in those of a
            data set's validation photos, or no words that occur often enough; the message says what
            to do.
    """
    train = [r for r in records if r.split == "train"]
    val = [r for r in records if r.split == "val"]
    if not train or not val:
        few = len(train) == len(records) < 5
        remedy = "at least five photos are needed to set one aside" if few else _SPLITS
        raise DatasetError(
            f"{len(train)} training and {len(val)} validation photos: both are needed; {remedy}."
        )
    parts = [("training photos", train)]
    for name in dict.fromkeys(r.dataset for r in val):  # each is validated by itself
        part = [r for r in val if r.dataset == name]
        parts.append(("validation photos" + f" of {name}" * bool(name), part))
    for what, part in parts:
        if not any(True for _ in _words(part)):
            raise DatasetError(
                f"no caption of the {len(part)} {what} has a word in it; check the column or field "
                "that the captions are read from."
            )
    if not _occurs(_words(train), min_count):
        raise DatasetError(
            f"no word occurs {min_count} times in the training captions, so none would be learnt; "
            "give more captions, or learn rarer words (--set training.min_count=1)."
        )


def _words(records: Iterable[Record]) -> Iterable[str]:
    captions = [caption for record in records for caption in record.captions]
    rule = best_rule(captions)
    return (word for caption in captions for word in split_words(caption, rule))


def _occurs(words: Iterable[str], times: int) -> bool:
    """Whether a word occurs `times` times, which is usually known after a few captions."""
    counts: Counter[str] = Counter()
    for word in words:
        counts[word] += 1
        if counts[word] >= times:
            return True
    return False
