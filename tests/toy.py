"""A captioner so small that what it must say is known."""

import keras
import numpy as np
from keras import ops

from captioner.captioner import Captioner
from captioner.checkpoint.checkpoint_folder import Checkpoint
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig
from captioner.data.vocabulary import END, SPECIAL_TOKENS, START, Vocabulary
from captioner.model.caption_model import Annotations

WORDS = [*SPECIAL_TOKENS, "a", "red", "grey", "patch", "here", "there", "where", "today"]
NEXT = {START: "a", 4: "red", 5: "patch", 6: "patch"}
CONFIDENCE = 6.0  # logit of "red" where red is seen; that of "grey" is half of it


class Toy(keras.Model):
    """Says "a red patch". It looks at red or at blue, and its evidence for "red" is what it looks
    at or, with `glance`, the whole photo at once."""

    def __init__(self, config: ModelConfig, looks_at: int, glance: bool) -> None:
        super().__init__()
        self.config = config
        self.looks_at, self.glance = looks_at, glance
        table = np.full((len(WORDS), len(WORDS)), -30.0, np.float32)  # logits after each word
        for word in range(len(WORDS)):
            following = NEXT.get(word)
            table[word, WORDS.index(following) if following else END] = 0.0
        table[4, 6] = CONFIDENCE / 2
        self.table = table
        self.built = True

    def encode(self, features):
        return Annotations(ops.relu(ops.cast(features, "float32")), features)

    def initial_state(self, annotations, captions):
        mean = ops.mean(annotations.vectors, axis=1)
        return ops.repeat(ops.expand_dims(mean, 1), captions, axis=1)

    def embedding(self, words):
        return ops.one_hot(words, len(WORDS))

    def step(self, annotations, state, embedded, bias=None):
        weights = ops.softmax(50 * annotations.vectors[:, None, :, self.looks_at], axis=-1)
        weights = weights + 0 * state[..., :1]
        return state, ops.matmul(weights, annotations.vectors), weights

    def project(self, state, context, embedded, training=False):
        red = 4 * state[..., :1] if self.glance else context[..., :1]
        evidence = CONFIDENCE * red * embedded[..., 4:5]
        return ops.matmul(embedded, self.table) + evidence * ops.one_hot(5, len(WORDS))


def toy_captioner(looks_at: int, glance: bool) -> Captioner:
    photo = keras.Input((16, 16, 3))
    backbone = keras.Model(photo, keras.layers.AveragePooling2D(2)(photo))  # a cell: 2 x 2 pixels
    sizes = ModelConfig(vocabulary_size=len(WORDS), rows=8, columns=8, channels=3)
    config = CaptionerConfig(sizes, BackboneConfig("inception_v3", 75))
    model = Toy(sizes, looks_at, glance)
    return Captioner(Checkpoint(config, Vocabulary(WORDS), model, backbone), batch_size=16)
