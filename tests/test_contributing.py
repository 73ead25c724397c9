"""The worked examples in CONTRIBUTING.md: their files and table entries are put in place in memory, and their tests run."""

import importlib
import inspect
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from support.docs import DOCS, blocks_of

from pyrseg_jax.models.backbones import BACKBONES

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
# Each Python block begins with a comment: the path of its file, or the path and the table to which it adds an entry.
BLOCKS = re.findall(r"^```python\n# (\S+?)(?:, in (\w+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TESTS = re.findall(r"^def (test_\w+)", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def examples():
    """The test functions on the page by name, while its other blocks are in place."""
    tests: dict[str, Callable] = {}
    with pytest.MonkeyPatch.context() as patch:
        module = backbone_of_the_guide(patch)
        for path, table, code in BLOCKS:
            if table:
                package = importlib.import_module(path.removesuffix("/__init__.py").replace("/", "."))
                names = vars(package) | {module.__name__.rpartition(".")[2]: module}
                for key, value in eval(f"{{{code}}}", names).items():
                    patch.setitem(getattr(package, table), key, value)
                continue
            module = types.ModuleType(path.removesuffix(".py").replace("/", "."))
            patch.setitem(sys.modules, module.__name__, module)
            exec(compile(code, path, "exec"), vars(module))
            tests |= {name: value for name, value in vars(module).items() if name.startswith("test_")}
        yield tests


def backbone_of_the_guide(patch: pytest.MonkeyPatch) -> types.ModuleType:
    """Put the backbone of `extending.md` in the file in which the page tells the reader to put it."""
    code = next(b.text for b in blocks_of(DOCS / "guide" / "extending.md") if b.language == "python")
    module = types.ModuleType("pyrseg_jax.models.backbones.plain")
    patch.setitem(sys.modules, module.__name__, module)
    patch.setitem(BACKBONES, "plain", None)  # taken back after the tests, whatever the block assigns
    exec(compile(code, "extending.md", "exec"), vars(module))
    return module


def test_every_python_block_names_its_file():
    assert len(BLOCKS) == PAGE.count("```python")
    assert {table for _, table, _ in BLOCKS} == {"", "BACKBONES", "CONTEXTS", "DATASETS"}
    assert len(TESTS) == 8


@pytest.mark.parametrize("name", TESTS)
def test_worked_example(name, examples, tmp_path):
    takes_folder = "tmp_path" in inspect.signature(examples[name]).parameters
    examples[name](**({"tmp_path": tmp_path} if takes_folder else {}))


def test_paths_named_on_the_page_exist():
    root = Path(__file__).parents[1]
    written = {path for path, _, _ in BLOCKS}
    named = set(re.findall(r"`((?:pyrseg_jax|tests|launch|docs)/[\w./]*)`", PAGE))
    named |= {f"pyrseg_jax/{path}" for path in re.findall(r"`((?:models|data|training|run)/[\w./]+)`", PAGE)}
    assert len(named) > 10
    from_the_guide = "pyrseg_jax/models/backbones/plain.py"
    for path in named - written - {"tests/test_NAME.py", from_the_guide}:
        assert (root / path).exists(), f"CONTRIBUTING.md names {path}, which does not exist"
