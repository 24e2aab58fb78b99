"""Who may import whom: the rooms of the house, held by parsing every import in ``splatinit/``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import splatinit

PACKAGE = Path(splatinit.__file__).parent
# Everybody may know the nouns, the errors, the registries and how progress is told.
SHARED = {"types", "errors", "registry", "progress"}
# Room → rooms it may import beyond SHARED. A new room adds its line here, with the design's reason in mind: data flows
# one way along the line, so a stage never imports the one after it.
ALLOWED: dict[str, set[str]] = {
    "__init__": {"comparing", "config", "io", "pipeline"},
    "__main__": {"cli"},
    "checks": {"config", "geometry", "io"},
    "cli": {
        "checks",
        "comparing",
        "config",
        "convert",
        "data",
        "demo",
        "doctor",
        "environment",
        "io",
        "paths",
        "pipeline",
        "report",
        "sweep",
    },
    "comparing": {"report", "sweep"},
    "config": set(),
    "convert": {"io"},
    "course": set(),
    "data": {"io"},
    "demo": {"geometry", "io", "pipeline", "report"},
    "decoding": {"environment"},
    "densify": {"optim"},
    "device": set(),
    "draws": set(),
    "distributed": {"io", "raster"},
    "doctor": {"environment", "io", "metrics", "raster"},
    "environment": {"memory", "native"},
    "evaluation": {"decoding", "device", "io", "memory", "metrics", "raster", "report"},
    "frames": {"device", "raster"},
    "geometry": set(),
    "initializers": {"config", "decoding", "draws", "geometry", "io", "matching", "memory", "nerf"},
    "io": set(),
    "late": {"device"},
    "losses": {"native"},
    "matching": {"environment", "geometry", "native"},
    "memory": {"device"},
    "metrics": {"io"},
    "native": set(),
    "nerf": {"draws", "io", "native"},
    "optim": {"native"},
    "paths": set(),
    "pipeline": {
        "config",
        "decoding",
        "densify",
        "device",
        "distributed",
        "environment",
        "evaluation",
        "frames",
        "initializers",
        "io",
        "nerf",
        "posers",
        "quality",
        "raster",
        "seeding",
        "stopwatch",
        "training",
    },
    "posers": {"environment", "geometry", "io"},
    "quality": {"decoding", "geometry", "io"},
    "raster": {"native"},
    "report": {"io"},
    "seeding": {"geometry"},
    "steps": {"losses", "native", "optim", "raster"},
    "stopwatch": set(),
    "sweep": {"config", "data", "environment", "initializers", "io", "memory", "pipeline", "raster"},
    "targets": {"decoding", "device", "draws", "raster"},
    "training": {
        "course",
        "decoding",
        "densify",
        "device",
        "distributed",
        "draws",
        "io",
        "late",
        "memory",
        "optim",
        "raster",
        "steps",
        "stopwatch",
        "targets",
    },
    **{name: set() for name in SHARED},
}
HEAVY = {
    "open3d",
    "laspy",
    "pillow_heif",
    "pycolmap",
    "gsplat",
    "imageio",
    "imageio_ffmpeg",
    "viser",
    "ray",
    "pyarrow",
    "torchvision",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement that runs, and whether it stands inside a function."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child, inside
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue  # only for readers and type checkers
            else:
                yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return walk(tree, False)


def imported_rooms(path: Path, node: ast.Import | ast.ImportFrom) -> set[str]:
    """The rooms of splatinit that one statement imports from."""
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
        return {parts[1] for parts in names if parts[0] == "splatinit" and len(parts) > 1}
    if node.level == 0:
        parts = (node.module or "").split(".")
        full = [parts[1:]] if parts[0] == "splatinit" else []
    else:
        package = list(path.relative_to(PACKAGE).parent.parts)
        base = package[: len(package) - node.level + 1]
        full = [base + node.module.split(".")] if node.module else [[*base, alias.name] for alias in node.names]
    # Names of the package itself, like __version__, are no room.
    return {parts[0] for parts in full if parts and not parts[0].startswith("__")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_the_design_allows(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{room} is a new room: give it a line in the import map"
    for node, _ in imports(ast.parse(path.read_text())):
        strangers = imported_rooms(path, node) - ALLOWED[room] - SHARED - {room}
        assert not strangers, f"line {node.lineno}: {room} may not import {', '.join(sorted(strangers))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_only_inside_functions(path: Path) -> None:
    for node, inside in imports(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        heavy = {name.split(".")[0] for name in names} & HEAVY
        assert inside or not heavy, f"line {node.lineno}: {', '.join(heavy)} at module level"


@pytest.mark.parametrize("room", ["raster", "nerf"])
def test_the_oracle_does_not_know_the_engine_that_it_judges(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "reference.py").read_text())
    for node, _ in imports(tree):
        assert "native" not in ast.dump(node), f"line {node.lineno}"


# What listing, --help and `import splatinit` touch; none of it may wait for torch or OpenCV.
LIGHT = (
    "import splatinit",
    "import splatinit.types, splatinit.config, splatinit.pipeline",
    "from splatinit.cli import main; import splatinit.cli.app",
    "from splatinit.posers import POSERS as a; from splatinit.initializers import INITIALIZERS as b; "
    "from splatinit.densify import DENSIFIERS as c; from splatinit.raster import BACKENDS as d; list(a), list(b)",
)


@pytest.mark.parametrize("statement", LIGHT)
def test_light_imports_stay_light(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(*({{'torch', 'cv2', 'pycolmap'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
