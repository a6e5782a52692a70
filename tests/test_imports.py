"""The arrows between folders: a room imports only rooms below it, nobody imports a command, Ray stays at the edges."""

import ast
from pathlib import Path

import pytest

from tests.fixtures.places import ROOT

# From top to bottom. Modules beside the rooms are commands, except for these, which every room may import.
ROOMS = {
    "glot": ("capture", "pictures", "motion", "people", "training", "scoring", "models", "features", "human"),
    "pipelines": (
        "pretraining",
        "scenes",
        "motions",
        "open_body",
        "checks",
        "imports",
        "extraction",
        "sets",
        "jobs",
        "decoders",
    ),
    "tuning": (),
}
BASE = {
    "glot.cli",
    "glot.code_version",
    "glot.config",
    "glot.cores",
    "glot.errors",
    "glot.file_lock",
    "glot.gpus",
    "glot.home",
    "glot.library_log",
    "glot.location",
    "glot.model_configs",
    "glot.peer_recipes",
    "glot.recipes",
    "glot.retries",
    "glot.settings",
    "glot.shipped",
}
WITH_RAY = ("pipelines", "tuning", "glot.training")
FILES = sorted(path for package in ROOMS for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it; ours as modules, others as they are named."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names.update(inside or {str(node.module)})
    return names


def room_of(module: str) -> str:
    """The room of one of our modules; "" for a command, the base or the package itself."""
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if name in ROOMS[package] else ""


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    package, room = module.split(".")[0], room_of(module)
    for other in imported(MODULES[module]):
        top = other.split(".")[0]
        assert top not in ("tests", "smplx"), f"{module} imports {other}"
        assert top != "ray" or module.startswith(WITH_RAY), f"{module} imports {other}"
        if top not in ROOMS:
            continue
        assert top in (package, "glot"), f"{module} imports {other}"
        below = room_of(other)
        if not below:
            is_library = other in BASE or other == top or package == top == "tuning"
            assert is_library, f"{module} imports the command {other}"
        elif room and top == package:
            rooms = ROOMS[package]
            assert rooms.index(below) >= rooms.index(room), f"{module} imports {other}, which is above it"


@pytest.mark.parametrize("module", sorted(BASE))
def test_the_base_stands_on_nothing(module: str) -> None:
    ours = {name for name in imported(MODULES[module]) if name.split(".")[0] in ROOMS}
    assert ours <= BASE


def test_every_folder_is_a_room_of_some_modules() -> None:
    for package, rooms in ROOMS.items():
        folders = {path.parent for path in (ROOT / package).rglob("*.py")} - {ROOT / package}
        assert {folder.relative_to(ROOT / package).parts[0] for folder in folders} == set(rooms)
        for folder in folders:
            modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
            assert 3 <= len(modules) <= 20, f"{folder}: {len(modules)} modules"


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_room_lists_its_modules(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    listed = {line.split()[0].rstrip("/") for line in text.splitlines() if line.strip()}
    there = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    there.remove("__init__")
    assert listed >= there, f"{folder}/__init__.py does not list {sorted(there - listed)}"


def test_no_two_modules_share_a_name() -> None:
    """A module's name says what it is, wherever it is imported. Commands and specs of rooms are named after those."""
    names = [module.rsplit(".")[-1] for module in MODULES if room_of(module)]
    assert (
        sorted({name for name in names if names.count(name) > 1 and name not in (*sum(ROOMS.values(), ()), "spec")})
        == []
    )


def test_no_rooms_without_a_name() -> None:
    assert not [module for module in MODULES if module.rsplit(".")[-1] in {"utils", "common", "helpers", "misc"}]
