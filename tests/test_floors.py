"""The package is a house with floors: each imports only from those below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "captioner"
# From the ground up; what shares a floor may not import its neighbours, except on the ground floor.
FLOORS = (
    (
        "config",
        "bounds",
        "errors",
        "files",
        "environment",
        "machine",
        "allocator",
        "retries",
        "streams",
        "unusable_variables",
    ),
    ("data",),
    ("model",),
    ("checkpoint",),
    ("captioner",),
    ("drawing",),
    ("evaluation",),
    ("training",),
    ("web",),
)
# Short names for what stands on other floors, which nothing imports.
DOORS = ("__init__", "__main__", "faithfulness")
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(p.relative_to(PACKAGE).with_suffix("") for p in PACKAGE.rglob("*.py"))


def imports_of(module: Path) -> list[tuple[str, list[str]]]:
    """The modules of the package that a module imports, and the names that it takes of them."""
    tree = ast.parse((PACKAGE / module).with_suffix(".py").read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide which floor is meant"
            found.append((node.module or "", [alias.name for alias in node.names]))
        elif isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
    return [(name, names) for name, names in found if name.split(".")[0] == "captioner"]


def test_every_room_is_on_a_floor() -> None:
    rooms = {module.parts[0] for module in MODULES}
    assert FLOOR_OF.keys() <= rooms <= {*FLOOR_OF, *DOORS}


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] not in DOORS], ids=str)
def test_only_from_below(module: Path) -> None:
    own = module.parts[0]
    for name, names in imports_of(module):
        # `from captioner import files` names its room last.
        rooms = name.split(".")[1:2] or names
        for room in rooms:
            assert room in FLOOR_OF, f"{module} imports {room} from the package's front door"
            below = FLOOR_OF[room] < FLOOR_OF[own]
            same = room == own or FLOOR_OF[room] == FLOOR_OF[own] == 0
            assert below or same, f"{module} imports {name}, which is above it"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_private_name_of_another_module(module: Path) -> None:
    for name, names in imports_of(module):
        private = [n for n in names if n.startswith("_") and not n.startswith("__")]
        assert not private, f"{module} takes {private} from {name}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_captions_need_no_matplotlib(module: Path) -> None:
    """It takes a second to import, and only what draws needs it."""
    if FLOOR_OF.get(module.parts[0], 99) > FLOOR_OF["captioner"]:
        return
    tree = ast.parse((PACKAGE / module).with_suffix(".py").read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    assert "matplotlib" not in {name.split(".")[0] for name in names}


def test_no_circle() -> None:
    graph = {
        "captioner." + ".".join(m.parts): {
            target
            for name, names in imports_of(m)
            for target in (name, *(f"{name}.{n}" for n in names))
        }
        for m in MODULES
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way, module))}"
        if module not in done:
            for other in graph[module] & graph.keys():
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())
