"""How far it is through the package: measured call paths, and scans that keep each step in its one file."""

import ast
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from support.command_line import TINY
from support.data_sets import CLASSES, draw_pair
from support.runs import tiny_config, write_run

from pyrseg_jax.commands.predict import predict
from pyrseg_jax.evaluation import analysis
from pyrseg_jax.run.workdir import Workdir

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyrseg_jax"
TESTS = ROOT / "tests"

# Trains a tiny network by `main`, in a process of its own, and prints the functions on the stack while the loss is traced.
TRAIN = """
import json, os, sys, traceback
from pyrseg_jax.training.objective import PyramidObjective

def recording(*arguments):
    print(json.dumps([(frame.filename, frame.name) for frame in traceback.extract_stack()]), flush=True)
    os._exit(0)  # nothing after the first trace matters here

PyramidObjective.__call__ = recording
from pyrseg_jax.main import main

main(["pyrseg_jax", *sys.argv[1:]])
sys.exit(1)
"""


def of_package(stack):
    """Keep the frames of functions of the package: (file, function)."""
    frames = [(Path(file), name) for file, name in stack]
    return [(str(file.relative_to(PACKAGE)), name) for file, name in frames if file.is_relative_to(PACKAGE)]


def modules():
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def calls(tree):
    """List the dotted names of what is called, such as `jax.nn.softmax`."""
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_from_main_to_the_differentiated_step_is_a_short_way(folder, tmp_path):
    data = [f"--config.data.root={folder}", "--config.data.workers=0", "--config.training.batch_size=2"]
    short = ["--config.training.steps=1", "--config.evaluation.analysis=false"]
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")
    command = [sys.executable, "-c", TRAIN, *TINY, *data, *short, f"--workdir={tmp_path / 'run'}"]
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stack = json.loads(done.stdout.splitlines()[-1])
    names = [name for _, name in stack]
    # jax's own function inside `jax.value_and_grad`: all frames before it belong to the caller of the differentiated function.
    way = of_package(stack[: names.index("value_and_grad_f")])
    way = way[next(i for i, (_, name) in enumerate(way) if name == "main") :]
    print("main to the differentiated step:", " → ".join(f"{file}:{name}" for file, name in way))
    assert len(way) <= 6
    assert len({file for file, _ in way}) <= 4


@pytest.fixture(scope="module")
def photo_and_run(tmp_path_factory):
    place = tmp_path_factory.mktemp("paths")
    config = tiny_config()
    write_run(place / "run", config, CLASSES, is_vivid=True)
    Image.fromarray(draw_pair(np.random.default_rng(0), 64, 64)[0]).save(place / "photo.jpg")
    return place / "photo.jpg", config, Workdir(str(place / "run"))


def test_from_logits_to_the_written_file_is_a_short_way(photo_and_run, tmp_path, monkeypatch):
    photo, config, workdir = photo_and_run
    stacks = {}

    def record(name, function):
        def recording(*arguments, **keywords):
            way = of_package((frame.filename, frame.name) for frame in traceback.extract_stack())
            # The network's attention has a softmax, too, and the pictures beside NAME.png are saved later.
            if name == "write" or way[-1][0].startswith("evaluation"):
                stacks.setdefault(name, [frame for frame in way if not frame[1].startswith("<")])
            return function(*arguments, **keywords)

        return recording

    monkeypatch.setattr(jax.nn, "softmax", record("probabilities", jax.nn.softmax))
    monkeypatch.setattr(Image.Image, "save", record("write", Image.Image.save))
    predict(config, workdir, str(photo), str(tmp_path / "out"))
    assert (tmp_path / "out" / "photo.png").is_file()
    # The pipeline hands a batch to the network, and each of its images to a thread that writes.
    begun, written = stacks["probabilities"], stacks["write"]
    last = max(i for i, (file, _) in enumerate(begun) if file == "prediction/pipeline.py")
    for what, way in (("to the logits", begun[last:]), ("to the written file", written)):
        print(f"from the pipeline {what}:", " → ".join(f"{file}:{name}" for file, name in way))
        assert len(way) <= 6
    assert begun[-1][0] == "evaluation/predict.py" and written[0][0] == "commands/predict.py"


def test_predictions_for_users_build_no_targets(photo_and_run, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a prediction was compared with a truth that nobody has")

    holders = [module for name, module in list(sys.modules.items()) if name.startswith("pyrseg_jax")]
    holders = [module for module in holders if "build_targets" in vars(module)]
    assert analysis in holders
    for module in holders:
        monkeypatch.setattr(module, "build_targets", refuse)
    photo, config, workdir = photo_and_run
    predict(config, workdir, str(photo), str(tmp_path / "out"), outputs=("labels", "pyramid"))
    assert (tmp_path / "out" / "photo_pyramid.png").is_file()


def test_logits_become_probabilities_and_are_fused_in_one_file():
    """Attention, the losses, and the relabeling of targets by the unity logits are no predictions.

    Temperature scaling begins with finished probabilities.
    """
    others = ("models/contexts/", "pyramid/", "training/losses/", "evaluation/temperature.py")
    found = {
        file
        for file, tree in modules().items()
        for name in calls(tree)
        if name.rpartition(".")[2] in ("softmax", "log_softmax", "sigmoid", "fuse") and not file.startswith(others)
    }
    assert found == {"evaluation/predict.py"}


def test_resampling_with_half_pixel_centers_has_one_file_on_either_side():
    """The renderer of scenes is exempt: it stretches textures, and nothing has to line up with them."""
    found = {
        file
        for file, tree in modules().items()
        for name in calls(tree)
        if name.endswith(("cv2.resize", "image.resize", "scale_and_translate")) and not file.startswith("scenes/")
    }
    assert found == {"models/resample.py", "data/resample.py"}


def test_no_command_imports_another_command():
    commands = {f"pyrseg_jax.commands.{path.stem}" for path in (PACKAGE / "commands").glob("*.py")}
    for file, tree in modules().items():
        if file.startswith("commands/"):
            nodes = list(ast.walk(tree))
            imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {alias.name for node in imports for alias in node.names}
            names |= {f"{node.module}.{name}" for node in imports if isinstance(node, ast.ImportFrom) for name in names}
            names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
            assert not names & commands, file


def test_the_package_has_few_files_at_its_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 8


# Public methods of named tuples and of the standard library, in spite of their names.
PUBLIC = {"_fields", "_replace", "_asdict", "_make", "_repr_png_", "_exit"}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_names_private_attributes_of_another_file(path):
    """A test that names them breaks when the inside of a file changes, though nothing that it does has changed."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    own = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    # Names given to monkeypatch.setattr and the like.
    named |= {
        argument.value.rpartition(".")[2]
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr")
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    private = {name for name in named if name.startswith("_") and not name.startswith("__")}
    assert private - own - PUBLIC == set()
