"""Rules of the source: which package may import which, what only one file may know, and what every public name explains."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyrseg_jax"
# A file imports only from layers below that of its own package.
LAYERS = {
    "errors": 0,
    "conventions": 0,
    "pyramid": 1,
    "distributed": 1,
    "storage": 1,
    "shapes": 1,
    "models": 2,
    "scenes": 2,
    "data": 3,
    "importing": 4,
    "evaluation": 4,
    "training": 4,
    "reporting": 4,
    "run": 5,
    "paper": 6,
    "export": 6,
    "tuning": 6,
    "prediction": 6,
    "report": 6,
    "serving": 6,
    "demo": 6,
    "ahead_of_time": 6,
    "commands": 7,
    "api": 8,
    "main": 8,
    "__main__": 9,
}
CONFIG_KEY = re.compile(r"\bconfig\.(data|model|training|optimizer|loss|augment|evaluation|parallel|seed)\b")
MAX_LINES_OF_A_FILE = 300
MAX_LINES_OF_A_FUNCTION = 60


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Names of modules, and of what is imported from them, as `pyrseg_jax.package.file.name`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_packages(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_modules(path) if name.startswith("pyrseg_jax.")}


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


def each_file(function):
    return pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))(function)


@each_file
def test_imports_go_down(path):
    own = package_of(path)
    assert own in LAYERS, f"{path} is on no layer: give {own} one in this test"
    for other in imported_packages(path) - {own}:
        assert LAYERS[other] < LAYERS[own], f"{path} (layer {LAYERS[own]}) imports {other} (layer {LAYERS[other]})"


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=lambda path: path.name)
def test_the_host_side_does_not_import_jax(path):
    top_level = {name.split(".")[0] for name in imported_modules(path)}
    assert not top_level & {"jax", "flax", "optax", "orbax", "tensorflow"}, path


@each_file
def test_messages_below_the_configuration_name_plain_arguments(path):
    """`pyrseg_jax.run.naming` completes `root=` to `config.data.root=`."""
    if LAYERS[package_of(path)] >= LAYERS["run"]:
        return
    tree = ast.parse(path.read_text())
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            key = CONFIG_KEY.search(node.value)
            assert key is None, f"{path}:{node.lineno} names {key[0]}: write the plain argument, like `root=`"


@each_file
def test_only_one_file_knows_the_mesh(path):
    """A second file that builds shardings from partition specs would have to change with every new mesh axis."""
    if path.relative_to(PACKAGE) != Path("distributed/mesh.py"):
        assert "PartitionSpec" not in path.read_text()


@each_file
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        assert not is_public or ast.get_docstring(node), f"{path}: {node.name} has no docstring"


@each_file
def test_files_and_functions_stay_short(path):
    """A longer file or function usually does two things."""
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < MAX_LINES_OF_A_FUNCTION, f"{path}: {node.name}"


@each_file
def test_scenes_are_imported_in_one_place(path):
    """Only the data sets of scenes import the renderer, and only through the package's `__init__`."""
    if package_of(path) == "scenes":
        return
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
        for node in imports
        for alias in node.names
    ]
    used = {name for name in names if name.startswith("pyrseg_jax.scenes")}
    is_data_set = path.parent == PACKAGE / "data" / "datasets" and path.stem in ("scenes", "endless_scenes")
    allowed = {"pyrseg_jax.scenes"} if is_data_set else set()
    assert used <= allowed, f"{path} imports {used - allowed}"
