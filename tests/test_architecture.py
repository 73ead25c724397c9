"""The floors of the house: a file imports only from floors below its own."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyrseg_jax"
FLOORS = {
    "errors": 0,
    "conventions": 0,
    "pyramid": 1,
    "distributed": 1,
    "storage": 1,
    "models": 2,
    "scenes": 2,
    "data": 3,
    "evaluation": 4,
    "training": 4,
    "reporting": 4,
    "run": 5,
    "paper": 5,
    "export": 6,
    "ahead_of_time": 6,
    "commands": 7,
    "api": 8,
    "main": 8,
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("pyrseg_jax.")}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = part_of(path)
    assert own in FLOORS, f"{path} is on no floor: give {own} one in this test"
    for part in imported_parts(path) - {own}:
        assert FLOORS[part] < FLOORS[own], f"{path} (floor {FLOORS[own]}) imports {part} (floor {FLOORS[part]})"


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=lambda path: path.name)
def test_the_host_side_does_not_import_jax(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"jax", "flax", "optax", "orbax", "tensorflow"}, path


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_file_knows_the_mesh(path):
    """Who else makes shardings from partition specs would have to be changed for each new axis."""
    if path.relative_to(PACKAGE) != Path("distributed/mesh.py"):
        assert "PartitionSpec" not in path.read_text()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_thing_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        assert not is_public or ast.get_docstring(node), f"{path}: {node.name} has no docstring"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_scenes_have_one_door(path):
    """Only the data set of that name imports the renderer, and only through the package's `__init__`."""
    if part_of(path) == "scenes":
        return
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
        for node in imports
        for alias in node.names
    ]
    used = {name for name in names if name.startswith("pyrseg_jax.scenes")}
    allowed = {"pyrseg_jax.scenes"} if path == PACKAGE / "data" / "datasets" / "scenes.py" else set()
    assert used <= allowed, f"{path} imports {used - allowed}"
