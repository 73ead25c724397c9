"""The tables of an ablation, and the script that trains its runs (with a stand-in for training)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.ablation_runs import write_run

from pyrseg_jax.errors import UserError
from pyrseg_jax.paper.ablation.results import read_results
from pyrseg_jax.paper.ablation.write import write_ablation
from pyrseg_jax.paper.tables import COMPARISONS, TABLE_2A

ROOT = Path(__file__).parents[1]


def test_the_table_has_means_deviations_and_paired_differences(tmp_path):
    a, h = [0.30, 0.34, 0.35], [0.40, 0.42, 0.47]
    for seed in range(3):
        write_run(tmp_path, "A", seed, a[seed], a[seed] / 2)
        write_run(tmp_path, "F", seed, h[seed])
    (tmp_path / "H-0").mkdir()  # a run that is not finished
    write_ablation(tmp_path, read_results(tmp_path))
    table = (tmp_path / "ablation.md").read_text()
    mean, deviation = 100 * np.mean(a), 100 * np.std(a, ddof=1)
    assert (
        f"| A | none, per-pixel | 3 | {mean:.2f} ± {deviation:.2f} | {mean / 2:.2f} ± {deviation / 2:.2f} | 40.42 |"
        in table
    )
    pairs = 100 * (np.array(h) - a)
    assert f"| A → F | +{pairs.mean():.2f} ± {pairs.std(ddof=1):.2f} | – | +1.65 |" in table
    assert "| H |" not in table
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored["miou"]["rows"]["A"]["seeds"] == [0, 1, 2]
    assert stored["miou"]["differences"]["AF"]["mean"] == pytest.approx(pairs.mean())
    assert np.asarray(Image.open(tmp_path / "ablation.png").convert("L")).std() > 10


def test_methods_are_compared_with_and_without_the_pyramid(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "danet", seed, 0.30 + seed / 10, 0.2, [1.0])
        write_run(
            tmp_path, "danet+pyramid", seed, 0.32 + seed / 5, 0.3, [0.5, 0.25, 0.125 - seed / 10, 0.125 + seed / 10]
        )
    write_run(tmp_path, "A", 0, 0.30)
    write_run(tmp_path, "ours", 0, 0.30)
    write_ablation(tmp_path, read_results(tmp_path))
    table = (tmp_path / "ablation.md").read_text()
    assert "| danet | danet, per-pixel | 2 | 35.00 ± 7.07 | 20.00 ± 0.00 | – | – |" in table
    assert (
        "| danet+pyramid | danet, pyramid | 2 | 42.00 ± 14.14 | 30.00 ± 0.00 | – | 50.0 / 25.0 / 7.5 / 17.5 |" in table
    )
    assert "| danet → danet+pyramid | +7.00 ± 7.07 | +10.00 ± 0.00 | – |" in table
    assert "| ours | ours, pyramid | 1 |" in table
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored["miou"]["differences"]["danet → danet+pyramid"]["mean"] == pytest.approx(7)
    assert stored["level_share"] == {"danet+pyramid": pytest.approx([50, 25, 7.5, 17.5])}


def test_a_table_of_methods_alone_has_a_plot(tmp_path):
    write_run(tmp_path, "resnet101+pspnet", 0, 0.3)
    write_run(tmp_path, "resnet101+danet", 0, 0.4)
    write_ablation(tmp_path, read_results(tmp_path))
    assert "| resnet101+danet | resnet101, danet, per-pixel | 1 |" in (tmp_path / "ablation.md").read_text()
    assert np.asarray(Image.open(tmp_path / "ablation.png").convert("L")).std() > 10


def test_recipes_may_differ_between_methods_on_resnets_but_not_between_seeds(tmp_path):
    write_run(tmp_path, "resnet101+pspnet", 0, 0.3)
    write_run(tmp_path, "resnet101+encnet", 0, 0.3)
    read_results(tmp_path)
    write_run(tmp_path, "resnet101+encnet", 1, 0.3, learning_rate=0.5)
    with pytest.raises(UserError, match="encnet-0 and resnet101.encnet-1 differ in more than their label and seed"):
        read_results(tmp_path)


def test_folders_that_no_words_name_are_left_alone(tmp_path):
    write_run(tmp_path, "A", 0, 0.3)
    (tmp_path / "old-1").mkdir()
    (tmp_path / "old-1" / "finished").touch()
    assert read_results(tmp_path).keys() == {"A"}


def test_the_table_has_the_differences_that_the_paper_states():
    """Compare the rows of Table 2a with the differences in the text of Sec. 4.1."""
    stated = {"AB": 1.60, "AC": 1.58, "AE": 1.12, "EF": 0.53, "AF": 1.65, "BG": 1.05, "CH": 2.31}
    stated |= {"FG": 1.00, "FH": 2.24, "GH": 1.24, "CI": 0.63, "IH": 1.68}
    for pair, difference in stated.items():
        assert TABLE_2A[pair[1]].paper_miou - TABLE_2A[pair[0]].paper_miou == pytest.approx(difference, abs=1e-9)
    assert stated.keys() < set(COMPARISONS)


def test_runs_with_different_settings_are_refused(tmp_path):
    write_run(tmp_path, "A", 0, 0.3)
    write_run(tmp_path, "B", 0, 0.3, learning_rate=0.5)
    with pytest.raises(UserError, match="A-0 and B-0 differ in more than their label and seed"):
        read_results(tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no finished run: expected folders named ROW-SEED or METHOD-SEED"):
        read_results(tmp_path)


STAND_IN = """#!{python}
import os, re, sys
if sys.argv[1:3] != ["-m", "pyrseg_jax.main"]:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
sys.path[:0] = ["{root}", "{root}/tests"]
from pathlib import Path
from support.ablation_runs import write_run
values = dict(a[2:].split("=", 1) for a in sys.argv[3:])
row, seed = Path(values["workdir"]).name.rpartition("-")[0], int(values["config.seed"])
with open("{log}", "a") as file:
    file.write(f"{{values['config']}} {{seed}} {{values['config.training.steps']}}\\n")
if os.environ.get("BREAKS") == f"{{row}}-{{seed}}":
    sys.exit("error: the disk is full")
write_run(Path(values["workdir"]).parent, row, seed, 0.3 + seed / 10)
"""


@pytest.fixture
def launch(tmp_path):
    """Return a function that runs the script, and returns its outcome and the runs that it started."""
    log, stand_in = tmp_path / "log", tmp_path / "bin" / "python"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN.format(python=sys.executable, root=ROOT, log=log))
    stand_in.chmod(0o755)

    def run(*arguments, breaks=""):
        log.write_text("")
        environment = os.environ | {"PATH": f"{stand_in.parent}:{os.environ['PATH']}", "BREAKS": breaks}
        command = ["bash", str(ROOT / "launch" / "ablation.sh"), f"--output={tmp_path / 'out'}", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done, sorted(log.read_text().splitlines())

    return run


def test_the_script_runs_every_row_and_seed_once_and_continues(launch, tmp_path):
    arguments = ["--config=configs/camvid.py:cpu", "--rows=A,H", "--seeds=0,2", "--jobs=2", "--config.training.steps=5"]
    done, started = launch(*arguments, breaks="H-2")
    assert started == [f"configs/camvid.py:cpu,{row} {seed} 5" for row in "AH" for seed in (0, 2)]
    assert done.returncode == 1
    assert "error: row H, seed 2 failed: error: the disk is full" in done.stderr
    assert "| A | none, per-pixel | 2 | 40.00 ± 14.14 |" in done.stdout
    assert "| H | coarse_to_fine, pyramid, tp | 1 | 30.00 |" in done.stdout

    done, started = launch(*arguments)
    assert started == ["configs/camvid.py:cpu,H 2 5"]
    assert done.returncode == 0, done.stderr
    assert "| H | coarse_to_fine, pyramid, tp | 2 | 40.00" in (tmp_path / "out" / "ablation.md").read_text()


def test_the_script_runs_methods_by_their_words(launch):
    done, started = launch("--config=camvid:cpu", "--methods=ocr,ocr+pyramid", "--seeds=1", "--config.training.steps=5")
    assert started == ["camvid:cpu,ocr 1 5", "camvid:cpu,ocr,pyramid 1 5"]
    assert "| ocr → ocr+pyramid | +0.00 |" in done.stdout


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--letters=A", "error: unknown argument --letters=A"),
        ("--rows=A,K", "error: --rows=A,K: expected comma-separated letters A to I"),
        ("--methods=ocr+", "error: --methods=ocr+: expected comma-separated methods, whose words"),
        ("--seeds=one", "error: --seeds=one: expected comma-separated numbers"),
        ("--jobs=0", "error: --jobs=0: expected a whole number of at least 1"),
        ("--config=", "error: --config=configs/NAME.py is missing"),
    ],
)
def test_the_script_reports_a_wrong_argument(launch, argument, message):
    done, started = launch("--config=configs/scenes.py", argument)
    assert done.returncode == 1
    assert message in done.stderr
    assert started == []
    assert not re.search(r"line \d+:", done.stderr)
