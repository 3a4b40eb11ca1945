"""The models whose captions the page shows: one, or two side by side (`app.py --compare`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from captioner.captioner import Captioner
from captioner.files import unique_names
from captioner.web.confidence import Calibration, read_calibration


@dataclass(frozen=True)
class ShownModel:
    """A model, and what the page needs to know about it."""

    captioner: Captioner
    name: str = ""  # the heading of its captions; empty if it is the only model
    calibration: Calibration | None = None


def shown_models(
    captioner: Captioner, beside: Captioner | None = None, places: Sequence[str] = ("", "")
) -> list[ShownModel]:
    """One model, or two with names that tell them apart.

    If two models have the same network for photos, they share it from then on, so that it takes
    memory only once and each photo goes through it only once.

    Args:
        captioner: The first model, which the endpoints and the tab for many photos use as well.
        beside: The model to compare it with.
        places: The directory of each model, or its repository on the Hub.
    """
    if beside is None:
        return [ShownModel(captioner, calibration=read_calibration(captioner.folder))]
    backbones = captioner.config.backbone, beside.config.backbone
    if len({(backbone.fingerprint, backbone.image_size) for backbone in backbones}) == 1:
        beside.extractor = captioner.extractor
    names = names_apart(places)
    return [
        ShownModel(each, name, read_calibration(each.folder))
        for each, name in zip((captioner, beside), names, strict=True)
    ]


def names_apart(places: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart, so that visitors do not see where they
    are on the server. "checkpoint" alone is not used, because it says nothing."""
    parts = [PurePath(place).parts for place in places]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names) and "checkpoint" not in names:
            return names
    return unique_names(part[-1] for part in parts)
