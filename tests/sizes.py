"""What a configuration says of the backbone that ships."""

from captioner.model.backbones import BACKBONES, model_sizes

NAME = "inception_v3"
GRID = model_sizes(BACKBONES[NAME].shape)  # rows, columns and channels of `ModelConfig`
INPUT = {"name": NAME, "image_size": BACKBONES[NAME].image_size}  # of `BackboneConfig`
