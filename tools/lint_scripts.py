"""Checks the JavaScript of the page with oxlint (`make lint`). This does not need Node.

    python tools/lint_scripts.py

The files of a part of the page are joined to one script. Each part is therefore checked as one
script, and the problems are reported with the file and line where they are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from captioner.web import scripts

CONFIG = Path(__file__).with_name("oxlint.json")


def main() -> int:
    """Prints the problems. Returns the exit status."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    linter = shutil.which("oxlint", path=path)
    if linter is None:
        print("oxlint is not installed, so the page's scripts were not checked.")
        return 0
    intake, viewer = check(linter, scripts.INTAKE), check(linter, scripts.VIEWER)
    # A function of the shared file is unused only if neither part uses it.
    problems = {
        found
        for found in intake | viewer
        if found[0] != scripts.SHARED
        or "no-unused-vars" not in found[2]
        or found in intake & viewer
    }
    for name, line, message in sorted(problems):
        print(f"captioner/web/{name}.js:{line}: {message}")
    return 1 if problems else 0


def check(linter: str, part: tuple[str, ...]) -> set[tuple[str, int, str]]:
    """The problems of one part, each with its file, the line in this file and the message."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.js"
        file.write_text(scripts.script(part), "utf-8")
        command = [linter, "--config", CONFIG, "--format", "json", file]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        diagnostics = json.loads(done.stdout)["diagnostics"]
    except ValueError:  # it could not start, or its options have changed
        raise SystemExit(f"oxlint failed:\n{done.stdout}{done.stderr}") from None
    places = [
        (name, line)
        for name in part
        for line, _ in enumerate(scripts.script((name,)).split("\n"), start=1)
    ]
    found = set()
    for problem in diagnostics:
        spans = [label["span"] for label in problem["labels"]]
        name, line = places[spans[0]["line"] - 1] if spans else (part[0], 1)
        found.add((name, line, f"{problem['message']} {problem.get('code', '')}"))
    return found


if __name__ == "__main__":
    sys.exit(main())
