"""The documents: their commands and their code run.

Every command in README.md and in the guide belongs to exactly one class: it is run in this process against a tiny data set and a
tiny run, or it is checked as the table `CHECKED` (`support/docs_commands.py`) says, which also gives the reason why it is not run.
"""

import contextlib
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from support.command_line import TINY
from support.data_sets import CLASSES, draw_pair, write_folder
from support.docs import ROOT, blocks_of, commands_of, pages_with_tested_blocks, prose_of
from support.docs_commands import CHECKED, arguments_of, class_of
from support.serving import Bright, running

from pyrseg_jax import main as command_line_main
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.datasets import DATASETS
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.weights.hrnet import to_state_dict
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import config_file

LANGUAGES = {"bash", "python", "text", "dockerfile"}
STEPS = 2
# Every training of these tests: the tiny network for two steps, on the data set that the command names or else on `mydata`.
SMALL = [
    *(argument for argument in TINY if not argument.startswith(("--config.data.name", "--config.training"))),
    "--config.data.name=folder",
    "--config.data.workers=0",
    "--config.training.batch_size=2",
    "--config.parallel.data=1",  # one of the virtual devices of the tests
    f"--config.training.steps={STEPS}",
    "--config.training.warmup_steps=0",
    f"--config.training.evaluate_every={STEPS}",
    "--config.model.dtype=float32",
    "--config.model.init=None",  # weights of larger networks
    "--config.training.trackers=None",  # need packages of their own
    "--config.optimizer.layer_decay=None",  # needs an order of the layers, which the tiny network does not define
    "--config.evaluation.analysis=False",
]
# Values of a documented command that would take long, and what is used instead.
SMALLER = {
    "--step": str(STEPS),
    "--sizes": "64x64,64x96",
    "--window": "64",
    "--config.data.holdout": "1",
    "--config.data.folds": "2",
}
COMMANDS = [
    c for page in pages_with_tested_blocks() for b in blocks_of(page) if b.language == "bash" for c in commands_of(b)
]


def test_every_block_is_of_a_known_kind():
    for page in pages_with_tested_blocks():
        for block in blocks_of(page):
            assert block.language in LANGUAGES, f"{block.place}: a fence needs one of {LANGUAGES}"
        for number, line in enumerate(prose_of(page).splitlines()):
            is_command = re.match(r" {4,}(pyrseg|python|bash|import|from) ", line)
            assert not is_command, f"{page.name}: {line!r} is code without a fence (about line {number})"


def test_every_entry_of_the_table_is_needed():
    used = {class_of(command) for command in COMMANDS}
    assert "run" in used
    assert [CHECKED[i][0] for i in range(len(CHECKED)) if i not in used] == []


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, id=f"{c.place} {c.text[:60]}") for c in dict.fromkeys(COMMANDS) if class_of(c) != "run"],
)
def test_a_command_that_is_not_run_is_right(command):
    _, reason, check = CHECKED[class_of(command)]
    assert reason
    check(command)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder as a reader has it: own data, photographs, weights, configs, and a run `runs/scenes` of a tiny network."""
    place = tmp_path_factory.mktemp("workspace")
    write_folder(place / "mydata", {"training": 4, "validation": 2}, size=(64, 64))
    (place / "photos").mkdir()
    photo = Image.fromarray(draw_pair(np.random.default_rng(0), 60, 70)[0])
    for name in ("photo.jpg", "photos/one.jpg", "photos/two.png", "satellite.tif"):
        photo.save(place / name)
    shutil.copytree(ROOT / "configs", place / "configs")
    shutil.copy(place / "configs" / "camvid.py", place / "configs" / "mine.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        call(["train", "--config=scenes", *SMALL, "--config.data.root=mydata"])
    return place


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


def call(arguments: list[str]) -> None:
    assert command_line_main.main(["pyrseg", *arguments]) == 0, arguments


def shrink(argument: str) -> str:
    name, _, value = argument.partition("=")
    return f"{name}={SMALLER.get(name, value)}" if value else argument


def runnable() -> list:
    """Return the arguments of each command to run; the first of each mode in every test run, the others in the slow one."""
    commands = dict.fromkeys(tuple(arguments_of(c)) for c in COMMANDS if class_of(c) == "run")
    seen: set[str] = set()
    result = []
    for arguments in commands:
        is_first = arguments[0] not in seen or arguments[0] == "help"
        seen.add(arguments[0])
        marks = () if is_first else pytest.mark.slow
        result.append(pytest.param(arguments, id=" ".join(arguments), marks=marks))
    return result


@pytest.mark.parametrize("arguments", runnable())
def test_a_command_runs(inside, arguments, capfd):
    workdir = next((a.partition("=")[2] for a in arguments if a.startswith("--workdir=")), None)
    if workdir is not None and not Path(workdir).exists():
        shutil.copytree("runs/scenes", workdir)
    call([shrink(argument) for argument in arguments])
    if arguments[0] == "predict":
        written = {path.name for path in Path("out").iterdir()}
        name = "satellite" if "--input=satellite.tif" in arguments else "one"
        assert {f"{name}.png", f"{name}_overlay.jpg"} <= written
    elif arguments[0] == "export":
        default = "model.onnx" if "--format=onnx" in arguments else "model.zip"
        output = next((a.partition("=")[2] for a in arguments if a.startswith("--output=")), default)
        assert Path(output).exists() or Path(workdir, output).exists()
    elif arguments[0] == "evaluate":
        assert list(Path(workdir, "evaluation").glob(f"*{STEPS}*.json"))
    else:
        assert capfd.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [pytest.param(c, id=c.text[:80]) for c in dict.fromkeys(COMMANDS) if c.text.startswith("pyrseg train")]
)
def test_a_training_runs_at_a_small_size(inside, command, tmp_path):
    given = [shrink(a) for a in arguments_of(command) if not a.startswith(("--workdir", "--config.data.root"))]
    # A ResNet's strides, and the places where its methods read it, need a ResNet.
    network = ["--config.model.backbone=resnet_tiny"] if "resnet" in command.text else []
    call([*given, *SMALL, *network, "--config.data.root=mydata", f"--workdir={tmp_path / 'run'}"])


# ── Python ──


def given_names() -> dict[str, object]:
    """Arrays that README.md uses without making them."""
    rng = np.random.default_rng(0)
    sizes = (2, 4, 8, 16)
    return {
        "label_map": jnp.asarray(rng.integers(0, 3, (1, 64, 64)), jnp.uint8),
        "unity_logits": tuple(jnp.zeros((1, s, s)) for s in sizes[:-1]),
        "semantic_logits": tuple(jnp.zeros((1, s, s, 3)) for s in sizes),
        "unity_probs": tuple(jnp.full((1, s, s), 0.4) for s in sizes[:-1]),
        "semantic_probs": tuple(jnp.full((1, s, s, 3), 1 / 3) for s in sizes),
    }


@pytest.fixture
def tables():
    """Take back, after the test, what a page adds to the tables of parts."""
    before = [(table, set(table)) for table in (BACKBONES, CONTEXTS, DATASETS)]
    yield
    for table, names in before:
        for name in set(table) - names:
            del table[name]


PYTHON_PAGES = [page for page in pages_with_tested_blocks() if any(b.language == "python" for b in blocks_of(page))]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.stem)
def test_python_blocks_run(inside, tables, page, tmp_path):
    """All blocks of a page, one after another, in one namespace."""
    if page.stem == "weights":
        write_weights(Path("model.safetensors"))
    names = given_names()
    with contextlib.ExitStack() as held:
        port = held.enter_context(running(Bright())).port if page.stem == "serving" else 8000
        for block in blocks_of(page):
            if block.language == "python":
                text = block.text.replace(":8000", f":{port}")
                exec(compile("\n" * block.line + text, block.page, "exec"), names)
    if page.name == "README.md":
        assert names["result"].labels.shape == (60, 70)
        assert names["result"].class_names == CLASSES
        assert names["probs"].shape == (1, 16, 16, 3)
    if page.stem == "extending":
        check_extensions(tmp_path)
        check_own_config(tmp_path / "mine.py", page)
        assert [x.shape[1] for x in names["pyramids"].semantic] == [2, 4, 8]
        assert float(names["terms"]["dice"]) >= 0
    if page.stem == "quickstart":
        assert Path("pyramid.png").exists()


def write_weights(path: Path) -> None:
    """Write the weights of the tiny backbone with a publisher's names."""
    variables = initial_variables(BACKBONES["hrnet_tiny"].make(), 0)
    save_file(to_state_dict(variables), path)


def check_extensions(place: Path) -> None:
    """The parts that `extending.md` adds work in the rest of the package: the data set is read, the network is built."""
    for kind in ("images", "annotations"):
        shutil.copytree(f"mydata/{kind}/training", place / "training", dirs_exist_ok=True)
    dataset = open_dataset("side_by_side", str(place), None)
    source = dataset.open_split("training")
    image, label = decode_pair(source[0], dataset.label_space)
    assert image.shape[:2] == label.shape
    config = config_lib.defaults()
    config.model.backbone, config.model.context, config.data.name = "plain", "psp", "side_by_side"
    assert config_lib.resolve(config).model.context == "psp"


def check_own_config(path: Path, page: Path) -> None:
    """A config file that defines a backbone, as `extending.md` puts it together, adds it before the names in it are checked."""
    backbone, own_config = (
        next(b.text for b in blocks_of(page) if beginning in b.text) for beginning in ("class Plain", "def get_config")
    )
    del BACKBONES["plain"]
    path.write_text(backbone + own_config)
    config = config_lib.resolve(config_file.load(config_file.find(str(path))))
    assert config.model.backbone == "plain"
    assert "plain" in BACKBONES
