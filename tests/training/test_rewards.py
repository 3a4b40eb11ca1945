"""CIDEr-D as a reward, against the COCO evaluation's own scorer and the plain way to write it."""

import dictionary_rewards as plain
import numpy as np
import pytest

from captioner.training.ngrams import find_ngrams
from captioner.training.rewards import CiderD, Overuse, padded


@pytest.fixture(scope="module")
def corpus() -> tuple[dict[str, list[list[int]]], dict[str, list[int]]]:
    """References and captions of 40 images, with words shared within an image."""
    rng = np.random.default_rng(0)
    references, captions = {}, {}
    for i in range(40):
        near = rng.integers(1, 61, 12)

        def say(near=near) -> list[int]:
            return rng.choice(near, rng.integers(1, 15)).tolist()

        references[str(i)] = [say() for _ in range(rng.integers(1, 6))]
        captions[str(i)] = say()
    captions["0"] = references["0"][0]
    captions["1"] = references["1"][0] * 3  # repeated words meet the clipping
    captions["2"] = [99, 98]  # words that no reference has
    return references, captions


def test_it_agrees_with_pycocoevalcap(corpus):
    scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer").CiderScorer()
    references, captions = corpus

    def text(ids):
        return " ".join(map(str, ids))

    for i in references:
        scorer += (text(captions[i]), [text(r) for r in references[i]])
    _, expected = scorer.compute_score()
    ours = CiderD(references).scores(list(captions), padded([*captions.values()])[:, None])[:, 0]
    # theirs takes the number of bigrams for the length, so differences in length agree for
    # captions of at least one word: all of these.
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert max(ours) > 1 and min(ours) == 0


def batch(captions: list[list[list[int]]]) -> np.ndarray:
    """(images, captions, steps)"""
    words = padded([caption for some in captions for caption in some])
    return words.reshape(len(captions), len(captions[0]), words.shape[-1])


@pytest.mark.parametrize("unit", [1, 100_003])  # word ids as large as a vocabulary may be
def test_they_are_the_scores_and_penalties_of_the_plain_way_to_write_them(corpus, unit):
    rng = np.random.default_rng(1)
    references = {i: [[unit * w for w in c] for c in said] for i, said in corpus[0].items()}
    # Words of the references and others that none has, at any length.
    said = [
        [[unit * w for w in rng.integers(1, 70, n)] for n in rng.integers(0, 20, 3)]
        + [[*references[i][0][:6], 7 * unit]]
        for i in references
    ]
    reward, expected = CiderD(references), plain.CiderD(references)
    ours = reward.scores(list(references), batch(said))
    theirs = [expected.scores(i, some) for i, some in zip(references, said, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert (ours > 1).sum() > 20
    some = [3, 1, 3]  # a batch may hold an image twice
    again = reward.scores([str(i) for i in some], batch(said)[some])
    np.testing.assert_allclose(again, ours[some], atol=1e-12)
    penalties = Overuse(reward.ngrams).penalties(batch(said))
    np.testing.assert_allclose(penalties, plain.Overuse(references).penalties(said), atol=1e-12)
    assert (penalties > 0).any() and (penalties < 0).any()


def test_the_empty_caption_scores_nothing(corpus):
    assert CiderD(corpus[0]).scores(["0"], batch([[[]]])).tolist() == [[0.0]]
    assert CiderD({"0": [[]]}).scores(["0"], batch([[[5, 6]]])).tolist() == [[0.0]]


def test_ending_in_the_wrong_place_costs(corpus):
    END = 1000
    references = {i: [[*c, END] for c in captions] for i, captions in corpus[0].items()}
    whole = references["0"][0]
    reward = CiderD(references)
    right, cut = reward.scores(["0"], batch([[whole, [*whole[:-2], END]]]))[0]
    assert right > cut


def test_overuse_is_of_what_is_said_of_other_photos_more_than_people_say_it():
    people = {str(i): [[4, 5], [6, 7 + i]] for i in range(10)}  # half of them say "4 5"
    overuse = Overuse(find_ngrams(padded([c for captions in people.values() for c in captions])))
    # Two captions of each of three photos: of the others' four, all, none and so on say "4 5".
    everywhere = overuse.penalties(batch([[[4, 5], [4, 5]]] * 3))
    np.testing.assert_allclose(everywhere, np.log((4 + 1) / (0.5 * 4 + 1)), rtol=1e-12)
    as_people = overuse.penalties(batch([[[4, 5], [50]], [[4, 5], [51]], [[4, 5], [52]]]))
    np.testing.assert_allclose(as_people, 0, atol=1e-12)
    here_alone = overuse.penalties(batch([[[60], [60]], [[61], [61]], [[62], [62]]]))
    np.testing.assert_allclose(here_alone, 0, atol=1e-12)  # its own photo's do not count
    too_rarely = overuse.penalties(batch([[[4, 5], [60]], [[61], [61]], [[62], [62]]]))
    assert too_rarely[0, 0] == pytest.approx(np.log(1 / 3)) and too_rarely[0, 1] == 0
    assert overuse.penalties(batch([[[]]])).tolist() == [[0.0]]
