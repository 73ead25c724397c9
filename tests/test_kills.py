"""Commands that are killed: nothing is torn, nothing else is touched, no process is left, and the same command finishes."""

import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from support import killed_commands
from support.killed_commands import COMMANDS, Setting, differences, left_processes, tree


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    return Setting(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_nothing_torn_and_finishes_when_given_again(setting, name):
    """`benchmarks/kills_of_commands.py` does this 20 times for each command."""
    setting.measure(name)
    trials = killed_commands.trials(setting, name, num_kills=3, seed=1)
    assert [problem for trial in trials for problem in trial.problems] == []
    assert any(trial.status for trial in trials), "no kill came in time"


def write(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "a.json").write_text('{"miou": 0.5, "seconds": 3.25}')
    (root / "sub" / "b.png").write_bytes(b"picture")
    with zipfile.ZipFile(root / "model.zip", "w") as file:
        file.writestr("about.json", "{}")
    return root


def test_trees_are_compared_without_what_depends_on_the_clock(tmp_path):
    expected = tree(write(tmp_path / "a"))
    other = write(tmp_path / "b")
    (other / "a.json").write_text('{"miou": 0.5, "seconds": 9.75}')
    with zipfile.ZipFile(other / "model.zip", "w") as file:
        file.writestr(zipfile.ZipInfo("about.json", (1999, 1, 1, 0, 0, 0)), "{}")
    assert differences(tree(other), expected) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda root: (root / "sub" / "b.png").write_bytes(b"pict"), ["sub/b.png differs"]),
        (lambda root: (root / "sub" / "b.png").unlink(), ["sub/b.png is missing"]),
        (lambda root: (root / "c.partial").touch(), ["c.partial is left over"]),
        (lambda root: (root / "model.zip").write_bytes(b"PK"), ["model.zip differs"]),
        (lambda root: (root / "a.json").write_text('{"miou": 0.75, "seconds": 3.25}'), ["a.json differs"]),
        (lambda root: (root / "a.json").write_text('{"miou": 0.5, "sec'), ["a.json differs"]),
    ],
)
def test_every_change_of_a_tree_is_found(tmp_path, change, found):
    root = write(tmp_path / "a")
    expected = tree(root)
    change(root)
    assert differences(tree(root), expected) == found
    shutil.rmtree(root)


def test_processes_that_outlive_a_command_are_found_and_ended(monkeypatch):
    monkeypatch.setattr(killed_commands, "PATIENCE_S", 0.2)
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(1); input()"
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline()
    process.kill()
    assert len(left_processes(process)) == 1
    process.wait()
    time.sleep(0.1)
    assert left_processes(process) == []
