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
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from captioner.bounds import Bounds
from captioner.errors import CaptionerError

CONFIG_VERSION = 2

# The numbers that a field below may be.
Count = Annotated[int, Bounds(1, 1_000_000, whole=True)]
CountFrom0 = Annotated[int, Bounds(0, 1_000_000, whole=True)]
Size = Annotated[int, Bounds(1, 65_536, whole=True)]
Words = Annotated[int, Bounds(5, 1_000_000, whole=True)]  # four special tokens and a word
Pixels = Annotated[int, Bounds(16, 2048, whole=True)]
Crops = Annotated[int, Bounds(0, 16, whole=True)]
Natural = Annotated[int, Bounds(0, 2**32 - 1, whole=True)]
Positive = Annotated[float, Bounds(1e-12, 1e6)]
UpTo1 = Annotated[float, Bounds(0, 1)]
Rate = Annotated[float, Bounds(1e-12, 1)]
Below1 = Annotated[float, Bounds(0, 0.99)]
Weight = Annotated[float, Bounds(0, 100)]


class ConfigError(CaptionerError, ValueError):
    """A configuration that this version cannot use; the message names the key."""


@dataclass(frozen=True)
class BackboneConfig:
    """The convolutional network that turns a photo into features.

    `weights` is "imagenet" (the public file that Keras downloads) or "bundled" (a file of the
    checkpoint); `fingerprint` is the SHA-256 of the weights' values, see `backbone.fingerprint`.
    """

    name: str  # of an entry of the table `model.backbones`
    image_size: Pixels  # pixels, both sides
    weights: Literal["imagenet", "bundled"] = "imagenet"
    fingerprint: str = ""
    note: str = ""  # what people should know about the weights; stands in the model card

    def __post_init__(self) -> None:
        _check_fields("backbone", self)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of encoder, attention and decoder.

    The names follow Show, Attend and Tell (arXiv 1502.03044): the encoder's outputs are the
    annotation vectors, the attention-weighted sum of them is the context vector.
    """

    vocabulary_size: Words  # words, the four special tokens included
    rows: Size  # of the feature map
    columns: Size  # of the feature map
    channels: Size  # of a location
    embedding_dim: Size = 256  # numbers in the vector of a word, and in that of a cell of the photo
    units: Size = 512  # numbers in the state of the GRU
    attention_units: Size = 512  # width of the layer that scores each cell
    dropout: Below1 = 0.3  # on features, word embeddings and the output layer
    initial_state: Literal["mean", "zeros"] = "mean"  # made from the mean annotation; or "zeros"
    gate: bool = True  # whether a gate scales the context vector (Xu et al. 2015, section 4.2.1)
    deep_output: bool = True  # whether context and word reach the output layer (equation 7 there)

    def __post_init__(self) -> None:
        _check_fields("model", self)

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

    epochs: Count = 20  # the most epochs of cross-entropy
    batch_size: Count = 32  # photos in a step, each with its captions
    captions_per_image: Count = 5  # of a photo in an epoch; if it has more, some are drawn
    learning_rate: Positive = 1e-3  # of cross-entropy, at its highest
    schedule: Literal["cosine", "constant"] = "cosine"  # of the learning rate; or "constant"
    warmup_steps: Natural = 200  # steps in which a cosine schedule rises to the highest rate
    weight_decay: Below1 = 1e-4  # of AdamW
    clip_norm: Positive = 5.0  # the largest norm of a gradient
    label_smoothing: Below1 = 0.1  # share of the target that is spread over all words
    patience: Count = 4  # epochs without a better validation loss before stopping
    max_words: Count = 30  # words of a training caption; longer ones are cut
    vocabulary_limit: Count = 5000  # the most words, besides the four special tokens
    min_count: Count = 1  # words that occur less often in the training captions are unknown
    seed: Natural = 0  # of weights, order, dropout, samples, and of the choice of photos
    mixed_precision: bool = False  # whether matrix products are in bfloat16, for GPUs
    mixed_extraction: bool = False  # whether features are made by products in bfloat16, for GPUs
    mirror: bool = False  # whether training photos are also shown mirrored, in other epochs
    crops: Crops = 0  # random parts of each training photo that are shown, too, in other epochs
    finetune_from: str = ""  # the first block of the backbone that is trained, too; none if empty
    finetune_epochs: Count = 2  # the most epochs of fine-tuning, which trains the backbone, too
    finetune_image_size: Pixels = 299  # width and height of its photos, in pixels; fewer cost less
    finetune_learning_rate: UpTo1 = 5e-5  # of the backbone in fine-tuning, at its highest
    decoder_learning_rate: Rate = 1e-4  # of the decoder in fine-tuning and polishing, likewise
    polish_epochs: Count = 1  # the most epochs of polishing: the decoder alone, after fine-tuning
    cider_epochs: CountFrom0 = 0  # epochs of self-critical training, after all others
    cider_learning_rate: UpTo1 = 2e-4  # of self-critical training, always the same
    cider_overuse: Weight = 0.0  # weight of the penalty on words used more often than by people
    cider_captions: Literal["all", "people"] = "all"  # references: "all", or captions by "people"
    cider_blend: UpTo1 = 0.25  # 0: weights before self-critical training, 1: of its best epoch

    def __post_init__(self) -> None:
        _check_fields("training", self)


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
        if isinstance(values, dict) and "version" not in values:
            raise ConfigError(
                "it has no version of the configuration format, so another program wrote it. Give "
                "a checkpoint that train.py has made."
            )
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
        for name, hint in _types(kind).items()
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
        changed[section][key] = _from_text(known[name], text)
    recipe = Recipe(recipe.model | changed["model"], recipe.training | changed["training"])
    ModelConfig(5, 1, 1, 1, **recipe.model), TrainingConfig(**recipe.training)  # check them
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


def _from_text(kind: Any, text: str) -> Any:
    """The value that somebody typed; the text itself if it cannot be a value of this kind."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if get_origin(kind) is Annotated:
        with suppress(ValueError):
            return kind.__origin__(text)
    return text


def _check_fields(section: str, config: Any) -> None:
    for name, kind in _types(type(config)).items():
        _check(kind, getattr(config, name), f"{section}.{name}")


def _check(kind: Any, value: Any, where: str) -> None:
    """Raises `ConfigError` unless `value` is of `kind`, the type of a field, and in its bounds."""
    if get_origin(kind) is Annotated:
        (bounds,) = kind.__metadata__
        allowed, what = bounds.allow(value), bounds
    elif get_origin(kind) is Literal:
        allowed = value in get_args(kind)
        what = " or ".join(f'"{choice}"' for choice in get_args(kind))
    else:
        allowed = type(value) is kind
        what = {bool: "true or false", int: "a whole number", str: "text"}[kind]
    if not allowed:
        raise ConfigError(f"{where} is {value!r}: it must be {what}")


def _types(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields, with their bounds."""
    return get_type_hints(kind, include_extras=True)


def _parse(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as `kind`: a dataclass of this module, or the type of a field."""
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
        types = _types(kind)
        return kind(**{key: _parse(types[key], value[key], f"{where}.{key}") for key in value})
    _check(kind, value, where)
    return float(value) if getattr(kind, "__origin__", kind) is float else value
