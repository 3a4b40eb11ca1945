"""The sizes of the model and the options of training, as frozen dataclasses.

They are saved beside the weights. `model/decoding_options.py` has the options of the search.

A checkpoint's `config.json` is `CaptionerConfig.to_dict()`. Reading it back is strict: a key this
version does not know, a missing key or a value of the wrong type is a `ConfigError`, because a
size that is silently ignored gives a model that loads and then talks nonsense. Only options of
training may be missing, because they no longer change a finished model. The default of a new
option is therefore what was done before the option existed.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from captioner.errors import CaptionerError

CONFIG_VERSION = 2


class ConfigError(CaptionerError, ValueError):
    """A configuration that this version cannot use; the message names the key."""


@dataclass(frozen=True)
class BackboneConfig:
    """The convolutional network that turns a photo into features.

    `weights` is "imagenet" (the public file that Keras downloads) or "bundled" (a file of the
    checkpoint); `fingerprint` is the SHA-256 of the weights' values, see `backbone.fingerprint`.
    """

    name: str  # of an entry of the table `model.backbones`
    image_size: int  # pixels, both sides
    weights: str = "imagenet"
    fingerprint: str = ""
    note: str = ""  # what people should know about the weights; stands in the model card

    def __post_init__(self) -> None:
        if self.weights not in ("imagenet", "bundled"):
            raise ConfigError(f'backbone.weights is {self.weights!r}: "imagenet" or "bundled"')
        _check_range("backbone", self, 16, 2048, "image_size")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of encoder, attention and decoder.

    The names follow Show, Attend and Tell (arXiv 1502.03044): the encoder's outputs are the
    annotation vectors, the attention-weighted sum of them is the context vector.
    """

    vocabulary_size: int  # words, the four special tokens included
    rows: int  # of the feature map
    columns: int  # of the feature map
    channels: int  # of a location
    embedding_dim: int = 256  # of a word and of an annotation vector
    units: int = 512  # of the GRU
    attention_units: int = 512  # of the layer that scores each location
    dropout: float = 0.3  # on features, word embeddings and the output layer
    initial_state: str = "mean"  # "mean": from the mean annotation (section 3.1.2); or "zeros"
    gate: bool = True  # the scalar beta of section 4.2.1, on the context vector
    deep_output: bool = True  # context and word embedding reach the output layer (equation 7)

    def __post_init__(self) -> None:
        sizes = ("rows", "columns", "channels", "embedding_dim", "units", "attention_units")
        _check_range("model", self, 1, 65_536, *sizes)
        _check_range("model", self, 5, 1_000_000, "vocabulary_size")  # four tokens and a word
        _check_range("model", self, 0, 0.99, "dropout")
        if self.initial_state not in ("mean", "zeros"):
            raise ConfigError(f'model.initial_state is {self.initial_state!r}: "mean" or "zeros"')

    @property
    def locations(self) -> int:
        return self.rows * self.columns

    @property
    def output_dim(self) -> int:
        """Width of the layer below the logits: in the deep output layer, that of a word."""
        return self.embedding_dim if self.deep_output else self.units


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are made. Everything here shapes the result, so a resumed run must agree.

    A field added later must have a default by which nothing changes: see `_parse`.
    """

    epochs: int = 20  # of cross-entropy, at most
    batch_size: int = 32  # images; each brings its captions along
    captions_per_image: int = 5  # in each epoch; of more, others are chosen each time
    learning_rate: float = 1e-3  # peak, after the warm-up
    schedule: str = "cosine"  # of the learning rate; or "constant"
    warmup_steps: int = 200  # of the cosine
    weight_decay: float = 1e-4  # of AdamW
    clip_norm: float = 5.0  # the largest norm of a gradient
    label_smoothing: float = 0.1  # share of the target that is spread over all words
    patience: int = 4  # epochs without a better validation loss before stopping
    max_words: int = 30  # longer captions are cut
    vocabulary_limit: int = 5000  # words, besides the four special tokens
    min_count: int = 1  # words that occur less often in the training captions are unknown
    seed: int = 0  # of weights, order, dropout, samples, and of the choice of photos
    mixed_precision: bool = False  # products in bfloat16, for GPUs
    mixed_extraction: bool = False  # the same for the features
    mirror: bool = False  # each training photo is seen mirrored too, in other epochs
    crops: int = 0  # of each training photo so many random parts are seen too
    finetune_from: str = ""  # the first block of the backbone that learns too; none if empty
    finetune_epochs: int = 2  # of that, from photos
    finetune_image_size: int = 299  # pixels, both sides; fewer cost less, see `finetuning`
    finetune_learning_rate: float = 5e-5  # of the backbone, at its peak
    decoder_learning_rate: float = 1e-4  # of the decoder, meanwhile and in the epochs after it
    polish_epochs: int = 1  # of the decoder alone, on the features of the tuned backbone
    cider_epochs: int = 0  # of self-critical training, after those of cross-entropy
    cider_learning_rate: float = 2e-4  # of self-critical training, throughout
    cider_overuse: float = 0.0  # weight of the penalty on words used more often than people do
    cider_captions: str = "all"  # rewarded is agreement with "all", or with those by "people"
    cider_blend: float = 0.25  # 0 keeps the weights before this phase, 1 those of its best epoch

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "captions_per_image", "patience", "max_words")
        _check_range("training", self, 1, 1_000_000, *counts, "vocabulary_limit", "min_count")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigError(f'training.schedule is {self.schedule!r}: "cosine" or "constant"')
        if self.cider_captions not in ("all", "people"):
            raise ConfigError(
                f'training.cider_captions is {self.cider_captions!r}: "all" or "people"'
            )
        _check_range("training", self, 0, 2**32 - 1, "warmup_steps", "seed")
        _check_range("training", self, 1e-12, 1e6, "learning_rate", "clip_norm")
        rates = ("finetune_learning_rate", "decoder_learning_rate", "cider_learning_rate")
        _check_range("training", self, 0, 1, *rates)
        _check_range("training", self, 1, 1_000_000, "finetune_epochs", "polish_epochs")
        _check_range("training", self, 16, 2048, "finetune_image_size")
        _check_range("training", self, 0, 1_000_000, "cider_epochs")
        _check_range("training", self, 0, 16, "crops")
        _check_range("training", self, 0, 0.99, "weight_decay", "label_smoothing")
        _check_range("training", self, 0, 1, "cider_blend")
        _check_range("training", self, 0, 100, "cider_overuse")


@dataclass(frozen=True)
class CaptionerConfig:
    """A whole checkpoint's configuration."""

    model: ModelConfig
    backbone: BackboneConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    dataset: str = ""
    version: int = CONFIG_VERSION

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> CaptionerConfig:
        """Raises `ConfigError` naming the key that is unknown, missing or of the wrong type."""
        if isinstance(values, dict) and values.get("version") != CONFIG_VERSION:
            raise ConfigError(
                f"written in version {values.get('version')!r} of the configuration format; this "
                f"program reads version {CONFIG_VERSION}. Use the release that wrote it, or train "
                "again."
            )
        return _parse(cls, values, "config")


@dataclass(frozen=True)
class Recipe:
    """Fields of `ModelConfig` and `TrainingConfig` that differ from their defaults. Those that ship
    are in `training/recipes`."""

    model: dict[str, Any]
    training: dict[str, Any]


# What a run finds out by itself, so that nobody can set it.
FOUND_OUT = {
    "model.vocabulary_size": "it is counted in the captions. Set training.vocabulary_limit",
    "model.rows": "it follows from the backbone",
    "model.columns": "it follows from the backbone",
    "model.channels": "it follows from the backbone",
}


SECTIONS: dict[str, type] = {"model": ModelConfig, "training": TrainingConfig}


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """`recipe` with the fields that `settings` name, such as "model.units=1024", set anew.

    Args:
        recipe: What to change.
        settings: SECTION.FIELD=VALUE, where SECTION is "model" or "training". A later one wins.

    Raises:
        ConfigError: There is no such field (the message names the nearest that there is), or the
            value is of another type or out of range.
    """
    changed: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    known = {
        f"{section}.{name}": hint
        for section, kind in SECTIONS.items()
        for name, hint in get_type_hints(kind).items()
    }
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ConfigError(f"{setting!r} should be of the form model.units=1024")
        if name not in known:
            raise ConfigError(f"there is no {name} to set.{nearest(name, known)}")
        if name in FOUND_OUT:
            raise ConfigError(f"{name} cannot be set: {FOUND_OUT[name]}.")
        section, _, key = name.partition(".")
        changed[section][key] = _from_text(known[name], text, name)
    recipe = Recipe(recipe.model | changed["model"], recipe.training | changed["training"])
    ModelConfig(5, 1, 1, 1, **recipe.model), TrainingConfig(**recipe.training)  # in range?
    return recipe


def describe_settings(recipe: Recipe) -> str:
    """What `with_settings` takes: a line for each field, with its value in `recipe` and what it is.

    That is told by the comment behind the field, of which there is no second copy.
    """
    lines = []
    for section, kind in SECTIONS.items():
        comments = dict(
            re.findall(r"^ {4}(\w+): .*  # (.+)$", inspect.getsource(kind), re.MULTILINE)
        )
        values = {name: getattr(kind, name, None) for name in comments} | getattr(recipe, section)
        for name, value in values.items():
            if f"{section}.{name}" not in FOUND_OUT:
                shown = str(value).lower() if isinstance(value, bool) else value
                lines.append(f"{f'{section}.{name}={shown}':<40} {comments[name]}")
    return "\n".join(lines)


def nearest(name: str, known: Iterable[str]) -> str:
    """ " Did you mean ...?" with the nearest of the `known` names, or nothing if none is near."""
    known = list(known)
    tails = {full.rpartition(".")[2]: full for full in known}
    tail = name.rpartition(".")[2]
    if tail in tails:  # the right field under a wrong section, or under none
        found = [tails[tail]]
    else:
        found = difflib.get_close_matches(name, known, 1) or [
            tails[near] for near in difflib.get_close_matches(tail, tails, 1)
        ]
    return f" Did you mean {found[0]}?" if found else ""


def _from_text(kind: type, text: str, where: str) -> Any:
    """The value that somebody typed."""
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{where} is {text!r}: true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{where} is {text!r}: expected {what}") from None


def _check_range(where: str, config: Any, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:  # nor is NaN in any range
            raise ConfigError(f"{where}.{name} is {value}: it must be from {low} to {high}")


def _parse(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as `kind`: a dataclass of this module, int, float, str or bool."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} should be a JSON object, not {type(value).__name__}")
        known = {f.name: f for f in fields(kind)}
        for key in value:
            if key not in known:
                raise ConfigError(
                    f"{where}.{key} is not an option of this version.{nearest(key, known)}"
                )
        for key in known:
            # An option of training is newer than the checkpoint: its default is what was done then.
            if key not in value and kind is not TrainingConfig:
                raise ConfigError(f"{where}.{key} is missing")
        hints = get_type_hints(kind)
        return kind(**{key: _parse(hints[key], value[key], f"{where}.{key}") for key in value})
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where} is {value!r}: expected {kind.__name__}")
    return value
