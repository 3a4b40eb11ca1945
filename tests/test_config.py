"""Configurations survive JSON, and mistakes in them are named."""

from __future__ import annotations

import dataclasses
import json
from copy import deepcopy
from typing import Any

import pytest
from sizes import GRID, INPUT

from captioner.config import (
    FOUND_OUT,
    BackboneConfig,
    CaptionerConfig,
    ConfigError,
    ModelConfig,
    TrainingConfig,
    with_settings,
)
from captioner.training.recipes import RECIPES

CONFIG = CaptionerConfig(
    model=ModelConfig(
        vocabulary_size=104,
        rows=1,
        columns=2,
        channels=3,
        units=16,
        dropout=0.0,
        initial_state="zeros",
    ),
    backbone=BackboneConfig("inception_v3", 75, weights="bundled", fingerprint="ab" * 32),
    training=TrainingConfig(epochs=3, learning_rate=1e-4, seed=7, mixed_precision=True),
    dataset="flickr8k",
)


def changed(path: str, value: Any) -> dict[str, Any]:
    """CONFIG as JSON gives it back, with one value put in its place."""
    values = json.loads(json.dumps(CONFIG.to_dict()))
    *parents, key = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[key] = value
    return values


def without(path: str) -> dict[str, Any]:
    values = deepcopy(CONFIG.to_dict())
    *parents, key = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    del place[key]
    return values


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        leaf
        for key, value in values.items()
        for leaf in (
            leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
        )
    ]


def test_round_trip_through_json() -> None:
    plain = CaptionerConfig(ModelConfig(5004, **GRID), BackboneConfig(**INPUT))
    for config in (CONFIG, plain):
        text = json.dumps(config.to_dict())
        assert CaptionerConfig.from_dict(json.loads(text)) == config
    assert CONFIG.to_dict()["model"]["units"] == 16
    assert CONFIG.model.locations == 2


def test_an_integer_will_do_for_a_fraction() -> None:
    config = CaptionerConfig.from_dict(changed("training.learning_rate", 1))
    assert type(config.training.learning_rate) is float


def test_configurations_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.model.units = 3


@pytest.mark.parametrize("where", ["", "model.", "backbone.", "training."])
def test_unknown_keys_are_named(where: str) -> None:
    with pytest.raises(ConfigError, match=rf"config\.{where}colour"):
        CaptionerConfig.from_dict(changed(f"{where}colour", "blue"))


REQUIRED = [p for p in leaves(CONFIG.to_dict()) if not p.startswith("training.")]


@pytest.mark.parametrize("path", ["model", "training", *REQUIRED])
def test_missing_keys_are_named(path: str) -> None:
    with pytest.raises(ConfigError, match=path.rpartition(".")[2]):
        CaptionerConfig.from_dict(without(path))


def test_an_option_of_training_that_is_newer_than_the_checkpoint_has_its_default() -> None:
    config = CaptionerConfig.from_dict(without("training.cider_overuse"))
    assert config == CONFIG and config.training.cider_overuse == 0


@pytest.mark.parametrize("path", [p for p in leaves(CONFIG.to_dict()) if p != "version"])
def test_values_of_a_wrong_type_are_named(path: str) -> None:
    for value in (None, [], {}):
        with pytest.raises(ConfigError, match=rf"config\.{path} is"):
            CaptionerConfig.from_dict(changed(path, value))


@pytest.mark.parametrize(
    "path, value",
    [
        ("model.units", "512"),
        ("model.units", 512.0),
        ("model.units", True),
        ("model.gate", 1),
        ("model.dropout", "0.4"),
        ("model.dropout", False),
        ("dataset", 8),
        ("version", 2.0),
    ],
)
def test_values_are_not_converted(path: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"config\.{path} is"):
        CaptionerConfig.from_dict(changed(path, value))


@pytest.mark.parametrize("path", ["model", "backbone", "training"])
def test_parts_that_are_no_objects_are_named(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"config\.{path} should be a JSON object"):
        CaptionerConfig.from_dict(changed(path, [1]))
    for values in (None, [], "config", 3):
        with pytest.raises(ConfigError, match="config should be a JSON object"):
            CaptionerConfig.from_dict(values)


@pytest.mark.parametrize("version", [0, 1, "2", True, None])
def test_other_versions_are_refused(version: Any) -> None:
    with pytest.raises(ConfigError, match=f"version {version!r} .* reads version 2"):
        CaptionerConfig.from_dict(changed("version", version))


@pytest.mark.parametrize(
    "path, value",
    [
        ("model.vocabulary_size", 0),
        ("model.vocabulary_size", 4),  # the special tokens alone
        ("model.units", -1),
        ("model.units", 10**9),
        ("model.attention_units", 0),
        ("model.rows", 0),
        ("model.columns", 10**12),
        ("model.dropout", 1.0),
        ("model.dropout", -0.1),
        ("model.dropout", float("nan")),
        ("model.initial_state", "random"),
        ("backbone.image_size", 0),
        ("backbone.image_size", 10**6),
        ("backbone.weights", "/home/somebody/weights.h5"),
        ("training.epochs", 0),
        ("training.batch_size", 0),
        ("training.batch_size", -32),
        ("training.captions_per_image", 0),
        ("training.max_words", 0),
        ("training.vocabulary_limit", 0),
        ("training.patience", 0),
        ("training.warmup_steps", -1),
        ("training.learning_rate", 0.0),
        ("training.learning_rate", float("nan")),
        ("training.learning_rate", float("inf")),
        ("training.decoder_learning_rate", 0.0),  # the backbone's is a multiple of it
        ("training.clip_norm", 0.0),
        ("training.weight_decay", -1.0),
        ("training.label_smoothing", 1.0),
        ("training.seed", -1),
    ],
)
def test_absurd_values_are_named(path: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{path} is"):
        CaptionerConfig.from_dict(json.loads(json.dumps(changed(path, value))))


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match=r"training\.schedule is 'linear'"):
        TrainingConfig(schedule="linear")


def test_types_are_checked_in_python_too():
    for options in ({"epochs": 2.5}, {"learning_rate": "1e-3"}, {"mirror": 1}, {"seed": True}):
        with pytest.raises(ConfigError, match=rf"training\.{next(iter(options))} is .*must be"):
            TrainingConfig(**options)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_real_options(name):
    recipe = RECIPES[name]
    model = ModelConfig(100, **GRID, **recipe.model)
    training = TrainingConfig(**recipe.training)
    assert recipe.model.items() <= dataclasses.asdict(model).items()
    assert recipe.training.items() <= dataclasses.asdict(training).items()


def test_every_field_can_be_set_by_name():
    recipe = with_settings(RECIPES["best"], [])
    assert recipe == RECIPES["best"]
    settings = [
        f"{section}.{name}={str(value).lower() if isinstance(value, bool) else value}"
        for section, kind in (("model", ModelConfig(100, **GRID)), ("training", TrainingConfig()))
        for name, value in dataclasses.asdict(kind).items()
        if f"{section}.{name}" not in FOUND_OUT
    ]
    assert len(settings) > 30
    recipe = with_settings(RECIPES["best"], settings)
    assert ModelConfig(100, **GRID, **recipe.model) == ModelConfig(100, **GRID)
    assert TrainingConfig(**recipe.training) == TrainingConfig()
    changed = with_settings(RECIPES["best"], ["model.units=64", "model.gate = false"])
    assert changed.model == {"attention_units": 128, "units": 64, "gate": False}
    assert "units" not in RECIPES["best"].model, "the recipe itself stays as it is"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.unit=3", r"no model\.unit .* mean model\.units\?"),
        ("units=3", r"mean model\.units\?"),
        ("trainig.epochs=3", r"mean training\.epochs\?"),
        ("model.epochs=3", r"mean training\.epochs\?"),
        ("model.units=many", r"model\.units is 'many': it must be a whole number from 1 to 65536"),
        ("model.units=1.5", r"model\.units is '1\.5'"),
        ("model.gate=1", r"model\.gate is '1': it must be true or false"),
        ("model.dropout=1", r"model\.dropout is 1\.0: it must be a number from 0 to 0\.99"),
        ("training.schedule=linear", r"is 'linear': it must be \"cosine\" or \"constant\""),
        ("model.vocabulary_size=9", r"cannot be set: .*vocabulary_limit"),
        ("model.units", "of the form"),
    ],
)
def test_what_cannot_be_set_is_explained(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(RECIPES["best"], [setting])


def test_an_unknown_key_is_told_from_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"config\.model\.unit is not .* mean units\?"):
        CaptionerConfig.from_dict(changed("model.unit", 3))
