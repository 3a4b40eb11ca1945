"""Links and paths in Markdown files: which of them lead nowhere?"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

NOT_OURS = {".venv", ".git", "build", "output", "node_modules", ".pytest_cache"}
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(
    r"\[[^\]]*\]\(([^)\s]+)[^)]*\)|<(?:img|a|source)[^>]*? (?:src|srcset|href)=\"([^\"]+)\""
)
_PATH = re.compile(r"`((?:assets|benchmarks|captioner|docs|tests|tools)/[\w./-]+)`")


def markdown_files(root: Path) -> list[Path]:
    """The Markdown files under `root` that are not of an environment or a build."""
    found = root.rglob("*.md")
    return sorted(p for p in found if not NOT_OURS.intersection(p.relative_to(root).parts))


def broken_links(root: Path) -> list[str]:
    """`FILE: LINK` for each relative link whose file or heading does not exist under `root`."""
    broken = []
    for page in markdown_files(root):
        text = page.read_text("utf-8")
        for link in re.finditer(_LINK, without_code(text)):
            target = link[1] or link[2]
            if re.match(r"[a-z]+:", target):
                continue
            path, _, heading = unquote(target).partition("#")
            file = (page.parent / path) if path else page
            inside = file.resolve().is_relative_to(root.resolve())
            missing_heading = heading and file.is_file() and heading not in anchors(file)
            if not inside or not file.exists() or missing_heading:
                broken.append(f"{page.relative_to(root)}: {target}")
    return broken


def missing_paths(root: Path) -> list[str]:
    """`FILE: PATH` for each path in backticks, such as `docs/api.md`, that is not under `root`."""
    return [
        f"{page.relative_to(root)}: {path[1]}"
        for page in markdown_files(root)
        for path in re.finditer(_PATH, re.sub(_FENCED, "", page.read_text("utf-8")))
        if not (root / path[1]).exists()
    ]


def without_code(text: str) -> str:
    """The text without its fenced blocks and without code in backticks."""
    return re.sub(r"`[^`\n]+`", "code", re.sub(_FENCED, "", text))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the Hub make them."""
    text = re.sub(_FENCED, "", page.read_text("utf-8"))
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
