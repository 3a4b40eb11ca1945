"""`tools/inception_2015.py` on random weights: the real ones need a download and PyTorch, and the
program itself compares the two networks then."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

SIZE = 75  # pixels: the least that InceptionV3 takes


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).parents[2] / "tools" / "inception_2015.py"
    specification = importlib.util.spec_from_file_location("inception_2015", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network():
    random = np.random.default_rng(0)
    network = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)
    )
    for norm in of_type(network, keras.layers.BatchNormalization):
        norm.beta.assign(random.normal(0, 0.5, norm.beta.shape))
        norm.moving_mean.assign(random.normal(0, 0.5, norm.beta.shape))
        norm.moving_variance.assign(random.uniform(0.5, 2, norm.beta.shape))
    return network


@pytest.fixture(scope="module")
def state(tool, network):
    """The network's weights as the source has them."""
    norms = {id(norm.input): norm for norm in of_type(network, keras.layers.BatchNormalization)}
    state = {}
    convolutions = of_type(network, keras.layers.Conv2D)
    for i, convolution in enumerate(sorted(convolutions, key=tool._number)):
        norm = norms[id(convolution.output)]
        state[f"layer_{i}.weight"] = np.asarray(convolution.kernel).transpose(3, 2, 0, 1)
        state[f"layer_{i}.beta"] = np.asarray(norm.beta)
        state[f"layer_{i}.mean"] = np.asarray(norm.moving_mean)
        state[f"layer_{i}.var"] = np.asarray(norm.moving_variance)
    return state


def of_type(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


def test_it_sees_in_our_range_what_the_source_sees_in_its_own(tool, network, state):
    photos = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
    ours, theirs = photos / 127.5 - 1, (photos - 128) / 128
    twin = tool.inception_2015(state, SIZE)
    # Random layers let less and less of the photo through: the first activation sees the range.
    early, expected = (first_activation(x) for x in (twin, network))
    np.testing.assert_allclose(early(ours), expected(theirs), atol=1e-5)
    assert np.abs(expected(ours) - expected(theirs)).max() > 1e-3, "the range does not matter"
    np.testing.assert_allclose(
        twin.predict_on_batch(ours), network.predict_on_batch(theirs), atol=1e-4
    )


def first_activation(network):
    layer = of_type(network, keras.layers.Activation)[0]
    return keras.Model(network.input, layer.output).predict_on_batch


def test_another_network_is_refused(tool, state):
    last = next(reversed(state)).removesuffix(".var")
    fewer = {name: array for name, array in state.items() if not name.startswith(last)}
    with pytest.raises(ValueError, match="longer"):
        tool.inception_2015(fewer, SIZE)


def test_another_file_is_refused(tool, tmp_path, monkeypatch):
    source, target = tmp_path / "default_1.pt", tmp_path / "inception.weights.h5"
    source.write_bytes(b"something else")
    monkeypatch.setattr("sys.argv", ["inception_2015.py", str(source), str(target)])
    assert "is not the default_1.pt" in tool.main()
    assert not target.exists()
