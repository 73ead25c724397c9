"""The command line as a user meets it: each mode as a program of its own, and each mistake as one line."""

import inspect
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.command_line import TINY, call, error_of, run
from support.data_sets import CLASSES, draw_pair, write_folder
from support.report_pages import Page, value_at

from pyrseg_jax import main
from pyrseg_jax.commands import MODES
from pyrseg_jax.run import command_line

EPOCHS = ["--config.training.steps=4 epochs"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set and a run on it, trained by the command line.

    Six images in batches of four: an epoch is one and a half steps, and four epochs are six steps.
    """
    place = tmp_path_factory.mktemp("trained")
    folder = write_folder(place / "data", {"training": 6, "validation": 3}, size=(60, 64))
    workdir = place / "run"
    arguments = [f"--config.data.root={folder}", f"--workdir={workdir}", *EPOCHS, "--config.evaluation.report=True"]
    arguments.append("--config.training.trackers=support.fake_tracker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_TRACKER_LOG", str(place / "tracker.jsonl"))
        done = run("--config=configs/scenes.py", *TINY, *arguments, check=0)
    return folder, workdir, done


def test_train_leaves_what_the_contract_says(trained):
    _, workdir, done = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {"loss", "semantic", "unity_3", "learning_rate", "images_per_second", "data_wait_share"} <= lines[0].keys()
    result = json.loads((workdir / "evaluation" / "validation-6.json").read_text())
    assert set(result["iou"]) == set(CLASSES)
    assert result["step"] == 6
    assert result["images"] == 3
    assert len(result["level_share"]) == 4
    assert sum(result["level_share"]) == pytest.approx(1)
    assert result["protocol"]["scales"] == [1.0]
    for key in ("boundary_miou", "boundary_px", "level_miou", "level_iou", "miou_all_classes", "classes_averaged"):
        assert key in result
    assert json.loads((workdir / "environment.json").read_text())["packages"]["jax"]
    assert json.loads((workdir / "config.json").read_text())["training"]["steps"] == 6
    assert list((workdir / "tensorboard").iterdir())
    assert sorted(p.name for p in (workdir / "figures").iterdir()) == [
        "validation-6",
        "validation_0.png",
        "validation_0_overlay.jpg",
        "validation_0_pyramid.png",
    ]
    assert {p.suffix for p in (workdir / "figures" / "validation-6").iterdir()} == {".png", ".pdf"}
    assert len(result["level_miou"]) == 4
    in_between = json.loads((workdir / "evaluation" / "validation-3.json").read_text())
    assert in_between["level_miou"] is None
    assert in_between["boundary_px"] == 8
    assert "mIoU" in done.stdout


def test_a_tracker_gets_the_whole_record(trained):
    """It gets the configuration, each line of the metrics, the scores of each evaluation, and the pictures after it."""
    _, workdir, done = trained
    assert "trackers: support.fake_tracker, as the run run; what they print is in" in done.stderr
    first, *lines, last = [json.loads(line) for line in (workdir.parent / "tracker.jsonl").read_text().splitlines()]
    assert (first["kind"], first["name"], first["steps"]) == ("open", "run", 6)
    assert last == {"kind": "close", "is_finished": True}
    training = {line["step"]: line["values"] for line in lines if "training/loss" in line.get("values", {})}
    for metrics in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        for name, value in metrics.items():
            if name not in ("step", "validation_loss"):
                assert training[metrics["step"]][f"training/{name}"] == value
    scores = {line["step"]: line["values"] for line in lines if "evaluation/miou" in line.get("values", {})}
    for step in (3, 6):
        result = json.loads((workdir / "evaluation" / f"validation-{step}.json").read_text())
        assert scores[step]["evaluation/mean_dice"] == result["mean_dice"]
        assert scores[step]["iou/sky"] == result["iou"]["sky"]
    pictures = [(line["name"], line["step"]) for line in lines if line["kind"] == "draw"]
    assert pictures == [("predictions/1", 3), ("predictions/1", 6)]
    with Image.open(workdir / "tracking" / "6-0.jpg") as picture:
        assert picture.width > 2 * picture.height


def test_a_run_in_epochs_keeps_what_was_said(trained):
    _, workdir, _ = trained
    config = json.loads((workdir / "config.json").read_text())
    assert (config["training"]["steps"], config["said"]) == (6, {"training.steps": "4 epochs"})


def test_the_same_command_finds_nothing_left_to_do(trained):
    folder, workdir, _ = trained
    before = (workdir / "metrics.jsonl").read_text()
    arguments = ["train", "--config=scenes", *TINY, f"--config.data.root={folder}", f"--workdir={workdir}"]
    done = run(*arguments, *EPOCHS, check=0)
    assert "nothing is left to train" in done.stderr
    assert (workdir / "metrics.jsonl").read_text() == before


def test_evaluate_needs_only_the_workdir(trained):
    _, workdir, _ = trained
    before = json.loads((workdir / "evaluation" / "validation-6.json").read_text())
    done = run("--mode=evaluate", f"--workdir={workdir}", check=0)
    after = json.loads((workdir / "evaluation" / "validation-6.json").read_text())
    assert after["iou"] == before["iou"]
    assert "over the" in done.stdout
    assert after["calibration"] is None
    changes = ["split=training", "short_side_px=None", "calibration=True"]
    run("evaluate", f"--workdir={workdir}", "--step=4", *(f"--config.evaluation.{c}" for c in changes), check=0)
    found = json.loads((workdir / "evaluation" / "training-4.json").read_text())
    assert found["images"] == 6
    measured = found["calibration"]
    assert sum(measured["pixels"]) == np.sum(found["confusion"]) and 0 <= measured["ece"] <= 1
    right = sum(n * share for n, share in zip(measured["pixels"], measured["accuracy"], strict=True) if n)
    assert right == pytest.approx(np.trace(found["confusion"]), abs=2)  # both may break ties otherwise
    assert measured["scaled"] is None  # the run has no temperatures
    assert "has no checkpoint of step 5" in error_of(run("--mode=evaluate", f"--workdir={workdir}", "--step=5"))


def test_a_training_ends_with_a_report_that_the_command_makes_again(trained, tmp_path):
    _, workdir, done = trained
    assert f"report: {workdir / 'report.html'}" in done.stdout
    page = Page((workdir / "report.html").read_text())
    stored = json.loads((workdir / "evaluation" / "validation-6.json").read_text())
    for key, value in page.numbers():
        assert value == value_at(stored, key)
    values = json.loads(page.scripts["application/json"])
    assert sorted(example["name"] for example in values["examples"]) == [f"validation_{i}" for i in range(3)]
    # The wrong pixels of the examples are those of the evaluation, which saw the same three images.
    wrong = sum(pixels for example in values["examples"] for _, _, pixels in example["confusion"])
    confusion = np.array(stored["confusion"])
    assert abs(wrong - (confusion.sum() - np.trace(confusion))) <= 3  # batches of two may round some pixel otherwise
    made = call("report", workdir, f"--output={tmp_path / 'again.html'}")
    assert made.returncode == 0, made.stderr
    again = Page((tmp_path / "again.html").read_text())
    assert again.numbers() == page.numbers()
    names = [example["name"] for example in json.loads(again.scripts["application/json"])["examples"]]
    assert names == [example["name"] for example in values["examples"]]


def test_a_run_can_be_compared_with_itself(trained):
    """The training wrote the counts of each image beside its result."""
    _, workdir, _ = trained
    done = call("compare", f"first={workdir}", f"second={workdir / 'evaluation' / 'validation-6.json'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 images with ")
    line = [line for line in done.stdout.splitlines() if line.startswith("2 second")][-1]
    assert line.split()[2:5] == ["+0.00", "[+0.00,", "+0.00]"]


@pytest.mark.slow
def test_evaluate_follows_the_protocol(trained):
    _, workdir, _ = trained
    protocol = ["--config.evaluation.protocol=multi_scale_flip", "--config.evaluation.split=training"]
    run("--mode=evaluate", f"--workdir={workdir}", "--step=4", *protocol, check=0)
    found = json.loads((workdir / "evaluation" / "training-4-multi_scale_flip.json").read_text())["protocol"]
    assert found["name"] == "multi_scale_flip"
    assert found["scales"] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert found["flip"] is True
    message = error_of(run("--mode=evaluate", f"--workdir={workdir}", "--config.evaluation.protocol=hrnett"))
    assert "config.evaluation.protocol='hrnett': expected one of single" in message


def test_predict_segments_any_photograph(trained, tmp_path, rng):
    _, workdir, _ = trained
    photos = tmp_path / "photos"
    photos.mkdir()
    image, _ = draw_pair(rng, 50, 71)
    Image.fromarray(image).save(photos / "color.jpg")
    Image.fromarray(image[..., 0]).save(photos / "gray.png")
    Image.fromarray(image).convert("CMYK").save(photos / "print.jpeg")
    Image.fromarray(np.dstack([image, image[..., 0]])).save(photos / "see through.webp")
    Image.fromarray(image[:1, :1]).save(photos / "pixel.png")
    (photos / "notes.txt").write_text("no image")
    run("--mode=predict", f"--workdir={workdir}", f"--input={photos}", f"--output={tmp_path / 'out'}", check=0)
    for name, size in (
        ("color", (71, 50)),
        ("gray", (71, 50)),
        ("print", (71, 50)),
        ("see through", (71, 50)),
        ("pixel", (1, 1)),
    ):
        label = Image.open(tmp_path / "out" / f"{name}.png")
        assert label.mode == "L"
        assert label.size == size
        assert set(np.unique(np.asarray(label))) <= {1, 2, 3}
        assert Image.open(tmp_path / "out" / f"{name}_overlay.jpg").size == size
    assert len(list((tmp_path / "out").iterdir())) == 10 + 1  # and the record of what was written


def test_predict_finishes_the_others_when_one_image_is_broken(trained, tmp_path, rng):
    _, workdir, _ = trained
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"broken")
    Image.fromarray(draw_pair(rng, 40, 40)[0]).save(photos / "b.jpg")
    done = run("--mode=predict", f"--workdir={workdir}", f"--input={photos}", f"--output={tmp_path / 'out'}")
    assert (tmp_path / "out" / "b_overlay.jpg").is_file()
    assert "1 of 2 images could not be finished; the first: " in done.stderr.splitlines()[-1]
    assert done.returncode == 1


def test_predict_draws_the_truth_that_lies_beside_the_image(trained, tmp_path):
    folder, workdir, _ = trained
    image = folder / "images" / "validation" / "validation_1.jpg"
    command = ("--mode=predict", f"--workdir={workdir}", "--outputs=pyramid")
    run(*command, f"--input={image}", f"--output={tmp_path / 'with'}", check=0)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "validation_1.jpg").write_bytes(image.read_bytes())
    alone = tmp_path / "alone" / "validation_1.jpg"
    run(*command, f"--input={alone}", f"--output={tmp_path / 'without'}", check=0)
    pictures = [np.asarray(Image.open(tmp_path / d / "validation_1_pyramid.png")) for d in ("with", "without")]
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()


def test_validate_lists_every_problem(folder):
    done = run(
        "--mode=validate",
        "--config=configs/scenes.py",
        "--config.data.name=folder",
        f"--config.data.root={folder}",
        check=0,
    )
    assert "ground" in done.stdout
    prepared = run(
        "--mode=prepare",
        "--config=configs/scenes.py",
        "--config.data.name=folder",
        f"--config.data.root={folder}",
        check=0,
    )
    assert prepared.stdout == done.stdout
    (folder / "images" / "training" / "training_1.jpg").write_bytes(b"")
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(folder / "annotations" / "validation" / "validation_2.png")
    done = run(
        "--mode=validate", "--config=configs/scenes.py", "--config.data.name=folder", f"--config.data.root={folder}"
    )
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "training_1.jpg" in problems[0]
    assert "value 77 at row 0, column 0" in problems[1]
    assert "2 problem(s)" in error_of(done)


def break_data(folder, what):
    label = folder / "annotations" / "training" / "training_3.png"
    if what == "no label":
        label.unlink()
    elif what == "sizes":
        Image.fromarray(np.ones((48, 63), np.uint8)).save(label)
    elif what == "rgb label":
        Image.fromarray(np.ones((48, 64, 3), np.uint8)).save(label)
    elif what == "above":
        Image.fromarray(np.full((48, 64), 4, np.uint8)).save(label)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no label", "training_3.jpg has no label: expected"),
        ("sizes", "training_3.jpg is 64 × 48 pixels, but its label"),
        ("rgb label", "training_3.png has the channels RGB"),
        ("above", "training_3.png: value 4 at row 0, column 0"),
    ],
)
def test_bad_data_ends_training_before_it_begins(folder, tmp_path, what, message):
    break_data(folder, what)
    done = run("--config=configs/scenes.py", *TINY, f"--config.data.root={folder}", f"--workdir={tmp_path / 'run'}")
    assert message in error_of(done)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/scenes.py", "--config.data.rot=x"],
            "config.data.rot is not a configuration key: did you mean config.data.root?",
        ),
        (["--config=scenes", "--config.training.steps=abc"], "config.training.steps='abc': expected int"),
        (["--config=scenes", "--config.data.workers=None"], "config.data.workers='None': expected int, found str"),
        (["--config=scenes", "--config.data=3"], "config.data='3': expected a group of keys"),
        (["--config=configs/nothing.py"], "--config=configs/nothing.py: there is no such file"),
        (["--config=camvid:gpu"], "'gpu' is not known"),
        (
            ["--config=camvid", "--config.data.root=ABSENT"],
            "config.data.root=ABSENT: there is no such folder",
        ),
        (
            ["--config=scenes", "--config.data.crop_px", "100"],
            "config.data.crop_px=100 is not divisible by the coarsest",
        ),
        (["--mode=training"], "--mode=training: expected one of train, evaluate"),
        (["--confg=x"], "--confg is not a flag: did you mean --config?"),
        (["--step"], "--step: expected one argument"),
        (["--step=-1"], "--step=-1: expected an integer, at least 0"),
        (["--distributed=maybe"], "--distributed=maybe: expected one of auto, on, off"),
        (
            ["evaluat"],
            "'evaluat' is not a mode: did you mean evaluate? Flags are written --name=value; --help lists them",
        ),
        (["xyz"], "'xyz' is not a mode: expected one of train, evaluate"),
        (["xyz"], "completion. Flags are written --name=value; --help lists them"),
        (["evaluate", "now"], "'now' is not a flag"),
        (["help", "data", "now"], "'now' is not a flag"),
        (["train", "--input=a.jpg"], "--input is not a flag of train"),
        (["predict", "--input=a.jpg"], "predict needs --input=FILE_OR_FOLDER and --output=PATH"),
        (["help", "training.step"], "did you mean `pyrseg help training.steps`?"),
        (["completion", "tcsh"], "'tcsh' is not a shell that is supported"),
        (["--mode=evaluate", "--workdir=ABSENT/run"], "ABSENT/run holds no run"),
        (["predict", "--workdir=ABSENT/run", "--input=a", "--output=b"], "ABSENT/run holds no run"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, message, tmp_path):
    absent = str(tmp_path / "absent")
    arguments = [argument.replace("ABSENT", absent) for argument in arguments]
    assert message.replace("ABSENT", absent) in error_of(call(*arguments))


def test_a_mistake_is_one_line_of_the_program_too():
    done = run("--config=scenes", "--config.model.backbone=resnet")
    assert error_of(done).startswith("error: config.model.backbone='resnet': expected one of")
    assert "Traceback" in run("--config=scenes", "--config.model.backbone=resnet", "--debug").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "--config=scenes:A", "--step=3", "--config.model.strides=8,4", "--config.data.is_flipped=false"],
        [
            "--step",
            "3",
            "--config",
            "scenes:A",
            "validate",
            "--noconfig.data.is_flipped",
            "--config.model.strides",
            "(8, 4)",
        ],
        [
            "--mode=validate",
            "-config=scenes:A",
            "--step=3",
            "-config.model.strides=[8,4]",
            "--config.data.is_flipped=0",
        ],
        [
            "--mode",
            "validate",
            "--config=x",
            "--config=scenes:A",
            "--step=3",
            "--config.model.strides=8,4",
            "--noconfig.data.is_flipped",
        ],
    ],
)
def test_arguments_can_be_written_in_several_ways(arguments):
    found = command_line.parse(arguments, MODES)
    assert (found.mode, found.topic) == ("validate", None)
    assert (found.flags["config"], found.flags["step"], found.flags["debug"]) == ("scenes:A", 3, False)
    assert found.changes == {"model.strides": (8, 4), "data.is_flipped": False}


def test_without_a_config_the_embedded_data_set_is_trained_on():
    found = command_line.parse(["--debug", "--config.evaluation.analysis"], MODES)
    assert (found.mode, found.flags["config"], found.flags["debug"]) == ("train", None, True)
    assert found.changes == {"evaluation.analysis": True}


def test_no_arguments_at_all_print_the_usage():
    assert call().returncode == 0
    assert call().stdout == call("help").stdout


def test_a_training_without_a_config_says_which_one_it_uses(tmp_path, caplog):
    arguments = command_line.parse(["train", f"--workdir={tmp_path / 'run'}"], MODES)
    with caplog.at_level("INFO"):
        config, _ = main.read_config(arguments, MODES["train"])
    assert config.data.name == "scenes"
    assert caplog.messages == ["no --config and no run in --workdir: using the packaged config scenes"]


def test_every_mode_can_be_loaded_and_takes_what_the_table_says():
    for name, mode in MODES.items():
        parameters = inspect.signature(mode.load()).parameters.values()
        assert mode.has_config + len(mode.takes) <= len(parameters), name
        known = {*command_line.FLAGS, "workdir", "preemption", "topic", "words", "changes", "share"}
        assert set(mode.needs) <= set(mode.takes) <= known, name


def test_predict_says_what_it_needs(trained, tmp_path):
    _, workdir, _ = trained
    done = run("predict", f"--workdir={workdir}", f"--input={tmp_path / 'absent.jpg'}", f"--output={tmp_path}")
    assert "there is no such file or folder" in error_of(done)


def test_a_workdir_of_another_run_is_refused(trained):
    folder, workdir, _ = trained
    arguments = ["--config=configs/scenes.py", *TINY, f"--config.data.root={folder}", f"--workdir={workdir}"]
    message = error_of(run(*arguments, "--config.training.learning_rate=0.5", "--config.seed=4"))
    assert "holds a run of another config: config.seed: 0 → 4; config.training.learning_rate: " in message
    assert "→ 0.5" in message
    assert "config.training.steps: 6 → 9" in error_of(run(*arguments, "--config.training.steps=6 epochs"))


def test_help_names_modes_and_flags():
    for arguments in (["--help"], ["-h"], ["help"]):
        done = call(*arguments)
        assert done.returncode == 0
        for word in (*MODES, "--mode=MODE", "--workdir", "--config.KEY=VALUE", "pyrseg help KEY"):
            assert word in done.stdout


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        (
            "training.batch_size",
            [
                "Global batch size: images per step",
                "an integer, at least 1 (images)",
                "default:  16",
                "cannot be changed",
            ],
        ),
        ("config.training.steps", ["epochs", "since"]),
        ("config.model.backbone", ["hrnet_w48", "hrnet_small", "for training on two CPU cores"]),
        ("training.void", ["agree   void pixels agree with every class", "ignore  the cell is don't care"]),
        ("training.stop_after", ["'2 epochs', or None", "resuming: can be changed when a run resumes"]),
        ("completion", ["pyrseg completion SHELL"]),
        ("mode", ["--mode=MODE"]),
        ("evaluation", ["evaluation.short_side_px", "evaluation.protocol"]),
        ("config", ["  seed", "* data.root", "* can be changed when a run resumes", "--config.KEY=None"]),
        ("predict", ["--input=FILE_OR_FOLDER", "(required)", "--workdir"]),
        ("topology", ["accelerators to compile for"]),
        ("compare", ["usage: pyrseg compare [LABEL=]RUN[+RUN…] …", "--result=NAME", "--overwrite"]),
    ],
)
def test_help_explains(topic, words):
    for done in (call("help", topic), call("--help", topic)):
        assert done.returncode == 0, done.stderr
        for word in words:
            assert word in done.stdout


@pytest.mark.parametrize("mode", ["train", "evaluate", "predict", "validate", "compile", "export"])
def test_flags_about_processes_are_explained_for_modes_that_run_in_several(mode):
    assert ("--coordinator" in call("help", mode).stdout) == (mode in ("train", "evaluate"))


def test_configs_and_their_words_are_listed():
    listed = call("configs").stdout
    for word in ("scenes: ", "camvid: ", ":cpu ", ":A ", ":pyramid ", "row H of Table 2a", "--config=camvid:cpu,F"):
        assert word in listed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_modes_flags_and_values(shell):
    done = call("completion", shell)
    assert done.returncode == 0
    for word in ("evaluate", "workdir", "config.training.batch_size", "hrnet_small", "camvid"):
        assert word in done.stdout
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=done.stdout, text=True, capture_output=True).stderr == ""


def test_bash_completes_the_values_of_a_key():
    script = call("completion", "bash").stdout
    lines = 'COMP_WORDS=(pyrseg --config.model.dtype ""); COMP_CWORD=2; _shtab_pyrseg; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{lines}"], text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["float32", "bfloat16"]


@pytest.mark.parametrize(
    ("words", "current", "expected"),
    [
        ("pyrseg train --config = sc", 4, ["scenes"]),
        ("pyrseg train --config.model.dtype =", 3, ["float32", "bfloat16"]),
        ("pyrseg train --config.model.dtype = bf", 4, ["bfloat16"]),
        ("pyrseg help training.batch_s", 2, ["training.batch_size"]),
        ("pyrseg completion z", 2, ["zsh"]),
    ],
)
def test_bash_completes_after_an_equals_sign(words, current, expected):
    """bash hands "--config=sc" over as three words."""
    script = call("completion", "bash").stdout
    assert "complete -o bashdefault -F _pyrseg_without_equals pyrseg" in script
    lines = f'COMP_WORDS=({words}); COMP_CWORD={current}; _pyrseg_without_equals; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{lines}"], text=True, capture_output=True, check=True)
    assert done.stdout.split() == expected


def test_zsh_takes_values_after_an_equals_sign():
    """A colon separates the fields of a specification in zsh, so names of values must hold none."""
    lines = [line.strip().strip('"') for line in call("completion", "zsh").stdout.splitlines()]
    specifications = [line for line in lines if line.startswith(("--config", "--coordinator"))]
    assert len(specifications) > 50
    for line in specifications:
        assert "=[" in line
        assert len(re.split(r"(?<!\\):", line)) == 3, line


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--input=a", "--help"],
        ["--mode=predict", "--output=x", "-h"],
        ["evaluate", "--help", "--step=3"],
        ["train", "--config.foo=3", "--help"],
        ["--step=x", "--help"],
    ],
)
def test_help_is_printed_whatever_else_is_given(arguments):
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    assert "--workdir" in done.stdout


def test_version():
    assert call("--version").stdout.startswith("pyrseg ")


def test_the_package_itself_is_the_command():
    done = subprocess.run([sys.executable, "-m", "pyrseg_jax", "configs"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == call("configs").stdout and "camvid" in done.stdout
