"""The scripts of the page's two parts: where a photo is given (the folder `intake`), and where its
captions are shown (the folder `viewer`).

Gradio takes one script for each part and runs it as the body of a function. Therefore the files of
a part are joined in the order of these lists, and share one scope.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
SHARED = "viewer/elements"  # belongs to both parts
INTAKE = (SHARED, "intake/intake", "intake/camera", "intake/many", "intake/history")
VIEWER = (
    SHARED,
    "viewer/state",
    "viewer/attention",
    "viewer/words",
    "viewer/film",
    "viewer/captions",
    "viewer/region",
    "viewer/answers",
    "viewer/requests",
    "viewer/feedback",
    "viewer/actions",
)


def script(files: tuple[str, ...]) -> str:
    """The files of a part, `INTAKE` or `VIEWER`, joined into one script."""
    return "\n".join((HERE / f"{name}.js").read_text("utf-8") for name in files)
