"""Decoding: choosers on a toy alphabet, the loop on a tiny model; runs under every backend."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops
from test_caption_model import seeded_model, tiny_config
from toy import toy_captioner

from captioner.data.vocabulary import END, PAD, START, UNK
from captioner.errors import CaptionerError
from captioner.model.decoder_interface import Decoder
from captioner.model.decoding import (
    IMPOSSIBLE,
    Carry,
    DecodingLoop,
    choose_by_chance,
    choose_by_filtered_chance,
    choose_greedily,
    chooser_for,
    decode,
    uniforms,
)
from captioner.model.decoding_options import STRATEGIES, DecodingOptions

# Words of a toy alphabet of seven; those with IMPOSSIBLE must never come out.
TOY = np.full(7, IMPOSSIBLE, np.float32)
TOY[[2, 4, 5, 6]] = np.log([0.1, 0.5, 0.25, 0.15])


def carry_at(step: int, rows: int) -> Carry:
    nothing = np.zeros((1, rows), np.float32)
    return Carry(np.int32(step), nothing, nothing, nothing, nothing > 0, *[nothing] * 5)


def chance(chooser, draws, temperature=1.0, top_k=2**31 - 1, top_p=1.0) -> np.ndarray:
    """The words that `chooser` picks from TOY for each of `draws`."""
    draws = np.asarray(draws, np.float32)
    log_probs = np.broadcast_to(TOY, (1, len(draws), len(TOY)))
    inputs = {
        "draws": ops.convert_to_tensor(draws[None, :, None]),
        "temperature": np.float32([temperature]),
        "top_k": np.int32([top_k]),
        "top_p": np.float32([top_p]),
    }
    words, parents = chooser(ops.convert_to_tensor(log_probs), carry_at(0, len(draws)), inputs)
    assert parents is None
    return np.asarray(words)[0]


def shares(words: np.ndarray) -> dict[int, float]:
    return {int(w): float(np.mean(words == w)) for w in np.unique(words)}


EVEN = (np.arange(2000) + 0.5) / 2000


def test_greedy_takes_the_most_probable():
    words, _ = choose_greedily(ops.convert_to_tensor(TOY[None, None]), carry_at(0, 1), {})
    assert np.asarray(words).tolist() == [[4]]


@pytest.mark.parametrize("chooser", [choose_by_chance, choose_by_filtered_chance])
def test_words_are_drawn_with_their_probability(chooser):
    expected = {2: 0.1, 4: 0.5, 5: 0.25, 6: 0.15}
    assert shares(chance(chooser, EVEN)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("chooser", [choose_by_chance, choose_by_filtered_chance])
def test_temperature_sharpens(chooser):
    squares = {2: 0.01, 4: 0.25, 5: 0.0625, 6: 0.0225}
    expected = {w: p / sum(squares.values()) for w, p in squares.items()}
    assert shares(chance(chooser, EVEN, temperature=0.5)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("chooser", [choose_by_chance, choose_by_filtered_chance])
def test_extreme_draws_never_give_an_impossible_word(chooser):
    words = chance(chooser, [0.0, np.nextafter(np.float32(1), np.float32(0))])
    assert set(words.tolist()) <= {2, 4, 5, 6}


def test_top_k_and_top_p():
    kept = {4: 0.5 / 0.75, 5: 0.25 / 0.75}
    by_k = shares(chance(choose_by_filtered_chance, EVEN, top_k=2))
    assert by_k == pytest.approx(kept, abs=2e-3)
    # 0.5 alone does not reach 0.6, so the nucleus takes one word more.
    by_p = shares(chance(choose_by_filtered_chance, EVEN, top_p=0.6))
    assert by_p == pytest.approx(kept, abs=2e-3)
    assert set(chance(choose_by_filtered_chance, EVEN, top_p=1e-6)) == {4}


@pytest.fixture(scope="module")
def model():
    return seeded_model(tiny_config())


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(3).normal(size=(4, 6, 7)).astype(np.float32)


def run(model, features, **settings):
    options = DecodingOptions(**({"max_words": 4} | settings))
    return decode(DecodingLoop(model, chooser_for(options), options.rows), features, options)


def log_probability(model, features, ids) -> np.ndarray:
    """The log-probability of each word of one caption of one image, by teacher forcing."""
    words = np.array([[[START, *ids[:-1]]]], np.int32)
    logits = np.asarray(model({"features": features[None], "words": words}))[0, 0]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_probs[np.arange(len(ids)), list(ids)]


@pytest.mark.parametrize("strategy", ["sample", "greedy", "beam"])
def test_what_every_strategy_must_keep(model, features, strategy):
    decoded = run(model, features, strategy=strategy, num_captions=3, max_words=8)
    assert decoded.words.shape == decoded.log_probs.shape == decoded.attention.shape[:3]
    for image, row in np.ndindex(decoded.words.shape[:2]):
        ids = decoded.words[image, row].tolist()
        length = ids.index(END) + 1 if END in ids else len(ids)
        assert not {PAD, START, UNK} & set(ids[:length]), "a special token was said"
        assert ids[0] != END, "an empty caption"
        assert set(ids[length:]) <= {PAD}
        maps = decoded.attention[image, row]
        np.testing.assert_allclose(maps[:length].sum(-1), 1, atol=1e-5)
        expected = log_probability(model, features[image], ids[:length])
        np.testing.assert_allclose(decoded.log_probs[image, row, :length], expected, atol=1e-4)


def test_greedy_is_the_best_word_at_each_step(model, features):
    ids = run(model, features[:1], strategy="greedy").words[0, 0].tolist()
    for step in range(4):
        options = [
            (log_probability(model, features[0], [*ids[:step], w])[-1], w)
            for w in range(20)
            if w not in (PAD, START, UNK) and (step or w != END)
        ]
        assert max(options)[1] == ids[step]
        if ids[step] == END:
            break


def test_a_wide_beam_finds_the_best_caption_there_is(model, features):
    """Against exhaustive search over all captions of up to two words."""
    words = [w for w in range(20) if w not in (PAD, START, UNK, END)]
    captions = [[*c, END] for n in (1, 2) for c in itertools.product(words, repeat=n)]
    captions += [list(c) for c in itertools.product(words, repeat=3)]
    penalty = DecodingOptions().length_penalty
    scored = [
        (log_probability(model, features[0], c).sum() / len(c) ** penalty, c)
        for c in captions[:272]
    ]
    best = max(scored)[1]
    found = run(
        model, features[:1], strategy="beam", beam_width=100, num_captions=100, max_words=2
    ).words[0]
    complete = [f.tolist() for f in found if END in f]
    assert [w for w in complete[0] if w != PAD] == best


def test_beam_rows_differ_and_beam_of_one_is_greedy(model, features):
    wide = run(model, features, strategy="beam", beam_width=5, num_captions=5).words
    for rows in wide:
        assert len({tuple(r) for r in rows.tolist()}) == 5
    narrow = run(model, features, strategy="beam", beam_width=1, num_captions=1)
    greedy = run(model, features, strategy="greedy")
    np.testing.assert_array_equal(narrow.words, greedy.words)


def test_seeds(model, features):
    once = run(model, features, num_captions=4, seed=1, temperature=2.0).words
    again = run(model, features, num_captions=4, seed=1, temperature=2.0).words
    other = run(model, features, num_captions=4, seed=2, temperature=2.0).words
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    alone = run(model, features[2:3], num_captions=4, seed=1, temperature=2.0).words
    np.testing.assert_array_equal(once[2], alone[0])  # the batch does not matter
    fewer = run(model, features, num_captions=2, seed=1, temperature=2.0).words
    np.testing.assert_array_equal(once[:, :2], fewer)  # nor how many are asked for


def test_uniforms_are_uniform():
    draws = uniforms(0, 1, 200, 50)
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01 and abs(draws.std() - 12**-0.5) < 0.01


@pytest.mark.parametrize("strategy", ["sample", "greedy", "beam"])
def test_forced_words_come_out_and_the_rest_is_free(model, features, strategy):
    options = DecodingOptions(strategy, num_captions=3, max_words=5)
    forced = np.zeros((4, options.rows, 6), np.int32)
    forced[:, :, :2] = [9, 5]
    loop = DecodingLoop(model, chooser_for(options), options.rows)
    decoded = decode(loop, features, options, forced=forced)
    assert (decoded.words[:, :, :2] == [9, 5]).all()
    expected = log_probability(model, features[1], [9, 5])
    np.testing.assert_allclose(decoded.log_probs[1, 0, :2], expected, atol=1e-4)


def test_a_bias_steers_the_attention(model, features):
    options = DecodingOptions("greedy")
    bias = np.full((4, 1, 6), -50, np.float32)
    bias[:, :, 2] = 0
    loop = DecodingLoop(model, chooser_for(options), 1)
    decoded = decode(loop, features, options, bias=bias)
    np.testing.assert_allclose(decoded.attention[:, 0, 0, 2], 1, atol=1e-5)


@pytest.mark.parametrize("strategy", ["sample", "greedy", "beam"])
def test_alternatives_are_the_likeliest_words(model, features, strategy):
    options = DecodingOptions(strategy, max_words=4)
    loop = DecodingLoop(model, chooser_for(options), options.rows, alternatives=3)
    bias = np.random.default_rng(4).normal(size=(4, 1, 6)).astype(np.float32)
    decoded = decode(loop, features, options, bias=bias)
    assert decoded.alternatives.shape == (4, options.rows, 5, 3)
    for image, row in np.ndindex(decoded.words.shape[:2]):
        for step, word in enumerate(decoded.words[image, row]):
            if word in (END, PAD):
                break
            ids = decoded.alternatives[image, row, step].tolist()
            values = decoded.alternative_log_probs[image, row, step].tolist()
            assert values == sorted(values, reverse=True) and len(set(ids)) == 3
            assert not {PAD, START, END, UNK} & set(ids)
            said = decoded.log_probs[image, row, step]
            if word in ids:
                assert values[ids.index(word)] == pytest.approx(said, abs=1e-5)
            else:
                assert values[-1] >= said - 1e-5
            if strategy == "greedy":
                assert ids[0] == word
    # Said instead, an alternative has the probability that was announced for it.
    forced = np.zeros((4, options.rows, 5), np.int32)
    forced[:, :, 0] = decoded.alternatives[:, :1, 0, 1]
    again = decode(loop, features, options, forced=forced, bias=bias)
    expected = decoded.alternative_log_probs[:, 0, 0, 1]
    np.testing.assert_allclose(again.log_probs[:, 0, 0], expected, atol=1e-5)


def test_numbers_of_numpy_are_numbers():
    options = DecodingOptions(
        seed=np.int64(3), top_k=np.uint8(4), temperature=np.float32(0.5), top_p=np.float64(1)
    )
    assert options == DecodingOptions(seed=3, top_k=4, temperature=0.5, top_p=1)
    assert json.dumps(dataclasses.asdict(options)), "they are saved beside scores"


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "best"},
        {"num_captions": np.float64(3)},
        {"seed": np.bool_(True)},
        {"num_captions": 0},
        {"num_captions": 2.5},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"beam_width": 0},
        {"seed": -1},
        {"distinct": None},
        {"distinct": "no"},
    ],
)
def test_bad_options_are_named(settings):
    with pytest.raises(CaptionerError, match=next(iter(settings))) as caught:
        DecodingOptions(**settings)
    assert isinstance(caught.value, ValueError)


def test_what_decoding_needs_of_a_model_is_written_down(model):
    """Nothing else: with a model that has just that, every strategy decodes."""
    names = {n for n in vars(Decoder) if not n.startswith("_")} | set(Decoder.__annotations__)

    class Only(keras.Model):
        def __getattr__(self, name):
            if name not in names:
                raise AttributeError(name)
            return getattr(vars(self)["inner"][0], name)

    only = Only()
    vars(only)["inner"] = (model,)
    assert isinstance(toy_captioner(0, glance=False).model, Decoder)
    assert isinstance(model, Decoder)
    features = np.random.default_rng(3).normal(size=(2, 6, 7)).astype(np.float32)
    for strategy in STRATEGIES:
        given = run(only, features, strategy=strategy).words
        assert (given == run(model, features, strategy=strategy).words).all()


@pytest.mark.parametrize("strategy", ["sample", "beam"])
def test_captions_do_not_end_after_unfinished_words(features, strategy):
    options = DecodingOptions(strategy, num_captions=20, temperature=2.0, max_words=8)
    model = seeded_model(tiny_config())
    bias = np.array(model.logits.bias)
    bias[END] += 4  # or its beams would not end in time
    model.logits.bias.assign(bias)

    def last_words(unfinished=()) -> set[int]:
        loop = DecodingLoop(model, chooser_for(options), options.rows, unfinished=unfinished)
        words = decode(loop, features, options).words
        rows = [row for row in words.reshape(-1, words.shape[-1]).tolist() if END in row]
        return {row[row.index(END) - 1] for row in rows}

    usual = last_words()
    assert usual
    some = sorted(usual)[: max(1, len(usual) // 2)]
    assert not last_words(some) & set(some)


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
def test_only_repeatable_words_are_said_more_than_once(model, features, strategy):
    options = DecodingOptions(strategy, num_captions=20, temperature=2.0, max_words=12)

    def repeated(**limits) -> set[int]:
        """Words that a caption says more than once."""
        loop = DecodingLoop(model, chooser_for(options), options.rows, **limits)
        words = decode(loop, features, options).words
        rows = [[w for w in row if w != PAD] for row in words.reshape(-1, words.shape[-1]).tolist()]
        return {word for row in rows for word in row if row.count(word) > 1}

    usual = sorted(repeated())
    assert len(usual) > 1
    found = repeated(repeatable=usual[:1])
    assert found <= {usual[0]}
    if strategy == "sample":  # the others may find something better than to repeat this word
        assert found


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
def test_no_word_is_said_twice_in_a_row(features, strategy):
    options = DecodingOptions(strategy, num_captions=20, temperature=2.0, max_words=12)
    model = seeded_model(tiny_config())
    model.embedding.embeddings.assign(0 * model.embedding.embeddings)  # it forgets what it said

    def said_twice(**limits) -> bool:
        loop = DecodingLoop(model, chooser_for(options), options.rows, **limits)
        words = decode(loop, features, options).words
        return bool(((words[..., 1:] == words[..., :-1]) & (words[..., 1:] != PAD)).any())

    assert said_twice()
    assert not said_twice(repeatable=range(model.config.vocabulary_size))


def test_words_that_are_asked_for_may_repeat_each_other(model, features):
    options = DecodingOptions("beam", num_captions=1, beam_width=3, max_words=6)
    loop = DecodingLoop(model, chooser_for(options), options.rows, repeatable=[UNK + 1])
    forced = np.zeros((len(features), options.rows, 7), np.int32)
    forced[:, :, :4] = [UNK + 2, UNK + 3, UNK + 2, UNK + 3]
    decoded = decode(loop, features, options, forced=forced)
    assert (decoded.words[:, 0, :4] == forced[:, 0, :4]).all()
    assert (decoded.log_probs[:, 0, :4] > IMPOSSIBLE / 2).all()
