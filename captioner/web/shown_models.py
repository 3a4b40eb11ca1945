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
    """A model, and what the page has to know of it."""

    captioner: Captioner
    name: str = ""  # what its captions are headed with; empty if it is the only model
    calibration: Calibration | None = None


def shown_models(
    captioner: Captioner, beside: Captioner | None = None, places: Sequence[str] = ("", "")
) -> list[ShownModel]:
    """One model, or two under names that tell them apart.

    Two models with the same network for photos share it afterwards: it takes its memory once, and
    sees each photo once.

    Args:
        captioner: The model that is also behind the endpoints and the tab for many photos.
        beside: The model to compare it with.
        places: Where both come from, a directory or a repository on the Hub each.
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
    """Of each path the last parts, as many as it takes to tell the paths apart: a visitor need not
    know where on the server they are. "checkpoint" alone says nothing."""
    parts = [PurePath(place).parts for place in places]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names) and "checkpoint" not in names:
            return names
    return unique_names(part[-1] for part in parts)
