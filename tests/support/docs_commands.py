"""How each command of the documents is tested: run in this process, or checked, and why it is not run."""

import re
import subprocess
import tomllib
from collections.abc import Callable

from pyrseg_jax.commands import MODES
from pyrseg_jax.run import command_line, config_file
from pyrseg_jax.run import config as config_lib
from support.docs import ROOT, Command

RUN = ("predict", "export", "help", "configs", "--version")


def arguments_of(command: Command) -> list[str]:
    """Return the arguments of a `pyrseg` command, without the name of the program."""
    words = list(command.words)
    return words[1:] if words[0] == "pyrseg" else words[3:]


def read_only(command: Command) -> None:
    """Read the command line and the configuration as the program does, without running the mode."""
    arguments = command_line.parse(arguments_of(command), MODES)
    mode = MODES[arguments.mode]
    command_line.check_flags(arguments, mode.takes, mode.needs, mode.without_config)
    name = arguments.flags["config"]
    if name is not None and "mine" not in name:  # the reader's own copy of a config
        config_lib.resolve(config_file.load(config_file.find(name)), arguments.changes)


def check_script(command: Command) -> None:
    """The script exists, and accepts the options that it is given: those of pyrseg_jax are read as the program reads them."""
    script = next(word for word in command.words if word.startswith("launch/"))
    text = (ROOT / script).read_text()
    given = command.words[command.words.index(script) + 1 :]
    of_program = [word for word in given if word.startswith(("--config", "--workdir"))]
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
    ("pyrseg compile", "minutes, and compilers that the tests do not install", read_only),
    ("pyrseg tune", "many trainings; test_tune.py runs a tiny search", read_only),
    ("pyrseg import", "needs an export; test_importing.py runs it", read_only),
    ("pyrseg validate --config=camvid", "needs PASCAL VOC; test_in_place.py reads its layout", read_only),
    ("pyrseg push", "needs the hub; test_push.py runs it", read_only),
    ("pyrseg prepare", "downloads gigabytes", read_only),
    ("pyrseg calibrate", "sees a split twice; test_calibration.py runs it", read_only),
    ("pyrseg serve", "answers until it is stopped; test_serving.py runs it", read_only),
    ("curl", "needs a server; test_serving_requests.py asks one", nothing_to_check),
    ("docker", "needs a daemon; test_launch_serving.py reads the Dockerfile", nothing_to_check),
    ("kubectl", "needs a cluster", nothing_to_check),
    ("openssl", "there is no part of this project in it", nothing_to_check),
    ("pyrseg rank", "sees a split; test_ranking.py runs it", read_only),
    ("pyrseg report", "needs an evaluated run; test_main.py runs it", read_only),
    ("pyrseg demo", "needs the library of the browser; test_demo_command.py runs it", read_only),
    ("pyrseg compare", "needs several evaluated runs; test_compare.py runs it", read_only),
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
