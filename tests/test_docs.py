"""The documents: their commands and code run, their links lead somewhere, their numbers agree, and their words are ours.

Every command in README.md and in the guide belongs to exactly one class: it is run in this process against a tiny data set and a
tiny run, or it is checked as the table `CHECKED` says, which also gives the reason why it is not run.
"""

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.command_line import TINY
from support.data_sets import CLASSES, draw_pair, write_folder
from support.docs import (
    DOCS,
    ROOT,
    Command,
    anchors_of,
    blocks_of,
    commands_of,
    links_of,
    pages,
    pages_with_tested_blocks,
    prose_of,
)

from pyrseg_jax import main as command_line_main
from pyrseg_jax.commands import MODES
from pyrseg_jax.run import command_line, config_file
from pyrseg_jax.run import config as config_lib

LANGUAGES = {"bash", "python", "text", "dockerfile"}
STEPS = 2
# Every training of these tests: the tiny network for two steps, on the data set that the command names or else on `mydata`.
SMALL = [
    *(argument for argument in TINY if not argument.startswith(("--config.data.name", "--config.training"))),
    "--config.data.name=folder",
    "--config.data.workers=0",
    "--config.training.batch_size=2",
    f"--config.training.steps={STEPS}",
    "--config.training.warmup_steps=0",
    f"--config.training.evaluate_every={STEPS}",
    "--config.model.dtype=float32",
    "--config.evaluation.analysis=False",
]
# Values of a documented command that would take long, and what is used instead.
SMALLER = {"--step": str(STEPS), "--sizes": "64x64,64x96"}
RUN = ("predict", "export", "help", "configs", "--version")
COMMANDS = [
    c for page in pages_with_tested_blocks() for b in blocks_of(page) if b.language == "bash" for c in commands_of(b)
]


# ── Commands ──


def arguments_of(command: Command) -> list[str]:
    """Return the arguments of a `pyrseg` command, without the name of the program."""
    words = list(command.words)
    return words[1:] if words[0] == "pyrseg" else words[3:]


def read_only(command: Command) -> None:
    """Read the command line and the configuration as the program does, without running the mode."""
    arguments = command_line.parse(arguments_of(command), MODES)
    mode = MODES[arguments.mode]
    command_line.check_flags(arguments, mode.takes, mode.needs)
    name = arguments.flags["config"]
    if name is not None and "mine" not in name:  # the reader's own copy of a config
        config_lib.resolve(config_file.load(config_file.find(name)), arguments.changes)


def check_script(command: Command) -> None:
    """The script exists, and accepts the options that it is given: those of pyrseg_jax are read as the program reads them."""
    script = next(word for word in command.words if word.startswith("launch/"))
    text = (ROOT / script).read_text()
    given = command.words[command.words.index(script) + 1 :]
    of_program = [word for word in given if word.startswith("--config") or word.startswith("--workdir")]
    for word in set(given) - set(of_program):
        assert word.partition("=")[0] in text, f"{command.place}: {script} does not know {word}"
    read_only(Command(command.place, ("pyrseg", "train", *of_program)))


def dry_run(command: Command) -> None:
    """The script prints what it would run."""
    words = list(command.words)
    words.insert(2 if words[1] == "launch/local.sh" else 3, "--dry-run")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command.place}: {done.stderr}"
    assert done.stdout.strip(), f"{command.place} printed nothing"


def check_benchmark(command: Command) -> None:
    """The script exists and knows the options."""
    text = (ROOT / command.words[1]).read_text()
    for option in command.words[2:]:
        if option.startswith("--"):
            assert option.partition("=")[0].lstrip("-") in text, f"{command.place}: {option}"


def check_extras(command: Command) -> None:
    """The extras are declared."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in re.findall(r"\[(.*?)\]", command.text):
        assert set(extras.split(",")) <= set(declared), f"{command.place}: {extras}"


def nothing_to_check(command: Command) -> None:
    """There is no part of this project in the command."""


# How a command begins, why the test does not run it, and what the test does instead. The first entry that fits counts.
CHECKED: list[tuple[str, str, Callable[[Command], None]]] = [
    ("pyrseg train", "minutes to days; tiny trainings run in `runs` and in the slow test", read_only),
    ("python -m pyrseg_jax.main --config", "the same as pyrseg train", read_only),
    ("pyrseg compile", "minutes, and compilers that the tests do not install", read_only),
    ("pyrseg prepare", "downloads gigabytes", read_only),
    ("pyrseg validate --config=scenes", "renders for a minute", read_only),
    ("bash launch/quickstart.sh", "makes an environment and trains for minutes", check_script),
    ("bash launch/test.sh", "runs all tests, this one included", check_script),
    ("bash launch/ablation.sh", "trains for hours; test_ablation.py runs its parts", check_script),
    ("bash launch/", "needs several processes, a cluster or a cloud", dry_run),
    ("sbatch", "needs Slurm; test_launch.py runs the script with a stand-in", check_script),
    ("bash -c", "makes an environment with CUDA", nothing_to_check),
    ("python benchmarks/", "minutes each", check_benchmark),
    ("pip install", "downloads; the gate installs the wheel into a fresh environment", check_extras),
    ("source .venv/bin/activate", "the tests run in an environment already", nothing_to_check),
    ("mkdocs build --strict", "a minute; the gate builds the site", nothing_to_check),
]


def class_of(command: Command) -> str | int:
    """Return "run", or the number of the entry of `CHECKED` that fits."""
    if command.words[0] == "pyrseg" and command.words[1] in RUN:
        return "run"
    if command.words[:2] == ("pyrseg", "evaluate") or "--config.data.name=folder" in command.words:
        return "run"
    for number, (beginning, _, _) in enumerate(CHECKED):
        if command.text.startswith(beginning):
            return number
    raise AssertionError(f"{command.place}: {command.text}: add how this command is tested")


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
    for name in ("photo.jpg", "photos/one.jpg", "photos/two.png"):
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


RUNNABLE = dict.fromkeys(arguments for c in COMMANDS if class_of(c) == "run" for arguments in [tuple(arguments_of(c))])


@pytest.mark.parametrize("arguments", RUNNABLE, ids=" ".join)
def test_a_command_runs(inside, arguments, capfd):
    workdir = next((a.partition("=")[2] for a in arguments if a.startswith("--workdir=")), None)
    if workdir is not None and not Path(workdir).exists():
        shutil.copytree("runs/scenes", workdir)
    call([shrink(argument) for argument in arguments])
    if arguments[0] == "predict":
        written = {path.name for path in Path("out").iterdir()}
        assert {"one.png", "one_overlay.jpg", "one_pyramid.png"} <= written
    elif arguments[0] == "export":
        assert Path("model.zip").exists() or Path(workdir, "model.zip").exists()
    elif arguments[0] == "evaluate":
        assert list(Path(workdir, "evaluation").glob(f"*{STEPS}*.json"))
    else:
        assert capfd.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [pytest.param(c, id=c.text[:80]) for c in dict.fromkeys(COMMANDS) if c.text.startswith("pyrseg train")]
)
def test_a_training_runs_at_a_small_size(inside, command, tmp_path):
    given = [
        a for a in arguments_of(command) if not a.startswith(("--workdir", "--config.data.root", "--config.model.init"))
    ]
    call([*given, *SMALL, "--config.data.root=mydata", f"--workdir={tmp_path / 'run'}"])


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


PYTHON_PAGES = [page for page in pages_with_tested_blocks() if any(b.language == "python" for b in blocks_of(page))]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.stem)
def test_python_blocks_run(inside, page, monkeypatch):
    """All blocks of a page, one after another, in one namespace."""
    if page.stem == "weights":
        write_weights(Path("model.safetensors"))
    if page.stem == "extending":
        protect_tables(monkeypatch)
    names = given_names()
    for block in blocks_of(page):
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, block.page, "exec"), names)
    if page.name == "README.md":
        assert names["result"].labels.shape == (60, 70)
        assert names["result"].class_names == CLASSES
        assert names["probs"].shape == (1, 16, 16, 3)
    if page.stem == "quickstart":
        assert Path("pyramid.png").exists()


def write_weights(path: Path) -> None:
    from safetensors.numpy import save_file

    from pyrseg_jax.models.hrnet import hrnet_tiny
    from pyrseg_jax.models.initial import initial_variables
    from pyrseg_jax.models.weights.hrnet import to_state_dict

    save_file({k: np.asarray(v) for k, v in to_state_dict(initial_variables(hrnet_tiny(), 0)).items()}, path)


# ── Links, paths, names ──


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{page.name}: {target}; there are {sorted(anchors_of(file))}"


def sources() -> list[Path]:
    """Return the files of the project that people write: code, configs, scripts, documents."""
    kinds = ("*.py", "*.sh", "*.sbatch", "*.yaml", "*.yml", "*.toml", "*.md", "*.cff")
    folders = ("pyrseg_jax", "configs", "launch", "benchmarks", "tests", "docs")
    inside = [path for folder in folders for kind in kinds for path in (ROOT / folder).rglob(kind)]
    return [*inside, *(path for kind in kinds for path in ROOT.glob(kind))]


def test_documents_that_the_code_names_exist():
    found = 0
    for path in sources():
        for name in re.findall(r"\bdocs/[\w/]+\.(?:md|png|json)", path.read_text()):
            found += 1
            assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"
    assert found > 20


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    for quoted in re.findall(r"`([^`\n]+)`", prose_of(page)):
        for name in re.findall(r"(?<![\w/])(?:pyrseg_jax|tests|benchmarks|launch|configs|docs)/[\w./]*\w", quoted):
            is_own = name == "configs/mine.py"  # the reader's own copy
            assert is_own or (ROOT / name).exists(), f"{page.relative_to(ROOT)}: {name}"
        for file, test in re.findall(r"(test_\w+\.py)(?:::(\w+))?", quoted):
            path = ROOT / "tests" / file
            assert path.is_file(), f"{page.relative_to(ROOT)}: {file}"
            assert not test or test in names_in(path), f"{page.relative_to(ROOT)}: {file}::{test}"


def names_in(path: Path) -> set[str]:
    """Return what a Python file defines at its top: functions, classes, constants."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_paper_map_names_functions_that_exist():
    text = (DOCS / "guide" / "paper_map.md").read_text()
    found = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", text)
    assert len(found) > 20
    for file, names in found:
        defined = names_in(ROOT / "pyrseg_jax" / file)
        for name in re.findall(r"`(\w+)`", names):
            assert name in defined, f"paper_map.md: {file} defines no {name}"
    for file in re.findall(r"`((?:models|pyramid|evaluation|reporting|paper|training)/[\w/]+\.py)`", text):
        assert (ROOT / "pyrseg_jax" / file).is_file(), f"paper_map.md: {file}"


def test_the_command_line_is_described_in_full():
    text = (DOCS / "reference" / "command_line.md").read_text()
    for mode in MODES:
        assert f"| `{mode}`" in text, mode
    for flag in command_line.FLAGS:
        assert f"`--{flag}" in text, flag


# ── Numbers and words ──


def between(text: str, start: str, end: str) -> str:
    return text.split(start)[1].split(end)[0].partition("\n")[2].strip()


def test_results_stand_in_one_place():
    results = (DOCS / "guide" / "results.md").read_text()
    summary = between(results, "--8<-- [start:summary]", "<!-- --8<-- [end:summary]")
    readme = (ROOT / "README.md").read_text()
    assert between(readme, "<!-- results:start", "<!-- results:end -->") == summary
    figures = re.findall(r"\| (\d\d\.\d\d)\b", summary)
    assert figures
    details = results.split("[end:summary]")[1]
    for figure in figures:
        assert f"**{figure}**" in details or f"**mIoU {figure}**" in details, figure
    readme = readme.replace(summary, "")
    for path in [*(ROOT / "configs").glob("*.py"), *(p for p in pages() if p.name not in ("results.md", "README.md"))]:
        for figure in figures:
            assert figure not in path.read_text(), f"{path.name} repeats {figure}: name docs/guide/results.md instead"
    assert not [figure for figure in figures if figure in readme]


BRITISH = r"\w*(?:colour|normalis|initialis(?!ation(?:\.json|\b[`.]))|labell|grey|centre|neighbour|behaviour|licence|favour|summaris|optimis)\w*"
# Words of a file format or of a test's name, which keep their spelling.
KEPT = ("initialisation", "test_raw_and_perfect_prediction_are_the_ends_of_relabelling")
CLIPPED = r"in place of|the like of|whoever|shall|is no \w+ but|there is to|by and by|of a sudden"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_words_are_american_and_plain(page):
    text = prose_of(page)
    for word in re.findall(BRITISH, text, re.IGNORECASE):
        assert any(kept in word for kept in KEPT), f"{page.relative_to(ROOT)}: {word}"
    clipped = re.findall(CLIPPED, text, re.IGNORECASE)
    assert not clipped, f"{page.relative_to(ROOT)}: {clipped}"


def test_the_glossary_explains_what_users_meet():
    text = (DOCS / "guide" / "glossary.md").read_text()
    terms = (
        "view",
        "padded size",
        "shard",
        "dataset report",
        "storage",
        "label mapping",
        "resumable key",
        "accelerator",
    )
    for term in (*terms, "unit-cell", "mixed-cell", "void", "don't care", "evaluation protocol", "checkpoint"):
        assert f"| {term} |" in text, term
