"""The notebooks run, use only what is public, and are what their sources say."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from support.docs import DOCS, ROOT

SOURCES = sorted((DOCS / "notebooks").glob("*.py"))
RUN = """
import os, runpy, sys
from pathlib import Path
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
from pyrseg_jax.run.compilation_cache import use_compilation_cache
use_compilation_cache()
pictures = Path("pictures")
pictures.mkdir()
for source in sys.argv[1:]:
    name = Path(source).stem
    def show(name=name):
        plt.savefig(pictures / f"{name}-{len(list(pictures.iterdir()))}.png", dpi=60)
        plt.close("all")
    plt.show = show
    runpy.run_path(source)
    print("done:", name)
"""


def test_there_are_four_notebooks():
    assert [source.stem for source in SOURCES] == ["own_data", "pyramid", "quickstart", "weights"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """All notebooks, executed in small in one process; its output and the folder."""
    place = tmp_path_factory.mktemp("notebooks")
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")
    environment = os.environ | {"PYRSEG_SMALL": "1", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, *map(str, SOURCES)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    return done, place


def test_they_run(executed):
    done, place = executed
    assert done.returncode == 0, done.stderr[-3000:]
    for source in SOURCES:
        assert f"done: {source.stem}" in done.stdout
    assert (place / "runs" / "mine" / "checkpoints").is_dir()
    shown = sorted(picture.name.partition("-")[0] for picture in (place / "pictures").iterdir())
    assert shown == ["own_data", "pyramid", "pyramid", "quickstart", "quickstart"]
    assert re.search(r"τ = 0.5: level 1: ", done.stdout)
    assert "labeled positions are right" in done.stdout


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_they_use_public_names(source):
    for node in ast.walk(ast.parse(source.read_text())):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        assert not [name for name in names if name.startswith("_")], ast.unparse(node)


def test_notebooks_are_those_of_their_sources():
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "notebooks.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for source in SOURCES:
        notebook = json.loads(source.with_suffix(".ipynb").read_text())
        assert notebook["nbformat"] == 4
        assert all(not cell.get("outputs") for cell in notebook["cells"])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_jupytext_reads_the_same_cells(source):
    jupytext = pytest.importorskip("jupytext")
    theirs = jupytext.read(source)
    ours = json.loads(source.with_suffix(".ipynb").read_text())
    assert [(cell["cell_type"], cell["source"]) for cell in theirs.cells] == [
        (cell["cell_type"], "".join(cell["source"])) for cell in ours["cells"]
    ]
