"""The model on tiny sizes; runs under every backend (`make test-jax`)."""

import keras
import numpy as np
import pytest
from keras import ops

from captioner.config import ModelConfig
from captioner.data.vocabulary import PAD, START, UNK
from captioner.model.backend import compiles_whole_steps, copy_weights, set_random_seed
from captioner.model.caption_model import CaptionModel

BATCH, CAPTIONS, STEPS = 3, 2, 5
PLAIN = {"initial_state": "zeros", "gate": False, "deep_output": False}


def tiny_config(**changes) -> ModelConfig:
    sizes = {
        "vocabulary_size": 20,
        "rows": 2,
        "columns": 3,
        "channels": 7,
        "embedding_dim": 4,
        "units": 6,
        "attention_units": 5,
        "dropout": 0.0,
    }
    return ModelConfig(**(sizes | changes))


def seeded_model(config: ModelConfig, **arguments) -> CaptionModel:
    """Weights from NumPy, so that they are the same under every backend."""
    model = CaptionModel(config, **arguments)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if not variable.path.startswith("encoder/"):
            variable.assign(rng.normal(size=variable.shape) * 0.5)
    model.encoder.dense.kernel.assign(rng.normal(size=(config.channels, config.embedding_dim)))
    return model


@pytest.fixture
def inputs():
    rng = np.random.default_rng(1)
    words = rng.integers(4, 20, (BATCH, CAPTIONS, STEPS)).astype("int32")
    words[:, :, 0] = START
    return {"features": rng.normal(size=(BATCH, 6, 7)).astype("float32"), "words": words}


@pytest.mark.parametrize("changes", [{}, PLAIN])
def test_shapes(inputs, changes):
    logits = seeded_model(tiny_config(**changes))(inputs)
    assert tuple(logits.shape) == (BATCH, CAPTIONS, STEPS, 20)


def test_outputs_do_not_change(inputs):
    """Golden numbers: weights trained yesterday must mean the same tomorrow, or `CONFIG_VERSION`
    must be another."""
    logits = np.asarray(seeded_model(tiny_config())(inputs))
    expected = [1.33581, -0.64680, 1.03345, -0.50175]
    np.testing.assert_allclose(logits[1, 1, 4, :4], expected, atol=2e-4)


def test_the_state_is_carried_from_step_to_step(inputs):
    """The tutorial's GRU forgot everything but the last word; ours must not."""
    model = seeded_model(tiny_config(**PLAIN))
    other = {"features": inputs["features"], "words": inputs["words"].copy()}
    other["words"][:, :, 1] = 4 + (other["words"][:, :, 1] - 3) % 16
    a, b = np.asarray(model(inputs)), np.asarray(model(other))
    np.testing.assert_array_equal(a[:, :, 0], b[:, :, 0])  # before the change
    assert np.abs(a[:, :, 4] - b[:, :, 4]).max() > 1e-3  # three steps after it


def test_teacher_forcing_equals_stepping(inputs):
    model = seeded_model(tiny_config())
    at_once = np.asarray(model(inputs))
    annotations = model.encode(ops.convert_to_tensor(inputs["features"]))
    state = model.initial_state(annotations, CAPTIONS)
    for step in range(STEPS):
        embedded = model.embedding(inputs["words"][:, :, step])
        state, context, weights = model.step(annotations, state, embedded)
        logits = np.asarray(model.project(state, context, embedded))
        np.testing.assert_allclose(logits, at_once[:, :, step], atol=1e-5)
        np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, atol=1e-5)


def test_the_gru_is_that_of_keras(inputs):
    """The step is written by hand, because training takes the words' part of it for all steps."""
    model = seeded_model(tiny_config())
    annotations = model.encode(ops.convert_to_tensor(inputs["features"]))
    state = np.random.default_rng(2).normal(size=(BATCH, CAPTIONS, 6)).astype("float32")
    embedded = model.embedding(inputs["words"][:, :, 1])
    ours, context, _ = model.step(annotations, ops.convert_to_tensor(state), embedded)
    cell = keras.layers.GRUCell(6)
    read = np.concatenate([np.asarray(embedded), np.asarray(context)], axis=-1).reshape(-1, 8)
    cell.build(read.shape)
    cell.set_weights(model.gru.get_weights())
    theirs, _ = cell(read, [state.reshape(-1, 6)])
    np.testing.assert_allclose(np.asarray(ours).reshape(-1, 6), np.asarray(theirs), atol=1e-5)


def test_captions_of_an_image_do_not_see_each_other(inputs):
    model = seeded_model(tiny_config())
    alone = {"features": inputs["features"], "words": inputs["words"][:, 1:]}
    np.testing.assert_allclose(
        np.asarray(model(inputs))[:, 1:], np.asarray(model(alone)), atol=1e-5
    )


def test_captions_behind_each_other_do_not_see_each_other(inputs):
    model = seeded_model(tiny_config())
    one, other = inputs["words"][:, :1], inputs["words"][:, 1:2]
    row = {"features": inputs["features"], "words": np.concatenate([one, other], axis=-1)}
    apart = np.asarray(model(inputs))
    together = np.asarray(model(row))
    np.testing.assert_allclose(together[:, 0, :STEPS], apart[:, 0], atol=1e-5)
    np.testing.assert_allclose(together[:, 0, STEPS:], apart[:, 1], atol=1e-5)


def test_attention_bias_moves_the_attention(inputs):
    model = seeded_model(tiny_config())
    annotations = model.encode(ops.convert_to_tensor(inputs["features"]))
    state = model.initial_state(annotations, 1)
    bias = np.full((BATCH, 1, 6), -50.0, "float32")
    bias[:, :, 4] = 0
    _, weights = model.attention(annotations, state, bias)
    np.testing.assert_allclose(np.asarray(weights)[:, :, 4], 1, atol=1e-5)


def test_standardized_features_make_scale_and_offset_irrelevant(inputs):
    model = seeded_model(tiny_config())
    plain = np.asarray(model(inputs))
    model.encoder.standardize(3.0, 0.5)
    moved = {"features": inputs["features"] * 0.5 + 3.0, "words": inputs["words"]}
    np.testing.assert_allclose(np.asarray(model(moved)), plain, atol=1e-4)


def test_features_that_are_all_equal_give_numbers(inputs):
    model = seeded_model(tiny_config())
    features = np.ones_like(inputs["features"])
    model.encoder.standardize(1.0, 0.0)
    assert np.isfinite(np.asarray(model(inputs | {"features": features}))).all()


def test_loss_is_the_mean_over_real_words_only(inputs):
    model = seeded_model(tiny_config(), label_smoothing=0.3)
    targets = np.random.default_rng(2).integers(4, 20, (BATCH, CAPTIONS, STEPS)).astype("int32")
    targets[0, 1, 2:] = PAD
    targets[2] = PAD  # an image that only fills up the batch
    logits = np.asarray(model(inputs), dtype=np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    real = targets != PAD
    nll, uniform = -chosen[real].mean(), -log_probs[real].mean()
    plain = model.compute_loss(y=targets, y_pred=ops.convert_to_tensor(logits), training=False)
    smooth = model.compute_loss(y=targets, y_pred=ops.convert_to_tensor(logits), training=True)
    assert float(plain) == pytest.approx(nll, rel=1e-5)
    assert float(smooth) == pytest.approx(0.7 * nll + 0.3 * uniform, rel=1e-5)
    assert float(model.nll.result()) == pytest.approx(nll, rel=1e-5)


def test_weighted_captions_are_those_of_the_sampled_distribution(inputs):
    """In self-critical training, special tokens are never sampled: pushing a word down must not
    push them up, where no reward would ever see it."""
    model = seeded_model(tiny_config())
    targets = np.random.default_rng(2).integers(4, 20, (BATCH, CAPTIONS, STEPS)).astype("int32")
    logits = np.asarray(model(inputs))
    weights = np.array([[1.0, -1.0]] * BATCH, "float32")

    def loss(logits) -> float:
        y_pred = ops.convert_to_tensor(logits)
        return float(model.compute_loss(y=targets, y_pred=y_pred, sample_weight=weights))

    moved = logits.copy()
    moved[..., [PAD, START, UNK]] += 7.0
    assert loss(moved) == pytest.approx(loss(logits), rel=1e-5)
    sayable = np.delete(logits.astype(np.float64), [PAD, START, UNK], axis=-1)
    chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    nll = np.log(np.exp(sayable).sum(-1)) - chosen
    assert loss(logits) == pytest.approx((nll * weights[..., None]).mean(), rel=1e-4, abs=1e-5)


def test_it_learns_by_heart(inputs):
    set_random_seed(0)
    model = CaptionModel(tiny_config(units=32, dropout=0.0))
    model.compile(optimizer=keras.optimizers.Adam(0.02), jit_compile=compiles_whole_steps())
    targets = np.concatenate([inputs["words"][:, :, 1:], inputs["words"][:, :, :1] + 3], axis=-1)
    first = model.train_on_batch(inputs, targets, return_dict=True)["nll"]
    for _ in range(150):
        model.reset_metrics()
        last = model.train_on_batch(inputs, targets, return_dict=True)["nll"]
    # An image's two captions start with different words, and nothing can tell which is meant.
    assert first > 2
    assert last == pytest.approx(np.log(2) / STEPS, abs=0.01)


def test_dropout_only_in_training(inputs):
    model = seeded_model(tiny_config(dropout=0.5))
    once, again = np.asarray(model(inputs)), np.asarray(model(inputs))
    np.testing.assert_array_equal(once, again)
    assert np.abs(np.asarray(model(inputs, training=True)) - once).max() > 1e-3


def test_it_trains_in_mixed_precision(inputs):
    model = CaptionModel(tiny_config(dropout=0.1), mixed_precision=True)
    model.compile(optimizer="adamw", jit_compile=compiles_whole_steps())
    first = model.train_on_batch(inputs, inputs["words"], return_dict=True)["nll"]
    assert first == pytest.approx(np.log(20), rel=0.2)  # untrained: all words alike
    assert keras.backend.standardize_dtype(model(inputs).dtype) == "float32"
    assert {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_weights} == {
        "float32"
    }


def test_mixed_precision_is_of_products_alone(inputs):
    """Weights, states and attention maps are float32, and differ from those of float32 by what a
    product of bfloat16 factors loses."""
    exact, mixed = (seeded_model(tiny_config(), mixed_precision=m) for m in (False, True))
    for model in (exact, mixed):
        annotations = model.encode(inputs["features"])
        state = model.initial_state(annotations, CAPTIONS)
        found = (
            *annotations,
            *model.step(annotations, state, model.embedding(inputs["words"][:, :, 1])),
        )
        assert {keras.backend.standardize_dtype(x.dtype) for x in found} == {"float32"}
        np.testing.assert_allclose(ops.sum(found[-1], axis=-1), 1, atol=1e-6)
    difference = np.abs(np.asarray(mixed(inputs)) - np.asarray(exact(inputs)))
    assert 1e-5 < difference.max() < 0.1


def test_copied_weights_are_in_memory_of_their_own(inputs):
    """Under JAX, `assign` shares a variable's memory, and a training step gives it away."""
    model, twin = seeded_model(tiny_config()), CaptionModel(tiny_config())
    copy_weights(twin, model)
    before = [np.array(v) for v in model.weights]
    twin.compile(optimizer="adam", jit_compile=compiles_whole_steps())
    twin.train_on_batch(inputs, inputs["words"])
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert np.abs(np.asarray(twin.weights[-1]) - before[-1]).max() > 0
